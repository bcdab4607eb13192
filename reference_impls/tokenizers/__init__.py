"""Image tokenizers: one file per method."""
