"""The kernel calls of an inference, as data."""
