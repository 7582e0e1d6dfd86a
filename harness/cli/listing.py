"""`harness list`: what there is to measure, as tables or as rows of the result schema."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import AsJson, DataDir, existing

if TYPE_CHECKING:
    import polars as pl

    from harness.methods import Method
    from harness.results import Row


def list_names(
    imports: Annotated[
        bool,
        typer.Option(
            "--imports", help="Import the library of every method, to find out which one breaks or changes the process."
        ),
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the methods, datasets, recipes and experiments, and why one is unavailable.

    Libraries are looked for, and imported only with --imports.

    Examples:
      harness list
      harness list --imports
      harness list --json | jq 'select(.status == "unavailable")'
    """
    import polars as pl

    from harness import datasets
    from harness.cli import screen
    from harness.paper.experiments import EXPERIMENTS
    from harness.paper.recipes import RECIPES

    folder = existing(data_dir)
    if as_json:
        screen.print_json(rows(folder, imports))
        return
    methods = methods_table(imports)
    experiments = pl.DataFrame(
        [(experiment.name, experiment.title, experiment.plan.shortened()) for experiment in EXPERIMENTS],
        schema=["experiment", "what it answers", "quick profile"],
        orient="row",
    )
    if screen.in_terminal():  # what fits 80 columns: of a method that is unavailable the reason, not what it is
        status = pl.col("status")
        what = pl.when(status == "available").then("what it is").otherwise(status)
        methods = methods.select("method", "architectures", what.alias("what it is"))
        experiments = experiments.drop("quick profile")
    screen.show_table("Methods", methods)
    for note in notes(imports):
        print(f"\n{note}", end="")
    print()
    statuses = [(name, datasets.why_unavailable(name, folder) or "available") for name in datasets.names()]
    screen.show_table("Datasets", pl.DataFrame(statuses, schema=["dataset", "status"], orient="row"))
    recipes = pl.DataFrame(list(RECIPES.items()), schema=["recipe", "what it is"], orient="row")
    screen.show_table("Recipes (harness train --recipe NAME)", recipes)
    screen.show_table("Experiments (harness reproduce NAME)", experiments)


def methods_table(imports: bool = False) -> pl.DataFrame:
    """Return a table of the methods and of unreadable modules; libraries are imported if asked, and else looked for."""
    import polars as pl

    from harness.methods.registry import registry

    names = ["method", "objective", "linear", "architectures", "status", "what it is", "paper"]
    lines = []
    for method in registry().methods.values():
        status = _reason(method, imports) or "available"
        what = "; ".join(filter(None, [method.summary, method.limits]))
        architectures = ", ".join(method.architectures)
        lines.append((method.name, method.objective, method.linear, architectures, status, what, method.paper))
    broken = registry().broken_modules.items()
    lines += [(f"({module})", "", "", "", f"not readable: {reason}", "", "") for module, reason in broken]
    return pl.DataFrame(lines, schema=names, orient="row")


def notes(imports: bool = False) -> list[str]:
    """Return a line for each change of the process that importing modules, or libraries too, made; all were undone."""
    from harness.methods.registry import import_notes, registry

    lines = list(registry().notes)
    if imports:
        lines += [note for method in registry().methods.values() for note in import_notes(method)]
    return list(dict.fromkeys(lines))


def rows(data_dir: Path | None = None, imports: bool = False) -> list[Row]:
    """Return all that has a name as rows with the metric ``available``, and the reason where something is not."""
    from harness import datasets
    from harness.methods.registry import registry
    from harness.paper.experiments import EXPERIMENTS
    from harness.paper.recipes import RECIPES

    broken = registry().broken_modules.items()
    return [
        *(_row("method", m.name, m.summary, _reason(m, imports), m) for m in registry().methods.values()),
        *(_row("method", f"({module})", reason=f"not readable: {reason}") for module, reason in broken),
        *(_row("dataset", name, reason=datasets.why_unavailable(name, data_dir)) for name in datasets.names()),
        *(_row("recipe", name, summary) for name, summary in RECIPES.items()),
        *(_row("experiment", experiment.name, experiment.title) for experiment in EXPERIMENTS),
    ]


def _row(kind: str, name: str, summary: str = "", reason: str | None = None, method: Method | None = None) -> Row:
    """Return the row of one thing: its name is in the column of its kind, and ``config`` says which kind that is."""
    from harness.results import Row, cell_key
    from harness.results.provenance import glance

    environment = glance(method.requires if method else ())
    identity = {"kind": kind, "name": name, "summary": summary, "versions": environment.versions}
    unmeasured: dict[str, Any] = {
        **dict.fromkeys(("shape", "dtype", "device"), ""),
        **dict.fromkeys(("D", "L", "B", "seed", "threads"), 0),
    }
    return Row(
        **unmeasured,
        cell=cell_key(identity),
        experiment=name if kind == "experiment" else "list",
        profile="custom",
        recipe=name if kind == "recipe" else "none",
        method=name if kind == "method" else "none",
        objective=method.objective if method else "none",
        linear=method.linear if method else "none",
        dataset=name if kind == "dataset" else "",
        architecture=",".join(method.architectures) if method else "",
        metric="available",
        value=None if reason else 1.0,
        unit="1",
        status="unavailable" if reason else "ok",
        reason=reason,
        config=json.dumps(identity, sort_keys=True),
        versions=json.dumps(environment.versions, sort_keys=True),
        cpu=environment.cpu,
        gpu=environment.gpu,
        commit=environment.commit,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        limits=method.limits if method else None,
    )


def _reason(method: Method, imports: bool) -> str | None:
    from harness.methods.registry import why_missing, why_unavailable

    return why_unavailable(method) if imports else why_missing(method)
