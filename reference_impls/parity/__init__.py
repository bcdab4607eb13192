"""How methods are put beside their releases: one file per method, called as it, that holds `PARITY`."""
