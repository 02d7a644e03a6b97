"""What a typed query takes, beside the tokenising of its text alone."""
