"""What papers claim, and whether it holds: claims are data, verdicts are computed from records and never stored."""
