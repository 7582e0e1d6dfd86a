"""Trainings: parity of the likelihood, matching after preprocessing, averaged weights, matrices, Glow, 2-D sets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from harness.paper import published
from harness.report.claims.evidence import Evidence, Outcome, keys
from harness.report.tables.text import text_of

PARITY = 0.01
"""Two test NLLs are on par within this fraction; the paper's own differ by up to 1.1 % on MNIST with fc."""
TRAINED = 0.02
"""A network says something once its NLL is at most this fraction above that of one Gaussian in closed form."""
GAP = 0.1
"""By which fraction the NLL without MaP must be higher."""
NORMS = 10.0
"""How many times larger the gradients without MaP must be."""
POINTS = 0.1
"""Two KL divergences of 2-D sets are on par within so many nats."""

_MATCHED = ("ebflow-ssm", "ebflow-dsm", "ebflow-fdssm")
_RECIPES = ("paper", "tuned")
_POINT_SETS = ("sine", "swirl", "checkerboard")
_NETWORK = ["dataset", "architecture", "base", "L", "B", "dtype"]
_KIND = [*_NETWORK, "method", "EMA", "MaP"]
_RUN = ["experiment", "profile", "recipe", *_KIND]

_Training = dict[str, Any]
"""One training as `_runs` describes it."""


def parity(rows: pl.DataFrame) -> list[Evidence]:
    """Compare the test NLL of score matching with maximum likelihood, wherever a network is trained enough to tell."""
    runs = _longest(_runs(rows, "nll").filter(pl.col("MaP")).drop_nulls("value"))
    runs = runs.filter(pl.col("base").is_in(_RECIPES), ~pl.col("dataset").is_in(_POINT_SETS))
    evidence = []
    for run, rival in _beside(runs, ["EMA"]):
        bars = runs.filter(dataset=run["dataset"], method="gaussian").sort("value").head(1).to_dicts()
        gap = run["value"] / rival["value"] - 1
        reached = any(min(run["value"], rival["value"]) <= (1 + TRAINED) * bar["value"] for bar in bars)
        outcome = _decide(gap <= PARITY, run, rival) if reached else Outcome.OPEN
        gaussian = f"one Gaussian {text_of(bars[0]['value'])}" if bars else "no Gaussian was fitted"
        text = (
            f"{_named(run)}: {run['method']} {_nats(run)}, ebflow-ml {_nats(rival)}, a gap of {gap:+.1%}; {gaussian}"
            f"{_published(run)}."
        )
        cells = keys(run["cells"], rival["cells"], *(bar["cells"] for bar in bars))
        evidence.append(Evidence(outcome, f"{_brief(run)}: {run['method']} {gap:+.1%}", text, cells))
    return _decided_first(evidence)


def matching(rows: pl.DataFrame) -> list[Evidence]:
    """Compare test NLL and gradient norm with matching after preprocessing and without it, all else equal."""
    norms = _runs(rows, "gradient_norm", pl.col("value").median())
    pairs = _crossed(_runs(rows, "nll"), "MaP")
    return _decided_first(_with_and_without(run, without, norms) for run, without in pairs)


def _with_and_without(run: _Training, without: _Training, norms: pl.DataFrame) -> Evidence:
    """Weigh a training with MaP against the one without it."""
    name = f"{_named(run)}, {run['method']}, {'with' if run['EMA'] else 'without'} EMA"
    cells = keys(run["cells"], without["cells"])
    for which, failed in (("with", run), ("without", without)):
        if failed["value"] is None:
            text = f"{name}: nothing to compare, as it {failed['status']} {which} MaP ({failed['reason']})."
            short = f"{_brief(run)}: {run['method']} {failed['status']} {which} MaP"
            return Evidence(Outcome.OPEN, short, text, cells)
    gap = without["value"] / run["value"] - 1
    text = f"{name}: {_nats(run)} with MaP, {_nats(without)} without, {gap:+.0%}"
    enough = gap >= GAP
    own, other = (_same(norms, one) for one in (run, without))
    if own and other:
        text += f"; median gradient norm {text_of(own['value'])} with, {text_of(other['value'])} without"
        enough = enough and other["value"] >= NORMS * own["value"]
    if gap <= 0:
        outcome = Outcome.OPEN if run["shortened"] else Outcome.AGAINST
    else:
        outcome = Outcome.FOR if enough and not without["shortened"] else Outcome.PARTLY
    return Evidence(outcome, f"{_brief(run)}: {gap:+.0%} without MaP ({run['method']})", f"{text}.", cells)


