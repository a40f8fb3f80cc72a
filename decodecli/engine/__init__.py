"""torch lives here: loading, the chain of stages, the decode loop. Knows no screen."""
