"""From a graph to an artifact."""
