"""What `decodecli sweep` does, part by part."""
