"""Tests: a folder for each package of vggc, and here those of the checkout as a whole."""
