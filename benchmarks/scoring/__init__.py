"""What batch scoring costs, from files to files."""
