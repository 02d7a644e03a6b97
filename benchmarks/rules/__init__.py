"""What rules cost, and what they leave of an index's recall."""
