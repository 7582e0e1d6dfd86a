"""`harness report`: everything that is there, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import OUTPUT, RESULTS, ResultsDir


def report(
    results_dir: ResultsDir = RESULTS,
    asv_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Results of `asv run`; asv/ in the results folder if not given.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The page to write; report.html in the results folder if not given.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:
    """Write one self-contained HTML page of all results: verdicts, figures, tables, and where each number is from.

    Prints the path of the page.

    Examples:
      harness report
      harness report --results-dir results/reference --output report.html
    """
    from harness.cli import screen
    from harness.report.page import write
    from harness.results import Store

    path = output or results_dir / "report.html"
    for line in write(Store(results_dir), asv_dir or results_dir / "asv", path):
        screen.say(line)
    print(path)
