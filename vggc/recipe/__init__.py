"""The `train` and `test` blocks of a net."""
