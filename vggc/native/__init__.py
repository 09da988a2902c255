"""The runtime in C that a compiled net is linked with: its sources, no Python."""
