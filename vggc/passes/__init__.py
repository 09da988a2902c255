"""Graph to graph. The order in which a consumer runs passes stands with the consumer."""
