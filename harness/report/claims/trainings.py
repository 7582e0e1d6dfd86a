"""Trainings: parity of the likelihood, matching after preprocessing, averaged weights, matrices, Glow, 2-D sets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import polars as pl

from harness.methods.families import LIKELIHOOD_OF_DENSE, MATCHED
from harness.paper import published
from harness.report.claims.evidence import Evidence, Outcome, keys, of_version
from harness.report.tables.text import text_of
from harness.results.statistics import Estimate, paired_difference

PARITY = 0.01
"""Two test NLLs are on par within so many nats a dimension; the paper's own differ by up to 0.015 on MNIST with fc."""
AMORTISED = 0.002
"""An amortised training ends where the exact one does within so many nats a dimension, 1.6 nats on MNIST."""
TRAINED = 0.03
"""A network says something once its NLL is at most so many nats a dimension above one Gaussian in closed form."""
GAP = 0.1
"""By how many nats a dimension the NLL without MaP must be higher."""
NORMS = 10.0
"""How many times larger the gradients without MaP must be."""
FITTED = 1.0
"""A network on data of a known density says something once its KL divergence is at most so many nats a dimension."""

POINT_SETS = ["sine", "swirl", "checkerboard"]
_NETWORK = ["dataset", "architecture", "base", "L", "residual", "B", "D", "dtype", "project"]
_KIND = [*_NETWORK, "method", "EMA", "MaP"]
_RUN = ["experiment", "profile", "recipe", *_KIND]
_SAME = [*_NETWORK, "EMA", "MaP"]
_LONGEST = ["shortened", "steps", "number"]
_MEAN = pl.col("value").mean()

_Training = dict[str, Any]
"""One training as `_runs` describes it."""


def parity(rows: pl.DataFrame, recipe: str) -> list[Evidence]:
    """Compare the test NLL of score matching with the best of maximum likelihood, where a network is trained enough.

    Args:
        rows: Rows with the columns of `harness.results.derived`.
        recipe: The recipe of both trainings: paper or tuned.
    """
    trained = _longest(rows, "nll").filter("MaP", ~pl.col("dataset").is_in(POINT_SETS))
    # The data of both recipes are the same, and so is the Gaussian.
    gaussians = trained.filter(pl.col("base").is_in(["paper", "tuned"]), method="gaussian").sort("value").to_dicts()
    evidence = []
    for run, rival in _beside_likelihood(trained.filter(base=recipe)):
        bar = [one for one in gaussians if _alike(run, one, ["dataset", "project"])][:1]
        gap = _gap(run, rival)
        if gap is None:
            evidence.append(_undecided(run, rival))
            continue
        each = gap.value / run["D"]
        reached = any(min(run["value"], rival["value"]) <= one["value"] + TRAINED * run["D"] for one in bar)
        # Equal numbers are those of the start that both share: neither training has left it.
        outcome = _decide(each <= PARITY, run, rival) if reached and gap.value else Outcome.OPEN
        gaussian = f"one Gaussian {text_of(bar[0]['value'])}" if bar else "no Gaussian was fitted"
        ends = f"{run['method']} {_nats(run)}, {rival['method']}, the best maximum likelihood, {_nats(rival)}"
        text = f"{_where(run)}: {ends}, a gap of {_interval(gap)} nats or {each:+.3f} a dimension; {gaussian}"
        side = "above" if gap.value > 0 else "below"
        lies = "is so far" if outcome is Outcome.OPEN else "ends"
        short = f"{_brief(run)}: {run['method']} {lies} {abs(gap.value):,.1f} nats {side} {rival['method']}"
        found = _evidence(outcome, short, f"{text}{_published(run)}.", run, rival, *bar)
        evidence.append(replace(found, kind=run["dataset"]))
    return evidence


