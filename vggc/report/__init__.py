"""A run as a page to look at: gathered, drawn and written."""
