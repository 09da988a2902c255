"""A graph in another framework."""
