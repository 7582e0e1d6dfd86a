"""Seconds an iteration: how much faster score matching is, and how the time grows with D and L."""

from __future__ import annotations

from typing import Any

import polars as pl

from harness.methods import SCORE_MATCHING
from harness.paper import published
from harness.paper.recipes import PUBLISHED_LAYERS
from harness.report.claims.evidence import Evidence, Outcome, keys
from harness.report.tables.text import text_of
from harness.results.statistics import log_slope

REACH = 2.0
"""Maximum likelihood with restricted matrices stays within reach of score matching below this factor."""
LARGE = 784
"""Smallest D at which a slope says something of the products, and not of the dispatch of small operations."""
SLOPE = 0.25
"""How far a log-log slope may be from the exponent it stands for; twice that for 3, as the batch's products are D^2."""
POINTS = 3
"""How many sizes a slope needs."""

AMORTISED = ("aml", "relative-gradient", "self-normalizing")
"""Objectives that maximise the likelihood of dense layers and do not compute a determinant at every step."""

_MATCHED = ("ebflow-dsm", "ebflow-ssm", "ebflow-fdssm")
_MACHINE = ["architecture", "B", "dtype", "device", "threads", "cpu", "gpu"]


def speedup(rows: pl.DataFrame) -> list[Evidence]:
    """Compare score matching with maximum likelihood on the same layers, timed in one run, at the paper's depth."""
    evidence = []
    for (architecture, *_), group in _timings(rows).group_by(_MACHINE, maintain_order=True):
        group = group.filter(L=PUBLISHED_LAYERS.get(str(architecture), 0))
        for method in _MATCHED:
            pairs = _beside(group, pl.col("method") == method, pl.col("method") == "ebflow-ml")
            if not pairs.is_empty():
                evidence.append(_same_layers(pairs, method))
        restricted = (pl.col("objective") == "ml") & ~pl.col("linear").is_in(["dense", "none", ""])
        pairs = _beside(group, pl.col("method") == "ebflow-dsm", restricted)
        if not pairs.is_empty():
            evidence.append(_restricted(pairs.row(-1, named=True)))
    return evidence


def without_matching(rows: pl.DataFrame) -> list[Evidence]:
    """Compare the fastest likelihood training of unrestricted layers that needs no determinant at every step.

    Both are the fastest of their kind at each D of a run.
    """
    evidence = []
    for (architecture, *_), group in _timings(rows).group_by(_MACHINE, maintain_order=True):
        group = group.filter(pl.col("linear") == "dense", L=PUBLISHED_LAYERS.get(str(architecture), 0))
        pairs = _beside(group, pl.col("objective").is_in(SCORE_MATCHING), pl.col("objective").is_in(AMORTISED))
        if pairs.is_empty():
            continue
        last = pairs.row(-1, named=True)
        rival = last["method_rival"]
        against = (pairs["ratio"] <= 1).to_list()
        outcome = Outcome.AGAINST if all(against) else Outcome.PARTLY if against[-1] else Outcome.FOR
        at = f"D = {last['D']:,}"
        ratios = _listed(pairs.select("D", "ratio").rows())
        text = (
            f"{_where(last)}: maximum likelihood of unrestricted layers without a determinant at every step takes "
            f"{ratios} as long as the fastest score matching ({rival} and {last['method']} at {at}: {_times(last)})."
        )
        short = f"{last['architecture']}: {rival} takes {last['ratio']:.0%} of {last['method']} at {at}"
        evidence.append(Evidence(outcome, short, text, keys(pairs["cell"])))
    return evidence


def scaling(rows: pl.DataFrame) -> list[Evidence]:
    """Compare the log-log slopes of the median time over D, and over L, of score matching and maximum likelihood."""
    timings = _timings(rows.filter(pl.col("D") >= LARGE, pl.col("method").is_in(["ebflow-ml", *_MATCHED[:2]])))
    runs = [*_MACHINE, "experiment", "profile"]
    evidence = []
    for _, group in timings.group_by([*runs, "L"], maintain_order=True):
        first = group.row(0, named=True)
        rival = _slope(group, "ebflow-ml", "D")
        for method in _MATCHED[:2]:
            own = _slope(group, method, "D")
            if own is None or rival is None:
                continue
            if own <= 2 + SLOPE and rival >= 3 - 2 * SLOPE:
                outcome = Outcome.FOR
            else:
                outcome = Outcome.PARTLY if rival - own >= SLOPE else Outcome.AGAINST
            cells = group.filter(pl.col("method").is_in([method, "ebflow-ml"]))["cell"]
            slopes = f"the time of {method} grows as D to the power {own:.2f}, of ebflow-ml {rival:.2f}"
            text = f"{_where(first)}, D from {LARGE}: {slopes}."
            short = f"{first['architecture']}: slopes in D {own:.2f} ({method}) and {rival:.2f}"
            evidence.append(Evidence(outcome, short, text, keys(cells)))
    for _, group in timings.group_by([*runs, "D"], maintain_order=True):
        first = group.row(0, named=True) | {"L": None}
        for method in ("ebflow-dsm", "ebflow-ml"):
            slope = _slope(group, method, "L")
            if slope is not None:
                outcome = Outcome.FOR if abs(slope - 1) <= SLOPE else Outcome.AGAINST
                text = f"{_where(first)}, D = {first['D']:,}: the time of {method} grows as L to the power {slope:.2f}."
                short = f"{first['architecture']}: slope in L {slope:.2f} ({method})"
                evidence.append(Evidence(outcome, short, text, keys(group.filter(method=method)["cell"])))
    return evidence


