"""Plain values that everything hands on; standard library only."""