def averaging(rows: pl.DataFrame) -> list[Evidence]:
    """Compare test NLL with averaged weights and without them, all else equal."""
    evidence = []
    for run, without in _crossed(_runs(rows, "nll").drop_nulls("value"), "EMA"):
        gain = without["value"] - run["value"]
        which = f"{run['method']}, {'with' if run['MaP'] else 'without'} MaP"
        ends = f"{_nats(run)} with EMA, {_nats(without)} without, a gain of {text_of(gain)} nats"
        short = f"{_brief(run)}: {text_of(gain)} nats gained ({which})"
        cells = keys(run["cells"], without["cells"])
        evidence.append(Evidence(_decide(gain > 0, run, without), short, f"{_named(run)}, {which}: {ends}.", cells))
    return _decided_first(evidence)


def matrices(rows: pl.DataFrame) -> list[Evidence]:
    """Compare the NLL of full matrices with triangular and LU ones, on the data that the paper takes for it."""
    runs = _runs(rows, "nll").filter(dataset="multimodal10", architecture="multimodal").drop_nulls("value")
    runs = _longest(runs)
    restricted = runs.filter(pl.col("method").str.contains(r"^ebflow-(upper|lower|lu)-ml$")).sort("value").to_dicts()
    evidence = []
    for run in runs.filter(method="ebflow-full-ml").to_dicts():
        for other in restricted:
            if _key(run, _NETWORK, "EMA", "MaP") != _key(other, _NETWORK, "EMA", "MaP"):
                continue
            gap = other["value"] - run["value"]
            ends = f"full matrices {_nats(run)}, {other['linear']} {_nats(other)}"
            text = f"{_named(run)}: {ends}, {text_of(gap)} nats more."
            short = f"{text_of(gap)} nats more with {other['linear']}"
            evidence.append(Evidence(_decide(gap > 0, run, other), short, text, keys(run["cells"], other["cells"])))
    return _decided_first(evidence)


def glow(rows: pl.DataFrame) -> list[Evidence]:
    """Compare the test NLL of Glow on MNIST in pixel space with the published one."""
    (bar,) = published.likelihood().filter(dataset="mnist", architecture="glow")["published_nll"]
    runs = _longest(_runs(rows, "nll").filter(pl.col("MaP")).drop_nulls("value"))
    runs = runs.filter(pl.col("method") != "gaussian", dataset="mnist", architecture="glow")
    evidence = []
    for run in runs.sort("value").to_dicts():
        if run["value"] <= (1 + PARITY) * bar:
            outcome = Outcome.FOR if run["method"] in _MATCHED else Outcome.PARTLY
        else:
            outcome = Outcome.OPEN if run["shortened"] else Outcome.AGAINST
        text = f"{_named(run)}: {run['method']} {_nats(run)}, published {text_of(bar)} by score matching."
        evidence.append(Evidence(outcome, f"{text_of(run['value'])} nats by {run['method']}", text, keys(run["cells"])))
    return _decided_first(evidence)


def points(rows: pl.DataFrame) -> list[Evidence]:
    """Compare KL and Fisher divergence of score matching on 2-D sets with maximum likelihood."""
    runs = _longest(_runs(rows, "kl").filter(pl.col("dataset").is_in(_POINT_SETS)).drop_nulls("value"))
    fishers = _runs(rows, "fisher")
    evidence = []
    for run, rival in _beside(runs, ["EMA", "MaP"]):
        gap = run["value"] - rival["value"]
        text = f"{_named(run)}: KL of {run['method']} {_nats(run)}, of ebflow-ml {_nats(rival)}"
        own, other = (_same(fishers, one) for one in (run, rival))
        if own and other:
            text += f"; Fisher divergence {text_of(own['value'])} and {text_of(other['value'])}"
        short = f"{_brief(run)}: KL {text_of(run['value'])} by {run['method']}, {text_of(rival['value'])} by ebflow-ml"
        cells = keys(run["cells"], rival["cells"])
        evidence.append(Evidence(_decide(gap <= POINTS, run, rival), short, f"{text}.", cells))
    return _decided_first(evidence)


