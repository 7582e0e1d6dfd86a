"""`harness results`: to look at a store of results, to check it, and to bring several together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import OUTPUT, RESULTS, AsJson, ResultsDir
from harness.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Look at results, check them, and bring those of several runs together.")


def _filter(of: str) -> typer.models.OptionInfo:
    return typer.Option(metavar="NAME,...", help=f"Rows of these {of} alone.", rich_help_panel="Which rows")


@app.command()
def show(
    experiment: Annotated[str | None, _filter("experiments")] = None,
    method: Annotated[str | None, _filter("methods")] = None,
    dataset: Annotated[str | None, _filter("datasets")] = None,
    metric: Annotated[str | None, _filter("metrics")] = None,
    status: Annotated[str | None, _filter("statuses: ok, diverged, failed, unavailable")] = None,
    results_dir: ResultsDir = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Show every row as it is kept.

    Examples:
      harness results show --metric nll
      harness results show --status failed,unavailable
      harness results show --experiment digits-fc --json
    """
    import polars as pl

    from harness.cli import screen
    from harness.results import SCHEMA, Row, Store

    store = Store(_existing(results_dir))
    rows, notes = store.frame()
    for line in notes:
        screen.say(line)
    chosen = {"experiment": experiment, "method": method, "dataset": dataset, "metric": metric, "status": status}
    for column, names in chosen.items():
        if names is not None:
            rows = rows.filter(pl.col(column).is_in(names.split(",")))
    if as_json:
        screen.print_json(Row(**row) for row in rows.select(*SCHEMA).iter_rows(named=True))
    else:
        shown = ["method", "dataset", "D", "L", "seed", "metric", "value", "ci_low", "ci_high", "unit", "n", "status"]
        title = f"{len(rows)} rows of {rows['cell'].n_unique()} cells in {results_dir}"
        screen.show_table(title, rows.select("experiment", "profile", *shown, "reason", "cell"))


@app.command()
def verify(results_dir: ResultsDir = RESULTS) -> None:
    """Check every cell: its file whole, its rows in their place, its name that of their configuration.

    What is not is named, and moved to the folder's damaged/ where that can be written; the next run measures it again.
    The exit status is 1 then.

    Examples:
      harness results verify --results-dir results/reference
    """
    from harness.cli import screen
    from harness.results import Store

    store = Store(_existing(results_dir))
    good = store.verify()
    for line in store.notes:
        screen.say(line)
    print(f"{good} cells are as they were written, {len(store.notes)} files are not")
    if store.notes:
        sys.exit(1)


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Results folders, which are only read.")],
    into: Annotated[Path, typer.Option(metavar="FOLDER", help="Results folder to fill.", rich_help_panel=OUTPUT)],
) -> None:
    """Bring the cells of several folders into one, of other machines or of an older version.

    A cell that is in both stays as it is, unless it is finished in the other alone; if their results differ although
    all that determines them is the same, that is said. Files are rewritten in today's version of the schema. The exit
    status is 1 if a file had to be left out.

    Examples:
      harness results merge from-the-cluster results/local --into results/all
    """
    from harness.cli import screen
    from harness.results import Store

    stores = [Store(_existing(folder)) for folder in folders]
    target = Store(into)
    target.prepare()
    left_out = 0
    for store in stores:
        merged = target.merge(store)
        left_out += merged.left_out
        for line in (*merged.notes, *store.notes):
            screen.say(line)
        print(f"{store.folder}: {merged.taken} cells taken, {merged.known} were there, {merged.left_out} left out")
    for line in target.notes:
        screen.say(line)
    if left_out:
        sys.exit(1)


def _existing(folder: Path) -> Path:
    if not (folder / "cells").is_dir():
        raise InputError(f"{folder} holds no results: it has no folder cells/; give a folder that a run has written")
    return folder
