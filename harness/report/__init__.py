"""One self-contained page of everything that was measured: verdicts, figures, tables, and where each number is from."""

from __future__ import annotations

from harness.report.page import build, write

__all__ = ["build", "write"]
