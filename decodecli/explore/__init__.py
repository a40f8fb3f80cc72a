"""`decodecli explore`: one's own way through a model's distributions, token by token."""
