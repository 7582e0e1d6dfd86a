"""Trainings: parity of the likelihood, matching after preprocessing, averaged weights, matrices, Glow, 2-D sets."""

from __future__ import annotations

from typing import Any

import polars as pl

from harness.paper import published
from harness.report.claims.evidence import Evidence, Outcome, keys, shortened
from harness.report.tables.columns import EMA, MAP, is_of_kind
from harness.report.tables.text import text_of

PARITY = 0.01
"""Two test NLLs are on par within this fraction; the paper's own differ by up to 1.1 % on MNIST with fc."""
TRAINED = 0.02
"""A network says something once its NLL is at most this fraction above that of one Gaussian in closed form."""
GAP = 0.1
"""By which fraction the NLL without MaP must be higher,"""
NORMS = 10.0
"""and how many times larger its gradients."""
POINTS = 0.1
"""Two KL divergences of 2-D sets are on par within so many nats."""

_MATCHED = ("ebflow-ssm", "ebflow-dsm", "ebflow-fdssm")
_RECIPES = ("paper", "tuned")
_POINT_SETS = ("sine", "swirl", "checkerboard")
_NETWORK = ["dataset", "architecture", "base", "L", "B", "dtype"]
_KIND = [*_NETWORK, "method", "EMA", "MaP"]
_RUN = ["experiment", "profile", "recipe", *_KIND]


def parity(rows: pl.DataFrame) -> list[Evidence]:
    """Test NLL of score matching beside maximum likelihood, wherever a network is trained enough to tell."""
    runs = _longest(_runs(rows, "nll").filter(pl.col("MaP")).drop_nulls("value"))
    runs = runs.filter(pl.col("base").is_in(_RECIPES), ~pl.col("dataset").is_in(_POINT_SETS))
    found = []
    for run, rival in _beside(runs, _MATCHED, "ebflow-ml", ["EMA"]):
        bar = runs.filter(dataset=run["dataset"], method="gaussian").sort("value").head(1)
        gap = run["value"] / rival["value"] - 1
        reached = not bar.is_empty() and min(run["value"], rival["value"]) <= (1 + TRAINED) * bar["value"][0]
        outcome = _decide(gap <= PARITY, run, rival) if reached else Outcome.OPEN
        gaussian = f"one Gaussian {text_of(bar['value'][0])}" if not bar.is_empty() else "no Gaussian was fitted"
        text = (
            f"{_named(run)}: {run['method']} {_nats(run)}, ebflow-ml {_nats(rival)}, a gap of {gap:+.1%}; {gaussian}"
            f"{_published(run)}."
        )
        cells = keys(run["cells"], rival["cells"], bar["cells"].explode().to_list())
        short = f"{_brief(run)}: {run['method']} {gap:+.1%}"
        found.append(Evidence(outcome, short, text, cells))
    return _decided_first(found)


def matching(rows: pl.DataFrame) -> list[Evidence]:
    """Test NLL and gradient norm with matching after preprocessing and without it, all else equal."""
    runs = _runs(rows, "nll")
    norms = _runs(rows, "gradient_norm", pl.col("value").median())
    found = []
    for run, without in _crossed(runs, "MaP"):
        own, other = (_same(norms, some) for some in (run, without))
        name = f"{_named(run)}, {run['method']}, {'with' if run['EMA'] else 'without'} EMA"
        cells = keys(run["cells"], without["cells"])
        if run["value"] is None or without["value"] is None:
            which = "with" if run["value"] is None else "without"
            failed = run if run["value"] is None else without
            text = f"{name}: nothing to compare, as it {failed['status']} {which} MaP ({failed['reason']})."
            short = f"{_brief(run)}: {run['method']} {failed['status']} {which} MaP"
            found.append(Evidence(Outcome.OPEN, short, text, cells))
            continue
        gap = without["value"] / run["value"] - 1
        text = f"{name}: {_nats(run)} with MaP, {_nats(without)} without, {gap:+.0%}"
        enough = gap >= GAP
        if own and other:
            text += f"; median gradient norm {text_of(own['value'])} with, {text_of(other['value'])} without"
            enough = enough and other["value"] >= NORMS * own["value"]
        if gap <= 0:
            outcome = Outcome.OPEN if run["shortened"] else Outcome.AGAINST
        else:
            outcome = Outcome.FOR if enough and not without["shortened"] else Outcome.PARTLY
        short = f"{_brief(run)}: {gap:+.0%} without MaP ({run['method']})"
        found.append(Evidence(outcome, short, f"{text}.", cells))
    return _decided_first(found)


