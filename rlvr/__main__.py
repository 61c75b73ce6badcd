"""`python -m rlvr` is the command `rlvr`."""

from rlvr.cli import main

main()
