"""One use case a file, without a command line."""
