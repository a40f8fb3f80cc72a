"""A model: loaded, quantized, run."""
