"""``python -m harness``."""

from harness.cli.program import main

main()
