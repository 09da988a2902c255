"""Pictures: where they lie, which come when, how they are cut and varied."""
