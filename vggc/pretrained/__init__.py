"""Weights that others have published for nets of the zoo: which there are, fetched and checked."""
