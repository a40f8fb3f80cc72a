"""Many settings, prompts and seeds from one loaded model."""
