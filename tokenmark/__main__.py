"""`python -m tokenmark`: the command line."""

from tokenmark.cli import main

main()
