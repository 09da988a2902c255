"""The text of a net: tree, parser, formatter."""
