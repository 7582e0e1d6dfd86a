"""The command that writes the page: report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer()


@app.command()
def report(
    results_dir: Annotated[Path, typer.Option(envvar="HARNESS_RESULTS_DIR", help="Where finished cells lie.")] = Path(
        "results/local"
    ),
    asv_dir: Annotated[
        Path | None, typer.Option(help="Results of `asv run`; asv/ in the results folder if not given.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; report.html in the results folder if not given.")
    ] = None,
) -> None:
    """Write one self-contained HTML page of all results: verdicts, figures, tables, and where each number is from.

    Example: harness report --results-dir results/reference
    """
    from harness.report import write
    from harness.results import Store

    path = output or results_dir / "report.html"
    for line in write(Store(results_dir), asv_dir or results_dir / "asv", path):
        print(line, file=sys.stderr)
    print(path)
