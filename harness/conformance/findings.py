"""How a check of one method ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """How one check of one method ended.

    Args:
        method: Name of the method.
        check: Name of the check.
        status: How the check ended; inapplicable if it says nothing about this method.
        text: Which promise broke, by how much, and the usual cause; or why the check does not apply; or nothing.
    """

    method: str
    check: str
    status: Literal["passed", "inapplicable", "broken"]
    text: str = ""
