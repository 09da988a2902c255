"""Artifacts held to float64, timed beside other engines, and layer by layer."""