def _runs(rows: pl.DataFrame, metric: str, of_a_cell: pl.Expr | None = None) -> pl.DataFrame:
    """Return one row a training, averaged over its seeds, with what tells trainings apart.

    Args:
        rows: Rows with the columns of `harness.results.derived`.
        metric: The metric to average.
        of_a_cell: How the values of one cell become one; None: by their mean.

    Returns:
        `_RUN` with value (None where no seed has one), cells, linear, steps, shortened, status and reason.
    """
    steps = rows.filter(metric="training_iterations").select("cell", "method", steps="value")
    shared = pl.col("linear", "shortened", "status", "reason").first()
    value = pl.col("value").mean() if of_a_cell is None else of_a_cell
    return (
        rows.filter(metric=metric, kind="likelihood")
        .group_by([*_RUN, "cell"], maintain_order=True)
        .agg(value.alias("value"), shared)
        .join(steps, on=["cell", "method"], how="left")
        .group_by(_RUN, maintain_order=True)
        .agg(pl.col("value").mean(), pl.col("cell").alias("cells"), pl.col("steps").max(), shared)
        .sort("shortened", "steps", *_RUN, descending=[False, True, *[False] * len(_RUN)], nulls_last=True)
    )


def _longest(runs: pl.DataFrame) -> pl.DataFrame:
    """Keep one training a network, base recipe, method, EMA and MaP: a whole one if there is one, else the longest."""
    return runs.unique(_KIND, keep="first", maintain_order=True).sort(_KIND)


def _decide(on_par: bool, run: _Training, rival: _Training) -> Outcome:
    """Weigh a comparison: a training that loses it may still improve if it was cut short."""
    if on_par:
        return Outcome.PARTLY if rival["shortened"] else Outcome.FOR
    return Outcome.OPEN if run["shortened"] else Outcome.AGAINST


def _beside(runs: pl.DataFrame, equal: list[str]) -> list[tuple[_Training, _Training]]:
    """Pair each training by score matching with ebflow-ml on the same network by the same recipe, the longest first."""
    rivals = {_key(run, _NETWORK, *equal): run for run in runs.filter(method="ebflow-ml").to_dicts()}
    own = runs.filter(pl.col("method").is_in(_MATCHED)).sort("steps", descending=True, nulls_last=True).to_dicts()
    return [(run, rivals[key]) for run in own if (key := _key(run, _NETWORK, *equal)) in rivals]


def _crossed(runs: pl.DataFrame, switch: str) -> list[tuple[_Training, _Training]]:
    """Pair each run with the one of its experiment that differs in a switch alone: on first, then off.

    Of several such pairs for a network and method the longest counts.
    """
    same = [name for name in _RUN if name != switch]
    off = {_key(run, same): run for run in runs.filter(~pl.col(switch)).to_dicts()}
    pairs: dict[tuple[Any, ...], tuple[_Training, _Training]] = {}
    for run in runs.filter(pl.col(switch)).to_dicts():
        if _key(run, same) in off:
            pairs.setdefault(_key(run, _KIND), (run, off[_key(run, same)]))
    return sorted(pairs.values(), key=lambda pair: -(pair[0]["steps"] or 0))


def _key(run: _Training, names: Iterable[str], *more: str) -> tuple[Any, ...]:
    return tuple(run[name] for name in [*names, *more])


def _same(runs: pl.DataFrame, run: _Training) -> _Training | None:
    """Return what another metric says of the same training."""
    return next((other for other in runs.to_dicts() if set(other["cells"]) == set(run["cells"])), None)


def _named(run: _Training) -> str:
    return f"{run['dataset']}, {run['architecture']}, recipe {run['base']}, L = {run['L']}"


def _brief(run: _Training) -> str:
    return f"{run['dataset']} {run['architecture']} {run['base']}"


def _nats(run: _Training) -> str:
    steps = "" if run["steps"] is None else f" after {run['steps']:,.0f} steps"
    cut = ", cut short" if steps and run["shortened"] else ""
    return f"{text_of(run['value'])} nats{steps}{cut}"


def _published(run: _Training) -> str:
    numbers = published.likelihood().filter(dataset=run["dataset"], architecture=run["architecture"])
    nll = dict(numbers.select("objective", "published_nll").rows())
    own = nll.get(run["method"].removeprefix("ebflow-"))
    if own is None or "ml" not in nll:
        return ""
    return f"; published {text_of(own)} and {text_of(nll['ml'])}"


def _decided_first(evidence: Iterable[Evidence]) -> list[Evidence]:
    return sorted(evidence, key=lambda one: one.outcome is Outcome.OPEN)
