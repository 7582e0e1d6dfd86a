"""Rows as cells write them, for tests that make rows by hand."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from harness.results import Row, cell_key


def stored_config(kind: str, *, origin: dict[str, Any] | None = None, **settings: Any) -> str:
    """The column `config` of a cell of some kind with these settings, asked for as its origin says."""
    return json.dumps({"identity": {"kind": kind}, "settings": settings, "origin": origin or {}})


def as_stored(row: Row, **identity: Any) -> Row:
    """A row whose key, configuration and columns agree; what is added to the identity tells cells apart."""
    where = {"threads": row.threads, "cpu": row.cpu, "gpu": row.gpu}
    problem = {"seed": row.seed, "dtype": row.dtype, "device": row.device, "shape": [row.D]}
    settings = {"experiment": row.experiment, "profile": row.profile, "problem": problem}
    whole = {"kind": "runtime", **where, **settings, **identity}
    config = json.dumps({"identity": whole, "settings": settings, "origin": {}})
    return dataclasses.replace(row, cell=cell_key(whole), config=config)
