"""What happens to one row of logits, and to many: processors, their order, the draw, the numbers."""
