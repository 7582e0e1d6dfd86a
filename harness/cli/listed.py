"""What `harness list` shows: one table, or one row of the result schema, for everything that has a name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import polars as pl

from harness import datasets
from harness.methods import Method
from harness.methods.registry import import_notes, registry, why_missing, why_unavailable
from harness.paper.experiments import EXPERIMENTS
from harness.paper.recipes import RECIPES
from harness.results import Row, cell_key
from harness.results.provenance import glance


def methods_table(imports: bool = False) -> pl.DataFrame:
    """One line a method, and one for every module of methods that could not be read.

    Args:
        imports: Whether libraries are imported, and not only looked for.
    """
    known = registry()
    lines = [
        (
            m.name,
            m.objective,
            m.linear,
            ", ".join(m.architectures),
            _reason(m, imports) or "available",
            "; ".join(filter(None, [m.summary, m.limits])),
            m.paper,
        )
        for m in known.methods.values()
    ]
    lines += [
        (f"({module})", "", "", "", f"not readable: {reason}", "", "")
        for module, reason in known.broken_modules.items()
    ]
    return pl.DataFrame(
        lines, schema=["method", "objective", "linear", "architectures", "status", "what it is", "paper"], orient="row"
    )


def shortened(methods: pl.DataFrame) -> pl.DataFrame:
    """Return what fits a terminal of 80 columns: of a method that is unavailable, why, in place of what it is."""
    status = pl.col("status")
    what = pl.when(status == "available").then("what it is").otherwise(status)
    return methods.select("method", "architectures", what.alias("what it is"))


def notes(imports: bool = False) -> list[str]:
    """Say what modules of methods, and their libraries if imported, did to the process, a line each; it was undone."""
    known = registry()
    said = [note for found in known.notes.values() for note in found]
    if imports:
        said += [note for method in known.methods.values() for note in import_notes(method)]
    return list(dict.fromkeys(said))


def datasets_table(data_dir: Path | None = None) -> pl.DataFrame:
    """One line a dataset; data_dir is the folder of MNIST and CIFAR-10."""
    lines = [(name, datasets.why_unavailable(name, data_dir) or "available") for name in datasets.names()]
    return pl.DataFrame(lines, schema=["dataset", "status"], orient="row")


def experiments_table() -> pl.DataFrame:
    """One line an experiment."""
    lines = [(experiment.name, experiment.title, experiment.shortened) for experiment in EXPERIMENTS]
    return pl.DataFrame(lines, schema=["experiment", "what it answers", "quick profile"], orient="row")


def recipes_table() -> pl.DataFrame:
    """Every training configuration by name, and what it changes."""
    return pl.DataFrame(list(RECIPES.items()), schema=["recipe", "what it is"], orient="row")


def rows(device: str, threads: int | None, seed: int, data_dir: Path | None = None, imports: bool = False) -> list[Row]:
    """Return everything in the result schema: metric ``available``, with the reason where something is not.

    A row names one method, dataset, recipe or experiment in the column of that name; ``config`` says which, and what
    it is. Nothing is run, so that threads are those that were asked for, or 0.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    found = []
    for entry in _entries(data_dir, imports):
        environment = glance(entry.method.requires if entry.method else ())
        identity = {"kind": entry.kind, "name": entry.name, "summary": entry.summary, "versions": environment.versions}
        found.append(
            Row(
                cell=cell_key(identity),
                experiment=entry.name if entry.kind == "experiment" else "list",
                profile="custom",
                recipe=entry.name if entry.kind == "recipe" else "none",
                method=entry.name if entry.kind == "method" else "none",
                objective=entry.method.objective if entry.method else "none",
                linear=entry.method.linear if entry.method else "none",
                dataset=entry.name if entry.kind == "dataset" else "",
                architecture=",".join(entry.method.architectures) if entry.method else "",
                shape="",
                D=0,
                L=0,
                B=0,
                parameters=None,
                seed=seed,
                dtype="",
                device=device,
                threads=threads or 0,
                metric="available",
                value=None if entry.reason else 1.0,
                unit="1",
                ci_low=None,
                ci_high=None,
                n=None,
                status="unavailable" if entry.reason else "ok",
                reason=entry.reason,
                config=json.dumps(identity, sort_keys=True),
                versions=json.dumps(environment.versions, sort_keys=True),
                cpu=environment.cpu,
                gpu=environment.gpu,
                commit=environment.commit,
                started_at=started_at,
                limits=entry.method.limits if entry.method else None,
            )
        )
    return found


@dataclass(frozen=True)
class _Entry:
    kind: Literal["method", "dataset", "recipe", "experiment"]
    name: str
    summary: str = ""
    reason: str | None = None
    method: Method | None = None


def _entries(data_dir: Path | None, imports: bool) -> Iterator[_Entry]:
    for method in registry().methods.values():
        yield _Entry("method", method.name, method.summary, _reason(method, imports), method)
    for module, reason in registry().broken_modules.items():
        yield _Entry("method", f"({module})", reason=f"not readable: {reason}")
    for name in datasets.names():
        yield _Entry("dataset", name, reason=datasets.why_unavailable(name, data_dir))
    for name, summary in RECIPES.items():
        yield _Entry("recipe", name, summary)
    for experiment in EXPERIMENTS:
        yield _Entry("experiment", experiment.name, experiment.title)


def _reason(method: Method, imports: bool) -> str | None:
    return why_unavailable(method) if imports else why_missing(method)
