"""The decode loop, for one run and for many."""
