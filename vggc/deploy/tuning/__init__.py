"""Tuning: which of a kernel's stated choices is the fastest, found by measuring them."""
