"""Pictures of nets: one layout, and a writer for each kind of file."""
