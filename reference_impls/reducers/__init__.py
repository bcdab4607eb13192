"""Token reducers: one file per method."""
