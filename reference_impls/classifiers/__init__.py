"""Classifiers that reduce tokens by their own architecture: one file per method, each with `METHOD`."""
