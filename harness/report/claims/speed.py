"""Seconds an iteration: how much faster score matching is, and how the time grows with D and L."""

from __future__ import annotations

import math

import polars as pl

from harness.paper import published
from harness.paper.configurations import PUBLISHED_LAYERS
from harness.report.claims.evidence import Evidence, Outcome, keys
from harness.report.tables.columns import COMPILED
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

_MATCHED = ("ebflow-dsm", "ebflow-ssm", "ebflow-fdssm")
_MACHINE = ["architecture", "B", "dtype", "device", "threads", "cpu", "gpu"]


def speedup(rows: pl.DataFrame) -> list[Evidence]:
    """Score matching beside maximum likelihood on the same layers, timed in one run, at the paper's depth."""
    found = []
    timings = _timings(rows).sort(pl.col("D").max().over(_MACHINE), descending=True, maintain_order=True)
    for key, group in timings.group_by(_MACHINE, maintain_order=True):
        group = group.filter(L=PUBLISHED_LAYERS.get(key[0], 0))
        for method in _MATCHED:
            pairs = _beside(group, method, pl.col("method") == "ebflow-ml")
            if not pairs.is_empty():
                found.append(_same_layers(pairs, method, _where(key, pairs["L"][0])))
        restricted = _beside(
            group, "ebflow-dsm", (pl.col("objective") == "ml") & ~pl.col("linear").is_in(["dense", "none", ""])
        )
        if not restricted.is_empty():
            found.append(_restricted(restricted, _where(key, restricted["L"][0])))
    return found


def scaling(rows: pl.DataFrame) -> list[Evidence]:
    """Log-log slopes of the median time over D, and over L, of score matching and of maximum likelihood."""
    timings = _timings(rows).filter(pl.col("D") >= LARGE, pl.col("method").is_in(["ebflow-ml", *_MATCHED[:2]]))
    timings = timings.sort(pl.col("D").max().over(_MACHINE), descending=True, maintain_order=True)
    found = []
    for (*key, depth), group in timings.group_by([*_MACHINE, "experiment", "profile", "L"], maintain_order=True):
        rival = _slope(group.filter(method="ebflow-ml"), "D")
        for method in _MATCHED[:2]:
            own = _slope(group.filter(method=method), "D")
            if own is not None and rival is not None:
                where = _where(tuple(key[:-2]), depth)
                found.append(_in_d(method, own, rival, where, _cells(group, method, "ebflow-ml")))
    for (*key, size), group in timings.group_by([*_MACHINE, "experiment", "profile", "D"], maintain_order=True):
        for method in ("ebflow-dsm", "ebflow-ml"):
            slope = _slope(group.filter(method=method), "L")
            if slope is not None:
                where = f"{_where(tuple(key[:-2]), None)}, D = {size:,}"
                outcome = Outcome.FOR if abs(slope - 1) <= SLOPE else Outcome.AGAINST
                text = f"{where}: the time of {method} grows as L to the power {slope:.2f}."
                short = f"{key[0]}: slope in L {slope:.2f} ({method})"
                found.append(Evidence(outcome, short, text, _cells(group, method)))
    return found


def _timings(rows: pl.DataFrame) -> pl.DataFrame:
    """Finished timings; of one problem and method in one experiment the newest."""
    return (
        rows.filter(pl.col("metric") == "seconds_per_iteration", pl.col("status") == "ok", ~COMPILED)
        .sort("started_at")
        .unique([*_MACHINE, "experiment", "profile", "method", "D", "L"], keep="last", maintain_order=True)
        .sort("architecture", "experiment", "D", "L")
    )


def _beside(timings: pl.DataFrame, method: str, rivals: pl.Expr) -> pl.DataFrame:
    """One row a D: the method's time and its fastest rival's of the same run, which are timed in turns."""
    run = ["cell", "D", "L"]
    rival = timings.filter(rivals).sort("value").unique(run, keep="first", maintain_order=True)
    return (
        timings.filter(method=method)
        .join(rival.select(*run, "method", "linear", "value", "ci_low"), on=run, suffix="_rival")
        .with_columns(ratio=pl.col("value_rival") / pl.col("value"))
        .with_columns(faster=(pl.col("ci_high") < pl.col("ci_low_rival")).fill_null(pl.col("ratio") > 1))
        .sort("started_at")
        .unique("D", keep="last")
        .sort("D")
    )


