"""What a machine needs that only runs artifacts."""