def averaging(rows: pl.DataFrame) -> list[Evidence]:
    """Test NLL with averaged weights and without them, all else equal."""
    runs = _runs(rows, "nll").drop_nulls("value")
    found = []
    for run, without in _crossed(runs, "EMA"):
        gain = without["value"] - run["value"]
        text = (
            f"{_named(run)}, {run['method']}, {'with' if run['MaP'] else 'without'} MaP: {_nats(run)} with EMA, "
            f"{_nats(without)} without, a gain of {text_of(gain)} nats."
        )
        short = (
            f"{_brief(run)}: {text_of(gain)} nats gained ({run['method']}, {'with' if run['MaP'] else 'without'} MaP)"
        )
        found.append(Evidence(_decide(gain > 0, run, without), short, text, keys(run["cells"], without["cells"])))
    return _decided_first(found)


def matrices(rows: pl.DataFrame) -> list[Evidence]:
    """NLL of full matrices beside triangular and LU ones, on the data that the paper takes for it."""
    runs = _runs(rows, "nll").filter(dataset="multimodal10", architecture="multimodal").drop_nulls("value")
    runs = _longest(runs)
    full = runs.filter(method="ebflow-full-ml")
    found = []
    restricted = runs.filter(pl.col("method").str.contains(r"^ebflow-(upper|lower|lu)-ml$")).sort("value")
    for run in full.to_dicts():
        for other in restricted.to_dicts():
            if any(run[name] != other[name] for name in [*_NETWORK, "EMA", "MaP"]):
                continue
            gap = other["value"] - run["value"]
            ends = f"full matrices {_nats(run)}, {other['linear']} {_nats(other)}"
            text = f"{_named(run)}: {ends}, {text_of(gap)} nats more."
            short = f"{text_of(gap)} nats more with {other['linear']}"
            found.append(Evidence(_decide(gap > 0, run, other), short, text, keys(run["cells"], other["cells"])))
    return _decided_first(found)


def glow(rows: pl.DataFrame) -> list[Evidence]:
    """Test NLL of Glow on MNIST in pixel space, beside the published one."""
    (bar,) = published.likelihood().filter(dataset="mnist", architecture="glow")["published_nll"]
    runs = _longest(_runs(rows, "nll").filter(pl.col("MaP")).drop_nulls("value"))
    found = []
    for run in runs.filter(dataset="mnist", architecture="glow").sort("value").to_dicts():
        if run["method"] == "gaussian":
            continue
        if run["value"] <= (1 + PARITY) * bar:
            outcome = Outcome.FOR if run["method"] in _MATCHED else Outcome.PARTLY
        else:
            outcome = Outcome.OPEN if run["shortened"] else Outcome.AGAINST
        text = f"{_named(run)}: {run['method']} {_nats(run)}, published {text_of(bar)} by score matching."
        short = f"{text_of(run['value'])} nats by {run['method']}"
        found.append(Evidence(outcome, short, text, keys(run["cells"])))
    return _decided_first(found)


def points(rows: pl.DataFrame) -> list[Evidence]:
    """KL and Fisher divergence of 2-D sets, score matching beside maximum likelihood."""
    runs = _longest(_runs(rows, "kl").filter(pl.col("dataset").is_in(_POINT_SETS)).drop_nulls("value"))
    fishers = _runs(rows, "fisher")
    found = []
    for run, rival in _beside(runs, _MATCHED, "ebflow-ml", ["EMA", "MaP"]):
        gap = run["value"] - rival["value"]
        text = f"{_named(run)}: KL of {run['method']} {_nats(run)}, of ebflow-ml {_nats(rival)}"
        own, other = (_same(fishers, some) for some in (run, rival))
        if own and other:
            text += f"; Fisher divergence {text_of(own['value'])} and {text_of(other['value'])}"
        short = f"{_brief(run)}: KL {text_of(run['value'])} by {run['method']}, {text_of(rival['value'])} by ebflow-ml"
        cells = keys(run["cells"], rival["cells"])
        found.append(Evidence(_decide(gap <= POINTS, run, rival), short, f"{text}.", cells))
    return _decided_first(found)


