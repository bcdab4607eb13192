"""The command line: one verb per file."""

from tokenmark.cli.main import main

__all__ = ["main"]
