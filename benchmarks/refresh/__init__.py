"""What a refresh of a published model costs."""
