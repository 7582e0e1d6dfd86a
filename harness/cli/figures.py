"""`harness figures`: the results as pictures."""

from __future__ import annotations

from harness.cli.options import RESULTS, Output, Quiet, ResultsDir, Write, destination
from harness.errors import InputError


def figures(
    results_dir: ResultsDir = RESULTS, write: Write = False, output: Output = None, quiet: Quiet = False
) -> None:
    """Draw every figure of the results, into the folder figures/ of the folder that --write or --output names.

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
    for line in damaged:
        screen.say(line)
    if rows.is_empty():
        raise InputError(f"no results in {results_dir} yet: run `harness reproduce` first")
    files = publish.write_figures(rows, store, folder)
    if not quiet:
        screen.say(f"written: {len(files)} files in {folder / 'figures'}")
