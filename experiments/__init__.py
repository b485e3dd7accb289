"""What DVC's experiments are for a reader who chooses among them."""
