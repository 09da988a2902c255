"""The vocabulary of the language, and what of a tree it makes."""
