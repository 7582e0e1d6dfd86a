"""All checks of the conformance kit, in the order in which they run."""

from __future__ import annotations

from harness.conformance.catalogue import CHECKS, Check, run_check

# Importing a module of checks enters them into the catalogue.
from harness.conformance.checks import (  # noqa: F401  they register themselves
    declared,
    growth,
    interface,
    learning,
    persistence,
    probability,
    process,
    rounding,
    sizes,
    training_steps,
)

__all__ = ["CHECKS", "Check", "run_check"]
