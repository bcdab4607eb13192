"""Reference implementations: one file per method. They import from the engine only `tokenmark.contracts`."""
