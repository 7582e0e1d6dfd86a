"""The program as ``python -m harness.cli``."""

from harness.cli.program import main

main()
