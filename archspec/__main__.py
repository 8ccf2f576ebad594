"""`python -m archspec` is the command."""

from archspec.cli import main

main()
