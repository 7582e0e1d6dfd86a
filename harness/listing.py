"""What `harness list` shows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from harness.environment import capture
from harness.registry import import_notes, registry, why_unavailable
from harness.results import Row, cell_key

if TYPE_CHECKING:
    from harness.paper.experiments import Experiment

__all__ = ["availability", "datasets_table", "experiments_table", "methods_table", "notes", "recipes_table"]


def methods_table() -> pl.DataFrame:
    """One line a method, and one for every module of methods that could not be read."""
    known = registry()
    rows = [
        (
            m.name,
            m.objective,
            m.linear,
            ", ".join(m.architectures),
            why_unavailable(m) or "available",
            "; ".join(filter(None, [m.summary, m.limits])),
            m.paper,
        )
        for m in known.methods.values()
    ]
    rows += [
        (f"({module})", "", "", "", f"not readable: {reason}", "", "")
        for module, reason in known.broken_modules.items()
    ]
    return pl.DataFrame(
        rows, schema=["method", "objective", "linear", "architectures", "status", "what it is", "paper"], orient="row"
    )


def notes() -> list[str]:
    """Say what modules of methods and their libraries did to the process at import, a line each; it was undone."""
    known = registry()
    said = [note for m in known.methods.values() for note in (*known.notes.get(m.name, []), *import_notes(m))]
    return list(dict.fromkeys(said))


def datasets_table(reasons: Mapping[str, str | None]) -> pl.DataFrame:
    """One line a dataset."""
    rows = [(name, reason or "available") for name, reason in reasons.items()]
    return pl.DataFrame(rows, schema=["dataset", "status"], orient="row")


def experiments_table(experiments: Iterable[Experiment]) -> pl.DataFrame:
    """One line an experiment."""
    rows = [(experiment.name, experiment.title, experiment.shortened) for experiment in experiments]
    return pl.DataFrame(rows, schema=["experiment", "what it answers", "quick profile"], orient="row")


def recipes_table(recipes: Mapping[str, str]) -> pl.DataFrame:
    """Every training configuration by name, and what it changes."""
    return pl.DataFrame(list(recipes.items()), schema=["recipe", "what it is"], orient="row")


def availability(device: str, seed: int) -> list[Row]:
    """Return one row a method in the result schema: metric ``available``, with the reason where it is not."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    rows = []
    for method in registry().methods.values():
        reason = why_unavailable(method)
        environment = capture(device, method.requires)
        identity = {"kind": "availability", "method": method.name, "versions": environment.versions}
        rows.append(
            Row(
                cell=cell_key(identity),
                experiment="list",
                profile="custom",
                recipe="none",
                method=method.name,
                objective=method.objective,
                linear=method.linear,
                dataset="",
                architecture=",".join(method.architectures),
                shape="",
                D=0,
                L=0,
                B=0,
                parameters=None,
                seed=seed,
                dtype="",
                device=device,
                threads=environment.threads,
                metric="available",
                value=None if reason else 1.0,
                unit="1",
                ci_low=None,
                ci_high=None,
                n=None,
                status="unavailable" if reason else "ok",
                reason=reason,
                config=json.dumps(identity, sort_keys=True),
                versions=json.dumps(environment.versions, sort_keys=True),
                cpu=environment.cpu,
                gpu=environment.gpu,
                commit=environment.commit,
                started_at=started_at,
                limits=method.limits,
            )
        )
    return rows
