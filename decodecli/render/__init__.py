"""Records turned into something a person sees; no torch."""
