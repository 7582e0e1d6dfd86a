"""Rows as cells write them, for tests that make rows by hand."""

from __future__ import annotations

import json
from typing import Any


def stored_config(kind: str, *, origin: dict[str, Any] | None = None, **settings: Any) -> str:
    """The column `config` of a cell of some kind that its settings alone identify, asked for as its origin says."""
    return json.dumps({"identity": {"kind": kind, **settings}, "settings": settings, "origin": origin or {}})
