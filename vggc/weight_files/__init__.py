"""Weights in files, whatever program has written them, and what files say of them."""
