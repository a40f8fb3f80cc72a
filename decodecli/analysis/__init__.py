"""Questions asked of a model, or of numbers, that return records."""
