"""What a net costs, and what it looks like in words."""
