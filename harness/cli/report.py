"""`harness report`: the results as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from harness.cli.options import OUTPUT, RESULTS, ResultsDir, option
from harness.errors import InputError


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
    for line in write(Store(results_dir), asv_dir or results_dir / "asv", path):
        screen.say(line)
    print(path)
