"""Ops, graphs and their weights."""
