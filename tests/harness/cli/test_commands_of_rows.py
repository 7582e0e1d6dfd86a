"""The commands that the report prints: each, given to the program, asks for the very cell that it stands beside."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness import datasets
from harness.cells import Cell, base
from harness.cli import program, running
from harness.methods.registry import registry
from harness.results import Store
from harness.results.provenance import Environment

REFERENCE = Path(__file__).parents[3] / "results" / "reference"


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells of the commands that are given to the program, none of which is run, nor are data loaded."""
    cells: list[Cell] = []
    monkeypatch.setattr(running, "run_and_show", lambda asked, *_, **__: cells.extend(asked) or [])
    monkeypatch.setattr(datasets, "load", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "describe", lambda data: "")
    return cells


def _started_otherwise(row: dict[str, Any], identity: dict[str, Any]) -> bool:
    """Say whether a row is from when the tuned recipes left other libraries' layers where they start (before 0.2.0)."""
    old = identity["project"] == "0.1.0" and row["recipe"].startswith("tuned") and row["architecture"] == "fc"
    return old and registry().find(row["method"]).is_papers_fc and "start" not in identity["problem"]


def test_every_printed_command_asks_for_its_own_cell(asked_for: list[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = Store(REFERENCE).frame()
    rows = rows.filter(pl.col("kind") != "asv")
    for row in rows.unique("cell").sort("cell").iter_rows(named=True):
        identity: dict[str, Any] = json.loads(row["config"])["identity"]
        if _started_otherwise(row, identity):
            continue
        where = Environment(row["cpu"], row["gpu"], row["threads"], identity["versions"], None)
        monkeypatch.setattr(base, "capture", lambda *_, where=where: where)
        monkeypatch.setattr(base, "__version__", identity["project"])
        asked_for.clear()
        name, *words = shlex.split(row["command"])
        assert name == "harness"
        program.app(words, standalone_mode=False)
        assert row["cell"] in {cell.key() for cell in asked_for}, row["command"]
