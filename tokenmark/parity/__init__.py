"""Parity with a release: the same weights and inputs by rule, and every recorded output compared."""

from tokenmark.parity.compare import Report, compare
from tokenmark.parity.vector import Vector, load

__all__ = ["Report", "Vector", "compare", "load"]