def without_matching(rows: pl.DataFrame) -> list[Evidence]:
    """Compare the test NLL of amortised maximum likelihood with the exact one of equal length, and score matching."""
    tuned = pl.col("MaP") & pl.col("base").str.starts_with("tuned") & ~pl.col("dataset").is_in(POINT_SETS)
    runs, longest = (kind(rows, "nll").drop_nulls("value").filter(tuned) for kind in (_runs, _longest))
    evidence = []
    alike = [*_SAME, "experiment", "profile", "recipe"]
    for run, exact in _pairs(runs.filter(method="ebflow-aml"), runs.filter(method="ebflow-ml"), alike):
        gap = _gap(run, exact)
        if gap is None:
            evidence.append(replace(_undecided(run, exact), kind="likelihood"))
            continue
        outcome = Outcome.FOR
        if gap.value <= AMORTISED * run["D"]:
            outcome = Outcome.AGAINST
        elif run["shortened"] and not exact["shortened"]:
            outcome = Outcome.OPEN
        ends = f"ebflow-aml {_nats(run)}, ebflow-ml {_nats(exact)}, a gap of {_interval(gap)} nats"
        matched = [other for other in longest.filter(family=MATCHED).to_dicts() if _alike(run, other, _SAME)]
        if matched:
            best = min(matched, key=lambda other: float(other["value"]))
            ends += f"; the best score matching, {best['method']}, {_nats(best)}"
            if run["value"] > best["value"]:
                outcome = Outcome.FOR
        short = f"{_brief(run)}: {text_of(run['value'])} nats amortised, {text_of(exact['value'])} exact"
        found = _evidence(outcome, short, f"{_where(run)}: {ends}.", run, exact, *matched)
        evidence.append(replace(found, kind="likelihood"))
    return evidence


def matching(rows: pl.DataFrame) -> list[Evidence]:
    """Compare test NLL and gradient norm with matching after preprocessing and without it, all else equal."""
    norms = _runs(rows, "gradient_norm", pl.col("value").median())
    evidence = []
    for run, without in _crossed(_runs(rows, "nll"), "MaP"):
        name = f"{_where(run)}, {run['method']}, {'with' if run['EMA'] else 'without'} EMA"
        if run["value"] is None or without["value"] is None:
            which, failed = ("with", run) if run["value"] is None else ("without", without)
            text = f"{name}: nothing to compare, as it {failed['status']} {which} MaP ({failed['reason']})."
            short = f"{_brief(run)}: {run['method']} {failed['status']} {which} MaP"
            evidence.append(_evidence(Outcome.OPEN, short, text, run, without))
            continue
        gap = without["value"] - run["value"]
        text = f"{name}: {_nats(run)} with MaP, {_nats(without)} without, {gap:+,.0f} nats"
        enough = gap >= GAP * run["D"]
        own, other = _same(norms, run), _same(norms, without)
        if own and other:
            text += f"; median gradient norm {text_of(own['value'])} with, {text_of(other['value'])} without"
            enough = enough and other["value"] >= NORMS * own["value"]
        outcome = _decide(gap > 0, run, without)
        if outcome is Outcome.FOR and not enough:
            outcome = Outcome.PARTLY
        short = f"{_brief(run)}: {gap:+,.0f} nats without MaP ({run['method']})"
        evidence.append(_evidence(outcome, short, f"{text}.", run, without))
    return evidence


def averaging(rows: pl.DataFrame) -> list[Evidence]:
    """Compare test NLL with averaged weights and without them, all else equal."""
    evidence = []
    for run, without in _crossed(_runs(rows, "nll").drop_nulls("value"), "EMA"):
        gain = without["value"] - run["value"]
        which = f"{run['method']}, {'with' if run['MaP'] else 'without'} MaP"
        ends = f"{_nats(run)} with EMA, {_nats(without)} without, a gain of {text_of(gain)} nats"
        short = f"{_brief(run)}: {text_of(gain)} nats gained ({which})"
        text = f"{_where(run)}, {which}: {ends}."
        evidence.append(_evidence(_decide(gain > 0, run, without), short, text, run, without))
    return evidence


def matrices(rows: pl.DataFrame) -> list[Evidence]:
    """Compare the NLL of full matrices with triangular and LU ones, on the data that the paper takes for it."""
    runs = _longest(rows, "nll").filter(dataset="multimodal10", architecture="multimodal")
    restricted = runs.filter(pl.col("method").str.contains(r"^ebflow-(upper|lower|lu)-ml$")).sort("value")
    fits = _runs(rows, "kl")
    evidence = []
    for run, other in _pairs(runs.filter(method="ebflow-full-ml"), restricted, _SAME):
        gap = text_of(other["value"] - run["value"])
        ends = f"full matrices {_nats(run)}, {other['linear']} {_nats(other)}, {gap} nats more"
        outcome = _decide(other["value"] > run["value"], run, other)
        divergences = [found["value"] for one in (run, other) if (found := _same(fits, one))]
        if divergences and min(divergences) > FITTED * run["D"]:
            outcome = Outcome.OPEN
            ends += f"; both are far from the data, at a KL divergence of {text_of(min(divergences))} nats at best"
        short = f"{gap} nats more with {other['linear']}"
        evidence.append(_evidence(outcome, short, f"{_where(run)}: {ends}.", run, other))
    return evidence


