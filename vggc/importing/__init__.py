"""Nets of other frameworks, read into one neutral form and written as a `.vgg` and its weights."""
