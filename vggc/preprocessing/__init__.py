"""What pictures go through before nets that were not trained here: by name, and from files."""