def _timings(rows: pl.DataFrame) -> pl.DataFrame:
    """Return finished timings, of one problem and method in one experiment the newest; the largest D first."""
    return (
        rows.filter(pl.col("metric") == "seconds_per_iteration", pl.col("status") == "ok", ~pl.col("compiled"))
        .sort("started_at")
        .unique([*_MACHINE, "experiment", "profile", "method", "D", "L"], keep="last", maintain_order=True)
        .sort("architecture", "experiment", "D", "L")
        .sort(pl.col("D").max().over(_MACHINE), descending=True, maintain_order=True)
    )


def _beside(timings: pl.DataFrame, methods: pl.Expr, rivals: pl.Expr) -> pl.DataFrame:
    """Return one row a D: the fastest method's time and its fastest rival's of the same run, timed in turns."""
    run = ["cell", "D", "L"]
    own, rival = (
        timings.filter(which).sort("value").unique(run, keep="first", maintain_order=True)
        for which in (methods, rivals)
    )
    return (
        own.join(rival.select(*run, "method", "linear", "value", "ci_low"), on=run, suffix="_rival")
        .with_columns(ratio=pl.col("value_rival") / pl.col("value"))
        .with_columns(faster=(pl.col("ci_high") < pl.col("ci_low_rival")).fill_null(pl.col("ratio") > 1))
        .sort("started_at")
        .unique("D", keep="last")
        .sort("D")
    )


def _same_layers(pairs: pl.DataFrame, method: str) -> Evidence:
    factors = _published_factors(pairs["architecture"][0], method.removeprefix("ebflow-"))
    measured = pairs.select("D", "ratio").rows()
    goals = [(size, factors[size]) for size, _ in measured if size in factors]
    last = pairs.row(-1, named=True)
    if not last["faster"]:
        outcome = Outcome.AGAINST
    elif pairs["faster"].all() and all(ratio >= factors.get(size, 0) for size, ratio in measured):
        outcome = Outcome.FOR
    else:
        outcome = Outcome.PARTLY
    published_times = f"; published {_listed(goals)}" if goals else ""
    at = f"D = {last['D']:,}"
    text = f"ebflow-ml takes {_listed(measured)} as long as {method} ({_times(last)} at {at}){published_times}."
    goal = f", published {_factor(factors[last['D']])}" if last["D"] in factors else ""
    short = f"{last['architecture']}: {method} {_factor(last['ratio'])} times faster at {at}{goal}"
    return Evidence(outcome, short, f"{_where(last)}: {text}", keys(pairs["cell"]))


def _restricted(last: dict[str, Any]) -> Evidence:
    """Weigh the largest D at which the fastest maximum likelihood with restricted matrices was timed."""
    ratio = last["ratio"]
    outcome = Outcome.FOR if ratio >= REACH else Outcome.PARTLY if ratio >= 1 else Outcome.AGAINST
    rival, at = f"{last['method_rival']} ({last['linear_rival']})", f"D = {last['D']:,}"
    text = (
        f"{_where(last)}: the fastest maximum likelihood with restricted matrices, {rival}, "
        f"takes {_factor(ratio)} times as long as ebflow-dsm at {at} ({_times(last)})."
    )
    short = f"{last['architecture']}: ebflow-dsm {_factor(ratio)} times faster than {rival} at {at}"
    return Evidence(outcome, short, text, (last["cell"],))


def _slope(timings: pl.DataFrame, method: str, column: str) -> float | None:
    """Return the log-log slope of a method's time, if it has enough sizes."""
    curve = timings.filter(method=method)
    if curve[column].n_unique() < POINTS:
        return None
    return log_slope(curve[column].to_list(), curve["value"].to_list()).value


def _published_factors(architecture: str, objective: str) -> dict[int, float]:
    """Return how many times longer maximum likelihood takes than the objective as published, by D.

    The factors are those of the figure, or else of the table, whose MNIST column fits the figure at 1 x 32 x 32 and not
    at 28 x 28.
    """

    def numbers(table: pl.DataFrame, name: str, column: str, value: str) -> dict[Any, float]:
        return dict(table.filter(architecture=architecture, objective=name).select(column, value).rows())

    both = (objective, "ml")
    rates, ml_rates = (numbers(published.throughput(), name, "dataset", "batches_per_second") for name in both)
    times, ml_times = (numbers(published.runtime(), name, "D", "published_seconds") for name in both)
    sizes = {"mnist": 1024, "cifar10": 3072}
    factors = {size: rates[dataset] / ml_rates[dataset] for dataset, size in sizes.items() if dataset in rates}
    return factors | {size: ml_times[size] / times[size] for size in times}


def _where(row: dict[str, Any]) -> str:
    depth = "" if row["L"] is None else f", L = {row['L']}"
    machine = f"{row['dtype']} on {row['gpu'] or row['cpu']}, threads = {row['threads']}"
    return f"{row['architecture']}{depth}, B = {row['B']}, {machine}"


def _listed(points: list[tuple[int, float]]) -> str:
    (first_size, first), *rest = points
    others = [f"{_factor(ratio)} ({size:,})" for size, ratio in rest]
    return ", ".join([f"{_factor(first)} times (D = {first_size:,})", *others])


def _times(pair: dict[str, Any]) -> str:
    return f"{text_of(1e3 * pair['value_rival'])} ms against {text_of(1e3 * pair['value'])}"


def _factor(ratio: float) -> str:
    if ratio < 1:
        return f"{ratio:.2f}"
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"
