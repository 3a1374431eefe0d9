"""`python -m sdteach` is the command `sdteach`."""

from .cli import main

main()
