"""The families of vision transformers that the reducers' driver serves: one file each, with `KINDS` by exact type."""
