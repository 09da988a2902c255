"""Tests: a folder for each room of vggc, and here those of the checkout as a whole."""