def glow(rows: pl.DataFrame) -> list[Evidence]:
    """Compare the test NLL of Glow on MNIST in pixel space with the published one."""
    (bar,) = published.likelihood().filter(dataset="mnist", architecture="glow")["published_nll"]
    runs = _longest(rows, "nll").filter("MaP", pl.col("method") != "gaussian", dataset="mnist", architecture="glow")
    evidence = []
    for run in runs.sort("value").to_dicts():
        outcome = Outcome.OPEN
        if run["family"] == MATCHED and run["value"] <= bar + PARITY * run["D"]:
            outcome = Outcome.FOR
        elif run["family"] == MATCHED and not run["shortened"]:
            outcome = Outcome.AGAINST
        text = f"{_where(run)}: {run['method']} {_nats(run)}, published {text_of(bar)} by score matching."
        evidence.append(_evidence(outcome, f"{text_of(run['value'])} nats by {run['method']}", text, run))
    return evidence


def points(rows: pl.DataFrame) -> list[Evidence]:
    """Compare KL and Fisher divergence of score matching on 2-D sets with maximum likelihood."""
    fishers = _runs(rows, "fisher")
    evidence = []
    for run, rival in _beside_likelihood(_longest(rows, "kl").filter(pl.col("dataset").is_in(POINT_SETS))):
        gap = _gap(run, rival)
        if gap is None:
            evidence.append(_undecided(run, rival))
            continue
        text = f"{_where(run)}: KL of {run['method']} {_nats(run)}, of {rival['method']} {_nats(rival)}"
        own, other = _same(fishers, run), _same(fishers, rival)
        if own and other:
            text += f"; Fisher divergence {text_of(own['value'])} and {text_of(other['value'])}"
        short = (
            f"{_brief(run)}: KL {text_of(run['value'])} by {run['method']}, {text_of(rival['value'])} by "
            f"{rival['method']}"
        )
        found = _evidence(_decide(gap.value <= PARITY * run["D"], run, rival), short, f"{text}.", run, rival)
        evidence.append(replace(found, kind=f"{run['dataset']} {run['objective']}"))
    return evidence


def _runs(rows: pl.DataFrame, metric: str, of_a_cell: pl.Expr = _MEAN) -> pl.DataFrame:
    """Return one row a training, averaged over its seeds, with what tells trainings apart.

    The columns are `_RUN`, value (None where no seed has one), seeds (their values by seed, as a list of structs), lost
    (the number of seeds without a value), cells, objective, linear, family, steps, shortened, status and reason. The
    values of one cell become one by `of_a_cell`.
    """
    steps = rows.filter(metric="training_iterations").select("cell", "method", steps="value")
    shared = pl.col("objective", "linear", "family", "shortened").first()
    bad = pl.col("value").is_null()
    why = (pl.col(name).filter(bad).first().fill_null(pl.col(name).first()) for name in ("status", "reason"))
    # A training without a number has one row of the metric that it is named by, whatever is asked for.
    asked = (pl.col("metric") == metric) | ((pl.col("metric") == "nll") & (pl.col("status") != "ok"))
    return (
        rows.filter(asked, kind="likelihood")
        .group_by([*_RUN, "cell"], maintain_order=True)
        .agg(of_a_cell, shared, pl.col("seed", "status", "reason").first())
        .join(steps, on=["cell", "method"], how="left")
        .group_by(_RUN, maintain_order=True)
        .agg(
            *(_MEAN, pl.col("cell").alias("cells"), pl.col("steps").max(), shared, *why),
            *(pl.struct("seed", "value").alias("seeds"), bad.sum().alias("lost")),
        )
        .with_columns(pl.col("seeds").list.len().alias("number"))
        .sort(*_LONGEST, *_RUN, descending=[False, True, True, *[False] * len(_RUN)], nulls_last=True)
    )


