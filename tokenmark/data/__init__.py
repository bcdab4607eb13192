"""Data sets, prepared once: decoded, cropped by a named rule, kept as one uint8 array with a manifest."""
