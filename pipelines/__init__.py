"""Recipes: one `.toml` each, and a `.py` where a source must become a dataset folder first."""
