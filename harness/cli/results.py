"""`harness results`: shows the rows of a results folder, checks its files, merges several folders, and packs one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import OUTPUT, RESULTS, AsJson, ResultsDir, option
from harness.errors import printable, separated, unknown

if TYPE_CHECKING:
    from harness.results import Store

app = typer.Typer(no_args_is_help=True, help="Show, check, merge and pack the results that runs have written.")


def _filter(plural: str) -> Any:
    return option("Which rows", "NAME,...", f"Show only rows of these {plural}.")


@app.command()
def show(
    experiment: Annotated[str | None, _filter("experiments")] = None,
    profile: Annotated[str | None, _filter("profiles: quick, paper, custom")] = None,
    method: Annotated[str | None, _filter("methods")] = None,
    dataset: Annotated[str | None, _filter("datasets")] = None,
    metric: Annotated[str | None, _filter("metrics")] = None,
    status: Annotated[str | None, _filter("statuses: ok, diverged, failed, unavailable")] = None,
    cell: Annotated[str | None, _filter("cells")] = None,
    results_dir: ResultsDir = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Show the rows of a results folder, all of them or those that the options name, and how each came about.

    Examples:
      harness results show --metric nll
      harness results show --status failed,unavailable
      harness results show --experiment digits-fc --json
    """
    import polars as pl

    from harness.cli import screen
    from harness.results import SCHEMA, Row
    from harness.results.schema import STATUSES

    store = _store(results_dir)
    rows, notes = store.frame()
    screen.say(*notes)
    chosen = {"experiment": experiment, "profile": profile, "method": method, "dataset": dataset}
    chosen |= {"metric": metric, "status": status, "cell": cell}
    kept = rows
    for column, names in chosen.items():
        if names is not None:
            # Of a user's own file the name alone will do, without the digits of its content.
            bare = rows[column].str.replace("@[0-9a-f]{8}$", "")
            known = STATUSES if column == "status" else {*rows[column], *bare}
            wanted = [names] if names in known else separated(names) or [names]
            for name in wanted:
                if name not in known:
                    raise unknown(f"{column} in these rows", name, known)
            kept = kept.filter(
                (pl.col(column).is_in(wanted)) | kept[column].str.replace("@[0-9a-f]{8}$", "").is_in(wanted)
            )
    rows = kept
    if as_json:
        screen.print_json(Row(**row) for row in rows.select(*SCHEMA).iter_rows(named=True))
    else:
        shown = ["method", "recipe", "dataset", "D", "L", "seed", "metric", "value", "ci_low", "ci_high", "unit", "n"]
        title = f"{len(rows)} rows of {rows['cell'].n_unique()} cells in {results_dir}"
        origin = ["cell", "commit", "cpu", "gpu", "threads", "started_at"]
        screen.show_table(title, rows.select("experiment", "profile", *shown, "status", "reason", *origin))


@app.command()
def verify(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER...]", help="Results folders of other people, which are only read."),
    ] = None,
    results_dir: ResultsDir = RESULTS,
    as_json: Annotated[
        bool, option(OUTPUT, None, "Print what is wrong in the folders named, one line of JSON each.", "--json")
    ] = False,
) -> None:
    """Check every file of a results folder for damage, and every cell for having the name of its configuration.

    Without a FOLDER the folder of --results-dir is checked. A damaged file of rows is named and moved to the folder's
    damaged/, and the next run measures its cells again. Damaged arrays and damaged cells of a pack are named, and a run
    with --fresh replaces them.

    A FOLDER, such as that of a pull request, is only read, and its rows are checked too: the commit, the versions, the
    intervals, the reasons, whether an adapter declares the method, and the number of seeds. Each finding is one line,
    an error or a note. The exit status is 1 if anything is wrong; a note is not.

    Examples:
      harness results verify --results-dir results/reference
      harness results verify results/community/my-flow
    """
    if folders:
        _verify_foreign(folders, as_json)
        return
    store = _store(results_dir)
    good = store.verify()
    _end(store, f"{good} cells are as they were written, {len(store.notes)} files are not")


@app.command()
def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Results folders to merge. They are only read.")
    ],
    into: Annotated[Path, option(OUTPUT, "FOLDER", "Results folder to fill.")],
) -> None:
    """Copy the cells of several results folders, from other machines or older versions of this program, into one.

    A cell that the folder has already stays as it is, unless only the other one is finished; a line says so if the two
    have different results. Files are written in today's version of the schema. The exit status is 1 if a file could not
    be read and was left out.

    Examples:
      harness results merge from-the-cluster results/local --into results/all
    """
    from harness.cli import screen
    from harness.results import Store

    stores = [_store(folder) for folder in folders]
    target = Store(into, "--into")
    target.prepare()
    left_out = 0
    for store in stores:
        merged = target.merge(store)
        left_out += merged.left_out
        screen.say(*merged.notes, *store.notes)
        print(f"{store.folder}: {merged.taken} cells taken, {merged.known} were there, {merged.left_out} left out")
    screen.say(*target.notes)
    if left_out:
        sys.exit(1)


@app.command()
def pack(results_dir: ResultsDir = RESULTS) -> None:
    """Put the cells of each experiment into one file, and their arrays into a second one, so that few files are kept.

    Every command reads packed cells as it reads single ones, and a cell that is measured again gets a file of its own
    until the next packing.

    Examples:
      harness results pack --results-dir results/reference
    """
    store = _store(results_dir)
    _end(store, f"{store.pack()} cells were packed")


@app.command()
def render(
    page: Annotated[
        list[Path] | None,
        option(OUTPUT, "TEMPLATE", "Pages of prose to fill in from the rows; each is written beside its template."),
    ] = None,
    results_dir: ResultsDir = RESULTS,
) -> None:
    """Write every table and figure of a results folder again, into its tables/ and figures/.

    Equal rows give equal files. A table or figure that the rows no longer give is named and removed, unless some
    cells could not be read.

    Examples:
      harness results render --results-dir results/reference --page results/README.md.j2 --page README.md.j2
    """
    from harness.cli import screen
    from harness.report import numbers, publish

    store = _store(results_dir)
    files = publish.render(store, results_dir)
    if not store.notes:  # what could not be read may have given some of the others
        removed = publish.remove_others(results_dir, files)
        screen.say(*(f"{path}: removed, because the rows do not give it" for path in removed))
    if page:
        rows = store.frame()[0]
        files += [numbers.write_page(template, rows) for template in page]
    _end(store, f"{len(files)} files were written")


def _verify_foreign(folders: list[Path], as_json: bool) -> None:
    from harness.cli import screen
    from harness.results.verification import verify

    findings = [finding for folder in folders for finding in verify(_store(folder).folder)]
    for finding in findings:
        line = json.dumps(finding._asdict()) if as_json else f"{finding.level}: {finding.place}: {finding.text}"
        print(printable(line))
    errors = sum(finding.level == "error" for finding in findings)
    screen.say(f"{errors} errors and {len(findings) - errors} notes in {len(folders)} folders")
    if errors:
        sys.exit(1)


def _store(folder: Path) -> Store:
    from harness.results.store import existing

    return existing(folder)


def _end(store: Store, summary: str) -> None:
    """Print what was wrong with the files of a store, and a summary; the exit status is 1 if anything was wrong."""
    from harness.cli import screen

    screen.say(*store.notes)
    print(summary)
    if store.notes:
        sys.exit(1)