def _runs(rows: pl.DataFrame, metric: str, of_a_cell: pl.Expr | None = None) -> pl.DataFrame:
    """Return one row a training, averaged over its seeds, with what tells trainings apart.

    Args:
        rows: Of `harness.results.SCHEMA`.
        metric: What to average.
        of_a_cell: How the values of one cell become one; their mean if not given.

    Returns:
        `_RUN` with value (None where no seed has one), cells, linear, steps, shortened, status and reason.
    """
    own = rows.filter(pl.col("metric") == metric, is_of_kind("LikelihoodCell"))
    steps = rows.filter(metric="training_iterations").select("cell", "method", steps="value")
    return (
        own.with_columns(base=pl.col("recipe").str.split(",").list.first(), EMA=EMA, MaP=MAP, shortened=shortened(own))
        .group_by([*_RUN, "cell"], maintain_order=True)
        .agg(
            (pl.col("value").mean() if of_a_cell is None else of_a_cell).alias("value"),
            pl.col("linear", "shortened", "status", "reason").first(),
        )
        .join(steps, on=["cell", "method"], how="left")
        .group_by(_RUN, maintain_order=True)
        .agg(
            pl.col("value").mean(),
            pl.col("cell").alias("cells"),
            pl.col("steps").max(),
            pl.col("linear", "shortened", "status", "reason").first(),
        )
        .sort("shortened", "steps", *_RUN, descending=[False, True, *[False] * len(_RUN)], nulls_last=True)
    )


def _longest(runs: pl.DataFrame) -> pl.DataFrame:
    """Keep one training a network, base recipe, method, EMA and MaP: a whole one if there is one, else the longest."""
    return runs.unique(_KIND, keep="first", maintain_order=True).sort(_KIND)


def _decide(on_par: bool, run: dict[str, Any], rival: dict[str, Any]) -> Outcome:
    """Weigh a comparison: whoever loses it may still improve if its training was cut short."""
    if on_par:
        return Outcome.PARTLY if rival["shortened"] else Outcome.FOR
    return Outcome.OPEN if run["shortened"] else Outcome.AGAINST


def _beside(
    runs: pl.DataFrame, methods: tuple[str, ...], rival: str, equal: list[str]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pair each of the methods with the rival that was trained on the same network by the same recipe."""
    rivals = {tuple(run[name] for name in [*_NETWORK, *equal]): run for run in runs.filter(method=rival).to_dicts()}
    return [
        (run, rivals[key])
        for run in runs.filter(pl.col("method").is_in(methods))
        .sort("steps", descending=True, nulls_last=True)
        .to_dicts()
        if (key := tuple(run[name] for name in [*_NETWORK, *equal])) in rivals
    ]


def _crossed(runs: pl.DataFrame, switch: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pair each run with the one of its experiment that differs in a switch alone: on first, then off.

    Of several such pairs for a network and method the longest counts.
    """
    same = [name for name in _RUN if name != switch]
    off = {tuple(run[name] for name in same): run for run in runs.filter(~pl.col(switch)).to_dicts()}
    pairs: dict[tuple[Any, ...], tuple[dict[str, Any], dict[str, Any]]] = {}
    for run in runs.filter(pl.col(switch)).to_dicts():
        other = off.get(tuple(run[name] for name in same))
        if other is not None:
            pairs.setdefault(tuple(run[name] for name in _KIND), (run, other))
    return sorted(pairs.values(), key=lambda pair: -(pair[0]["steps"] or 0))


def _same(runs: pl.DataFrame, run: dict[str, Any]) -> dict[str, Any] | None:
    """Return what another metric says of the same training."""
    return next((other for other in runs.to_dicts() if set(other["cells"]) == set(run["cells"])), None)


def _named(run: dict[str, Any]) -> str:
    return f"{run['dataset']}, {run['architecture']}, recipe {run['base']}, L = {run['L']}"


def _brief(run: dict[str, Any]) -> str:
    return f"{run['dataset']} {run['architecture']} {run['base']}"


def _nats(run: dict[str, Any]) -> str:
    steps = (
        "" if run["steps"] is None else f" after {run['steps']:,.0f} steps{', cut short' if run['shortened'] else ''}"
    )
    return f"{text_of(run['value'])} nats{steps}"


def _published(run: dict[str, Any]) -> str:
    numbers = published.likelihood().filter(dataset=run["dataset"], architecture=run["architecture"])
    nll = dict(numbers.select("objective", "published_nll").rows())
    own = nll.get(run["method"].removeprefix("ebflow-"))
    if own is None or "ml" not in nll:
        return ""
    return f"; published {text_of(own)} and {text_of(nll['ml'])}"


def _decided_first(found: list[Evidence]) -> list[Evidence]:
    return sorted(found, key=lambda one: one.outcome is Outcome.OPEN)