def _same_layers(pairs: pl.DataFrame, method: str, where: str) -> Evidence:
    factors = _published_factors(pairs["architecture"][0], method.removeprefix("ebflow-"))
    reached = [row["ratio"] >= factors[row["D"]] for row in pairs.to_dicts() if row["D"] in factors]
    last = pairs.row(-1, named=True)
    if not last["faster"]:
        outcome = Outcome.AGAINST
    else:
        outcome = Outcome.FOR if pairs["faster"].all() and all(reached) else Outcome.PARTLY
    ratios = _listed([(row["D"], row["ratio"]) for row in pairs.to_dicts()])
    told = [(size, factors[size]) for size in pairs["D"].to_list() if size in factors]
    text = (
        f"{where}: ebflow-ml takes {ratios} as long as {method} ({_ms(last['value_rival'])} ms against "
        f"{_ms(last['value'])} at D = {last['D']:,}){f'; published {_listed(told)}' if told else ''}."
    )
    goal = f", published {_times(factors[last['D']])}" if last["D"] in factors else ""
    short = f"{last['architecture']}: {method} {_times(last['ratio'])} times faster at D = {last['D']:,}{goal}"
    return Evidence(outcome, short, text, keys(pairs["cell"].to_list()))


def _restricted(pairs: pl.DataFrame, where: str) -> Evidence:
    last = pairs.row(-1, named=True)
    ratio = last["ratio"]
    outcome = Outcome.FOR if ratio >= REACH else Outcome.PARTLY if ratio >= 1 else Outcome.AGAINST
    text = (
        f"{where}: the fastest maximum likelihood with restricted matrices, {last['method_rival']} "
        f"({last['linear_rival']}), takes {_times(ratio)} times as long as ebflow-dsm at D = {last['D']:,} "
        f"({_ms(last['value_rival'])} ms against {_ms(last['value'])})."
    )
    against = f"{last['method_rival']} ({last['linear_rival']})"
    short = f"{last['architecture']}: ebflow-dsm {_times(ratio)} times faster than {against} at D = {last['D']:,}"
    return Evidence(outcome, short, text, (last["cell"],))


def _in_d(method: str, own: float, rival: float, where: str, cells: tuple[str, ...]) -> Evidence:
    if own <= 2 + SLOPE and rival >= 3 - 2 * SLOPE:
        outcome = Outcome.FOR
    else:
        outcome = Outcome.PARTLY if rival - own >= SLOPE else Outcome.AGAINST
    text = f"{where}, D from {LARGE}: the time of {method} grows as D to the power {own:.2f}, of ebflow-ml {rival:.2f}."
    short = f"{where.partition(',')[0]}: slopes in D {own:.2f} ({method}) and {rival:.2f}"
    return Evidence(outcome, short, text, cells)


def _slope(curve: pl.DataFrame, column: str) -> float | None:
    if curve[column].n_unique() < POINTS:
        return None
    return log_slope(curve[column].to_list(), curve["value"].to_list()).value


def _published_factors(architecture: str, objective: str) -> dict[int, float]:
    """How many times longer maximum likelihood takes than the objective as published, by D: from the figure or table.

    The table's MNIST column fits the figure at 1 x 32 x 32, not at 28 x 28.
    """
    factors: dict[int, float] = {}
    table = published.throughput().filter(architecture=architecture)
    rates = {(row["dataset"], row["objective"]): row["batches_per_second"] for row in table.to_dicts()}
    for dataset, size in (("mnist", 1024), ("cifar10", 3072)):
        if (dataset, objective) in rates:
            factors[size] = rates[dataset, objective] / rates[dataset, "ml"]
    figure = published.runtime().filter(architecture=architecture)
    seconds = {(row["objective"], row["shape"]): row["published_seconds"] for row in figure.to_dicts()}
    for (name, shape), value in seconds.items():
        if name == objective:
            factors[math.prod(map(int, shape.split("x")))] = seconds["ml", shape] / value
    return factors


def _where(key: tuple[object, ...], depth: int | None) -> str:
    architecture, batch, dtype, _, threads, cpu, gpu = key
    depths = "" if depth is None else f", L = {depth}"
    return f"{architecture}{depths}, B = {batch}, {dtype} on {gpu or cpu}, threads = {threads}"


def _listed(points: list[tuple[int, float]]) -> str:
    (first_size, first), *rest = points
    return ", ".join(
        [f"{_times(first)} times (D = {first_size:,})", *(f"{_times(ratio)} ({size:,})" for size, ratio in rest)]
    )


def _cells(group: pl.DataFrame, *methods: str) -> tuple[str, ...]:
    return keys(group.filter(pl.col("method").is_in(methods))["cell"].to_list())


def _ms(seconds: float) -> str:
    return text_of(1e3 * seconds)


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"
