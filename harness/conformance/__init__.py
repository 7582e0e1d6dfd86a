"""The conformance kit: what `harness.method` promises, tested on one method in seconds.

``harness check NAME`` and ``harness check path/to/file.py`` run it; `harness.pytest_plugin` runs it under pytest.
"""

from __future__ import annotations

# Importing a module of checks enters them into the catalogue.
from harness.conformance import contract, density, learning, state  # noqa: F401
from harness.conformance.catalogue import CHECKS, Check, run_check

__all__ = ["CHECKS", "Check", "run_check"]
