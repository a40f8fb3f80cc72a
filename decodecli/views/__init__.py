"""Records made visible. No torch here."""
