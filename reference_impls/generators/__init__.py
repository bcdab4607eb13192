"""Token generators: one file per method."""
