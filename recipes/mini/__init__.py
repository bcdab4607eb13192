"""Recipes of the small models on the embedded digits: one file per model, `nox -s train-mini` runs them all."""
