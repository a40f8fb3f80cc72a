"""Many settings on many prompts from one loaded model: the grid, the run, what is kept of it."""
