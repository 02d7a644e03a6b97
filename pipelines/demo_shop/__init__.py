"""The generated demo shop: a catalogue with photos, shoppers with tastes, their log, and the truth.

Word lists and silhouettes are fixed; products, tastes, events and queries follow from a seed.
"""