def _longest(rows: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Keep one training a network, base recipe, method, EMA and MaP: a whole one if there is one, else the longest.

    Of several the one with most seeds is kept.
    """
    return _runs(rows, metric).drop_nulls("value").unique(_KIND, keep="first", maintain_order=True).sort(_KIND)


def _beside_likelihood(runs: pl.DataFrame) -> Iterator[tuple[_Training, _Training]]:
    """Pair each objective of score matching with the strongest maximum likelihood, on one network by one recipe.

    Both have dense layers. Of an objective the library that ends lowest counts.
    """
    best = runs.filter(linear="dense").sort("value", "method")
    rivals = best.filter(pl.col("family").is_in(LIKELIHOOD_OF_DENSE)).unique(_SAME, keep="first", maintain_order=True)
    own = best.filter(family=MATCHED).unique([*_SAME, "objective"], keep="first", maintain_order=True)
    order = ["steps", *_SAME, "method"]  # the longest first, and a plain activation before a residual one
    own = own.sort(order, descending=[name != "residual" for name in order], nulls_last=True)
    return _pairs(own, rivals, _SAME)


def _crossed(runs: pl.DataFrame, switch: str) -> Iterator[tuple[_Training, _Training]]:
    """Pair each run with the one of its experiment that differs in a switch alone: on first, then off.

    Where a network and method have several such pairs, the longest training counts.
    """
    same = [name for name in _RUN if name != switch]
    off = runs.filter(~pl.col(switch))
    on = runs.filter(switch).join(off, on=same, how="semi", nulls_equal=True, maintain_order="left")
    on = on.unique(_KIND, keep="first", maintain_order=True)
    return _pairs(on.sort("steps", descending=True, nulls_last=True, maintain_order=True), off, same)


def _pairs(own: pl.DataFrame, others: pl.DataFrame, equal: list[str]) -> Iterator[tuple[_Training, _Training]]:
    """Yield each training with each of the others that is equal in these columns."""
    for run, other in itertools.product(own.to_dicts(), others.to_dicts()):
        if _alike(run, other, equal):
            yield run, other


def _alike(run: _Training, other: _Training, names: list[str]) -> bool:
    return all(run[name] == other[name] for name in names)


def _decide(on_par: bool, run: _Training, rival: _Training) -> Outcome:
    """Weigh a comparison: a training that loses it may still improve if it was cut short.

    One that was cut short after fewer steps than the winner took has not been heard.
    """
    if not on_par:
        return Outcome.OPEN if run["shortened"] else Outcome.AGAINST
    if rival["shortened"]:
        return Outcome.OPEN if (rival["steps"] or 0) < (run["steps"] or 0) else Outcome.PARTLY
    return Outcome.FOR


def _gap(run: _Training, rival: _Training) -> Estimate | None:
    """Return the mean difference over the seeds that both have, with its interval; None if nothing can be said."""
    ours, theirs = ({one["seed"]: one["value"] for one in training["seeds"]} for training in (run, rival))
    common = sorted(ours.keys() & theirs.keys())
    if not common or run["lost"] or rival["lost"]:
        return None
    return paired_difference([ours[seed] for seed in common], [theirs[seed] for seed in common]).estimate


def _undecided(run: _Training, rival: _Training) -> Evidence:
    """Say why two trainings are not compared: a seed is lost, or they have none in common."""
    lost = [one for one in (run, rival) if one["lost"]]
    which = [
        f"{one['lost']} of {len(one['seeds'])} seeds of {one['method']} {one['status']} ({one['reason']})"
        for one in lost
    ]
    why = "; ".join(which) or f"{run['method']} and {rival['method']} have no seed in common"
    return _evidence(Outcome.OPEN, f"{_brief(run)}: {why}", f"{_where(run)}: {why}.", run, rival)


def _interval(gap: Estimate) -> str:
    if gap.low is None or gap.high is None:
        return f"{gap.value:+,.2f}"
    return f"{gap.value:+,.2f} ({gap.low:+,.2f} to {gap.high:+,.2f}, {gap.n} seeds)"


def _evidence(outcome: Outcome, short: str, text: str, *runs: _Training) -> Evidence:
    if any(run["lost"] for run in runs):
        outcome = Outcome.OPEN
    return Evidence(outcome, short, text, keys(*(run["cells"] for run in runs)))


def _same(runs: pl.DataFrame, run: _Training) -> _Training | None:
    """Return what another metric says of the same training."""
    return next((other for other in runs.to_dicts() if set(other["cells"]) == set(run["cells"])), None)


def _where(run: _Training) -> str:
    return f"{run['dataset']}, {run['architecture']}, recipe {run['base']}, {_depth(run)}{of_version(run)}"


def _brief(run: _Training) -> str:
    return f"{run['dataset']} {run['architecture']} {run['base']}, {_depth(run)}"


def _depth(run: _Training) -> str:
    return f"L = {run['L']}" + (" residual" if run["residual"] else "")


def _nats(run: _Training) -> str:
    steps = "" if run["steps"] is None else f" after {run['steps']:,.0f} steps"
    cut = ", cut short" if steps and run["shortened"] else ""
    return f"{text_of(run['value'])} nats{steps}{cut}"


def _published(run: _Training) -> str:
    numbers = published.likelihood().filter(dataset=run["dataset"], architecture=run["architecture"])
    nll = dict(numbers.select("objective", "published_nll").rows())
    own = nll.get(run["method"].removeprefix("ebflow-"))
    return "" if own is None or "ml" not in nll else f"; published {text_of(own)} and {text_of(nll['ml'])}"
