"""Tokenmark: a benchmark suite and reproducibility harness for visual tokens."""

__version__ = "0.1.0"
