"""`harness tables`, `harness figures` and `harness report`: the results for people to read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

from harness.cli.options import OUTPUT, RESULTS, AsJson, Output, Quiet, ResultsDir, Write, command, destination, option
from harness.errors import InputError, separated, unknown


def tables(
    asv_dir: Annotated[
        Path, option(OUTPUT, "FOLDER", "Results of `asv run`, which are shown with the others.")
    ] = RESULTS / "asv",
    across: Annotated[
        list[str] | None,
        option(
            OUTPUT,
            "SETTING",
            "Setting across which timings are compared: commit, cpu, gpu, threads, device, dtype or B; the option may "
            "be given more than once.",
        ),
    ] = None,
    results_dir: ResultsDir = RESULTS,
    write: Write = False,
    output: Output = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show every table of the results, and with --write or --output write them into tables/ of that folder.

    A terminal shows the main table of each experiment; a pipe or a file gets every table, in Markdown.

    Examples:
      harness tables
      harness tables | less
      harness tables --across threads
      harness tables --results-dir results/reference --json
    """
    from harness.cli import screen
    from harness.report import publish
    from harness.results import SCHEMA, Store

    folder = destination(results_dir, write, output)
    rows, damaged = Store(results_dir).frame()
    rows, notes = publish.with_asv(rows, asv_dir)
    screen.say(*damaged, *notes)
    if rows.is_empty():
        first = command(["reproduce"], results_dir)
        raise InputError(f"no results in {results_dir} or {asv_dir} yet: run `{first}` or `asv run` first")
    if as_json:
        for row in rows.select(*SCHEMA).iter_rows(named=True):
            print(json.dumps(row))
        if folder is None:
            return
    pages = list(publish.pages(rows, across or ()))
    if not as_json:
        words = ["tables", *(["--asv-dir", str(asv_dir)] if asv_dir != RESULTS / "asv" else [])]
        for setting in across or ():
            words += ["--across", setting]
        screen.show_pages(pages, f"by: {command(words, results_dir)} | less")
    if folder is not None:
        files = publish.write_tables(pages, folder) + publish.write_leaderboard(rows, folder)
        if not quiet:
            screen.say(f"written: {len(files)} files in {folder / 'tables'}")


def figures(
    results_dir: ResultsDir = RESULTS, write: Write = False, output: Output = None, quiet: Quiet = False
) -> None:
    """Draw every figure of the results, into figures/ of the folder that --write or --output names.

    Examples:
      harness figures --write
      harness figures --results-dir results/reference --output drawn
    """
    from harness.cli import screen
    from harness.report import publish
    from harness.results import Store

    folder = destination(results_dir, write, output)
    if folder is None:
        raise InputError(
            "figures have to be written somewhere; give --write for the results folder, or --output FOLDER"
        )
    store = Store(results_dir)
    rows, damaged = store.frame()
    screen.say(*damaged)
    if rows.is_empty():
        raise InputError(f"no results in {results_dir} yet: run `{command(['reproduce'], results_dir)}` first")
    files = publish.write_figures(rows, store, folder)
    if not quiet:
        screen.say(f"written: {len(files)} files in {folder / 'figures'}")


def leaderboard(
    family: Annotated[
        str | None, option(OUTPUT, "NAME,...", "Show only methods of these families, such as 'score matching'.")
    ] = None,
    dataset: Annotated[str | None, option(OUTPUT, "NAME,...", "Show, and rank over, only these datasets.")] = None,
    results_dir: ResultsDir = RESULTS,
    as_json: Annotated[
        bool, option(OUTPUT, None, "Print one line of JSON for each dataset and method.", "--json")
    ] = False,
) -> None:
    """Show who reaches the lowest test NLL: every method's best training on every dataset, mean ranks and profiles.

    The recipe of a training is chosen by validation NLL. The lines below the tables say how ranks come about. In JSON
    a number that is infinite, such as the seconds of a training that never came within 1 %, is null.

    Examples:
      harness leaderboard --results-dir results/reference
      harness leaderboard --family "score matching,exact dense" --dataset digits
      harness leaderboard --json
    """
    import polars as pl

    from harness.cli import screen
    from harness.report.tables import leaderboard as board
    from harness.results.store import existing as existing_results

    rows, damaged = existing_results(results_dir).frame()
    screen.say(*damaged)
    lines = board.entries(rows)
    if lines.is_empty():
        raise InputError(
            f"no training of a full recipe or of the quick profile in {results_dir} yet: run "
            f"`{command(['train'], results_dir)}`"
        )
    for column, names in (("dataset", dataset), ("family", family)):
        if names is not None:
            known = lines[column].unique().to_list()
            wanted = separated(names)
            for name in wanted or [names]:
                if name not in known:
                    raise unknown(column, name, known)
            lines = lines.filter(pl.col(column).is_in(wanted))
    if as_json:
        for line in lines.iter_rows(named=True):
            print(json.dumps({name: None if value in (math.inf, -math.inf) else value for name, value in line.items()}))
        return
    for title, frame in board.tables(lines):
        screen.show_table(title, frame)
    print("", *board.NOTES, sep="\n")


def report(
    results_dir: ResultsDir = RESULTS,
    asv_dir: Annotated[
        Path | None, option(OUTPUT, "FOLDER", "Results of `asv run`; asv/ in the results folder if not given.")
    ] = None,
    output: Annotated[
        Path | None, option(OUTPUT, "FILE", f"Page to write; {RESULTS}/report.html if not given.")
    ] = None,
) -> None:
    """Write one self-contained HTML page of all results: verdicts, figures, tables, and where each number is from.

    The path of the page is printed. For another results folder than the default one, --output is needed.

    Examples:
      harness report
      harness report --results-dir results/reference --output report.html
    """
    from harness.cli import screen
    from harness.report.page import write
    from harness.results import Store

    if output is None and results_dir != RESULTS:
        raise InputError(f"a report on {results_dir} is not written into that folder unasked; give --output FILE")
    path = output or RESULTS / "report.html"
    screen.say(*write(Store(results_dir), asv_dir or results_dir / "asv", path))
    print(path)
