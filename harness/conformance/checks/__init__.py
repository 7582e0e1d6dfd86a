"""All checks of the conformance kit, in the order in which they run."""

from __future__ import annotations

from harness.conformance.catalogue import CHECKS, Check, run_check

# Importing a module of checks enters them into the catalogue.
from harness.conformance.checks import declared, growth, interface, learning, persistence, probability, rounding, sizes  # noqa: F401  they register themselves

__all__ = ["CHECKS", "Check", "run_check"]
