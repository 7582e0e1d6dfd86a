"""`harness demo`: a first minute, which times five ways to train and scores them on embedded data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated

from harness.cli import options
from harness.cli.options import MACHINE, RESULTS, option

if TYPE_CHECKING:
    import polars as pl

    from harness.cells import Cell
    from harness.results import Row, Store

METHODS = {
    "ebflow-ml": "exact maximum likelihood",
    "ebflow-aml": "amortised maximum likelihood",
    "relative-gradient-ml": "relative gradient",
    "ebflow-dsm": "denoising score matching",
    "gaussian": "one Gaussian in closed form",
}
"""What the demo compares."""
_DIMENSIONS = (64, 256, 784)
_REPEATS, _EPOCHS, _DRAWS = 7, 40, 2
_STEP, _NLL = f"ms a step, D = {_DIMENSIONS[-1]}", "test NLL on digits, nats"
_WRONG = "what went wrong"


def demo(
    threads: Annotated[int, option(MACHINE, "N", "Number of torch threads.")] = 1,
    seed: options.Seed = 0,
    results_dir: options.ResultsDir = RESULTS,
    fresh: options.Fresh = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare five ways to train one flow, in under a minute: the time of a step up to D = 784, the NLL on digits.

    One thread is enough for problems of this size, and waits for no other on a machine that has more to do.

    Examples:
      harness demo
      harness demo --fresh --results-dir tried
    """
    from harness.cli.running import run_and_show
    from harness.methods.process_settings import prepare
    from harness.results import Store

    prepare("cpu", threads)
    run_and_show(cells(seed), Store(results_dir), fresh=fresh, as_json=as_json, quiet=quiet, end=show)


def cells(seed: int) -> list[Cell]:
    """Return the cells: a timing for every D, and a training on the digits for every method."""
    from harness.cells import Origin, RuntimeCell
    from harness.methods import Problem
    from harness.methods.registry import registry
    from harness.paper.plans import Context, configured_cell, overridden

    origin = Origin(options.words("demo", seed=seed))
    competitors = [registry().find(name) for name in METHODS]
    timed = tuple(method.name for method in competitors if method.iterative)
    made: list[Cell] = []
    for dimension in _DIMENSIONS:
        problem = Problem(shape=(dimension,), seed=seed)
        made.append(
            RuntimeCell(
                experiment="demo", profile="custom", methods=timed, problem=problem, repeats=_REPEATS, origin=origin
            )
        )
    context = Context("custom")
    for method in competitors:
        cell = configured_cell("demo", context, method, "digits", "fc", recipe="tuned", seed=seed, draws=_DRAWS)
        cell = replace(cell, origin=replace(cell.origin, argv=origin.argv))
        made.append(overridden(cell, {"epochs": _EPOCHS}))
    return made


def show(rows: list[Row], store: Store, quiet: bool) -> None:
    """Print a table of rows of the demo and what it says, and draw the time of a step against D."""
    from harness.cli import screen
    from harness.errors import printable
    from harness.report import publish
    from harness.report.figures.runtime import runtime_figures
    from harness.report.tables.columns import is_noisy
    from harness.results import to_frame
    from harness.results.derived import derived

    frame = derived(to_frame(rows))
    compared = table(frame)
    failed = compared[_WRONG].count() > 0
    threads = ", ".join(map(str, frame["threads"].unique().sort()))
    title = f"Five ways to train one network, threads = {threads}"
    screen.show_table(title, compared if failed else compared.drop(_WRONG))
    print()
    for sentence in sentences(compared):
        print(sentence)
    if not frame.filter(is_noisy()).is_empty():
        print("The machine was busy: on an idle one the times are shorter, and their ratios may be others.")
    for path in publish.write_drawings(islice(runtime_figures(frame), 1), store.folder):
        print(f"picture: {printable(str(path))}")


def table(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a line a method: milliseconds of a step at the largest D, test NLL on the digits, and what went wrong."""
    import polars as pl

    steps = rows.filter(metric="seconds_per_iteration", D=_DIMENSIONS[-1])
    scores = rows.filter(metric="nll")
    lines = []
    for method, described in METHODS.items():
        milliseconds = [1e3 * value for value in steps.filter(method=method)["value"].drop_nulls()]
        nll = scores.filter(method=method)["value"].to_list()
        wrong = rows.filter(pl.col("status") != "ok", method=method)["reason"].to_list()
        lines.append((method, described, *(values[0] if values else None for values in (milliseconds, nll, wrong))))
    return pl.DataFrame(lines, schema=["method", "what it is", _STEP, _NLL, _WRONG], orient="row")


def sentences(compared: pl.DataFrame) -> Iterator[str]:
    """Say in two sentences what the table says; a method without a number is not spoken of."""
    names = dict(compared.select("method", "what it is").rows())
    steps, scores = (
        {names[method]: value for method, value in compared.select("method", column).drop_nulls().rows()}
        for column in (_STEP, _NLL)
    )
    if (exact := steps.pop(METHODS["ebflow-ml"], None)) is not None:
        others = [f"by {name} {_in_comparison(exact, value)}" for name, value in steps.items()]
        yield f"At D = {_DIMENSIONS[-1]} a step takes {exact:.3g} ms by exact maximum likelihood, {', '.join(others)}."
    ranked = [f"{value:.1f} by {name}" for name, value in sorted(scores.items(), key=lambda entry: entry[1])]
    if ranked:
        yield f"The test NLL after {_EPOCHS} epochs on the digits, lowest first, is {'; '.join(ranked)}."


def _in_comparison(exact: float, value: float) -> str:
    return f"{exact / value:.1f} times less" if value <= exact else f"{value / exact:.1f} times as long"
