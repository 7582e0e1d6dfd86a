"""`harness figures`: everything that is there, as pictures."""

from __future__ import annotations

from harness.cli.options import RESULTS, Quiet, ResultsDir
from harness.errors import InputError


def figures(results_dir: ResultsDir = RESULTS, quiet: Quiet = False) -> None:
    """Draw every figure of the results that are there, as SVG.

    Examples:
      harness figures
      harness figures --results-dir results/reference
    """
    from harness.cli import screen
    from harness.report import publish
    from harness.results import Store

    store = Store(results_dir)
    rows, damaged = store.frame()
    for line in damaged:
        screen.say(line)
    if rows.is_empty():
        raise InputError(f"no results in {results_dir} yet: run `harness reproduce` first")
    files = publish.write_figures(rows, store, results_dir)
    if not quiet:
        screen.say(f"written: {len(files)} files in {results_dir / 'figures'}")
