"""Measures: states that sum over images, and the numbers that come of them."""
