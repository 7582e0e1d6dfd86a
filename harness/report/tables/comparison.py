"""Which timings may be compared, and which method is faster by the rule of `harness.results.statistics`."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import polars as pl

from harness.errors import unknown
from harness.methods.families import EXACT, LIKELIHOOD
from harness.report.tables.columns import is_noisy
from harness.results import DRIFT_METRIC
from harness.results.statistics import LEVEL, NOISY_DRIFT, Comparison, Estimate, apart, holm, paired_ratio

SETTING = ("B", "dtype", "device", "threads", "cpu", "gpu", "torch", "commit")
"""What has to be the same before two timings of one problem are compared."""

PLACE = ("architecture", "shape", "D", "L", *SETTING)
"""Where timings of different methods are compared: a problem and a setting."""

ACROSS = tuple(name for name in SETTING if name != "torch")
"""The settings that a user may ask to compare across."""


def newest(rows: pl.DataFrame, *others: str) -> pl.DataFrame:
    """Keep the rows of the newest run of each method in each place, named by `with_setting`.

    Runs of different commits are in different places. Other columns may tell two runs apart too.
    """
    return (
        with_setting(rows)
        .sort("started_at", maintain_order=True)
        .filter(pl.col("cell") == pl.col("cell").last().over("experiment", "profile", "method", *PLACE, *others))
    )


def with_setting(rows: pl.DataFrame) -> pl.DataFrame:
    """Shorten commits, and name a compiled or replayed method so: it is compared as another method."""
    named = pl.when("compiled").then(pl.format("{} ({})", "method", "launch")).otherwise("method")
    return rows.with_columns(method=named, commit=_short(pl.col("commit")))


def compare_across(rows: pl.DataFrame, columns: Collection[str]) -> pl.DataFrame:
    """Let timings that differ in some settings be compared: where a setting differs, the method's name says it instead.

    The settings become null in the rows of timings. What was a dtype stays in the column ``number_dtype``.

    Raises:
        InputError: if the name of a setting is not among `ACROSS`.
    """
    texts = {
        "B": pl.format("B = {}", "B"),
        "threads": pl.format("{} threads", "threads"),
        "commit": _short(pl.col("commit")),
    }
    timed = pl.col("metric").str.starts_with("seconds_per").any().over("cell")
    for column in columns:
        if column not in ACROSS:
            raise unknown("setting to compare across", column, ACROSS)
        if column == "dtype":
            rows = rows.with_columns(number_dtype="dtype")
        if rows.filter(timed)[column].n_unique() > 1:
            named = pl.format("{} ({})", "method", texts.get(column, pl.col(column)).fill_null(f"no {column}"))
            rows = rows.with_columns(method=pl.when(timed).then(named).otherwise("method"))
        rows = rows.with_columns(pl.when(timed).then(None).otherwise(column).alias(column))
    return rows


def comparisons(rows: pl.DataFrame) -> pl.DataFrame:
    """Compare every method with the fastest exact ML of dense matrices, and with the fastest method of ML at all.

    Exact ML computes a determinant or an inverse at every step; ML at all are the methods of every family that
    maximises the likelihood. Both were timed in one place; where in one run, repetition by repetition, the ratio is
    paired and has an interval with the number of its pairs. Which method is the fastest is found from the same
    numbers, so all pairs of a method and one of ML are corrected together, whichever is shown. Where there are no
    pairs, as in runs of older versions, two methods differ if their own intervals do not overlap and no machine was
    noisy.

    Args:
        rows: Rows as `newest` returns them.

    Returns:
        One line for each method and each value of ``against`` (exact ML, any ML), with the ratio of the seconds, its
        interval, and ``verdict``: faster, slower or not told apart.
    """
    fine = rows.filter(pl.col("status") == "ok")
    repetitions = {
        key: dict(own.select("iteration", "value").rows())
        for key, own in fine.filter(metric="seconds_of_repetition").drop_nulls("iteration").group_by("cell", "method")
    }
    lines = []
    timings = fine.filter(metric="seconds_per_iteration").with_columns(noisy=is_noisy())
    for place, group in timings.group_by(*PLACE, "launch", maintain_order=True):
        timed = group.sort("value").to_dicts()
        compared = _all_ratios(timed, repetitions)
        tested = {key: comparison.p for key, comparison in compared.items() if comparison.p is not None}
        corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
        for own, against, rival in _shown(timed):
            key = own["method"], rival["method"]
            ratio = compared[key].estimate
            p = corrected.get(key, corrected.get(key[::-1]))
            different = p < 1 - LEVEL if p is not None else _apart(own, rival)
            verdict = "not told apart" if not different else "faster" if ratio.value < 1 else "slower"
            names = (own["method"], own["linear"], against, rival["method"], verdict)
            lines.append((*place, *names, None if p is None else ratio.n, ratio.value, ratio.low, ratio.high))
    schema = {name: rows.schema[name] for name in (*PLACE, "launch", "method", "linear")}
    schema |= dict.fromkeys(("against", "reference", "verdict"), pl.String()) | {"n": pl.Int64()}
    schema |= dict.fromkeys(("ratio", "low", "high"), pl.Float64())
    return pl.DataFrame(lines, schema=schema, orient="row")


def ratios(rows: pl.DataFrame) -> pl.DataFrame:
    """Return seconds an iteration as a multiple of a reference's in the same run, where a run kept repetitions."""
    shown = ("method", "linear", "architecture", "L", "D", *SETTING, "reference", "ratio", "low", "high", "n")
    return (
        comparisons(newest(rows))
        .filter(pl.col("n").is_not_null())
        .unique([*PLACE, "method", "reference"], keep="first", maintain_order=True)
        .sort("architecture", *SETTING, "L", "D", "reference", "ratio", nulls_last=True)
        .select(*shown, "verdict")
    )


def noise(rows: pl.DataFrame) -> list[str]:
    """Return the sentence that stands below tables of timings of which some are marked as noisy."""
    rows = newest(rows)
    noisy = rows.filter(is_noisy())["cell"].unique().to_list()
    if not noisy:
        return []
    drifts = rows.filter(pl.col("cell").is_in(noisy), pl.col("metric") == DRIFT_METRIC)["value"].drop_nulls()
    by = f" up to {max(drifts):.2f}-fold" if len(drifts) else ""
    return [
        f"A star marks noisy times: the machine's reference product drifted{by} in the run, more than the "
        f"{NOISY_DRIFT:.2f}-fold that is let pass. Ratios within a run hold; for times to trust, measure again with "
        "--fresh on an idle machine"
    ]


def _shown(timed: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, dict[str, Any]]]:
    """Yield each method with what it is compared against, from lines that are sorted from the fastest on."""
    for against, families in (("exact ML", (EXACT,)), ("any ML", LIKELIHOOD)):
        rivals = [line for line in timed if line["family"] in families]
        for own in timed:
            rival = next((line for line in rivals if line["method"] != own["method"]), None)
            if rival is not None:
                yield own, against, rival


def _all_ratios(
    timed: list[dict[str, Any]], repetitions: dict[Any, dict[int, float]]
) -> dict[tuple[str, str], Comparison]:
    """Compare every method with every one that maximises the likelihood; a pair of two such is tested once."""
    compared: dict[tuple[str, str], Comparison] = {}
    for own, rival in itertools.product(timed, timed):
        key = own["method"], rival["method"]
        if own["method"] != rival["method"] and rival["family"] in LIKELIHOOD:
            ratio = _ratio(own, rival, repetitions)
            compared[key] = replace(ratio, p=None) if key[::-1] in compared else ratio
    return compared


def _ratio(own: dict[str, Any], rival: dict[str, Any], repetitions: dict[Any, dict[int, float]]) -> Comparison:
    """Return the paired ratio where one run has repetitions of both methods, or else that of the medians alone."""
    if own["cell"] == rival["cell"]:
        ours, theirs = (repetitions.get((line["cell"], line["method"]), {}) for line in (own, rival))
        common = sorted(ours.keys() & theirs.keys())
        if common:
            return paired_ratio([ours[number] for number in common], [theirs[number] for number in common])
    return Comparison(Estimate(own["value"] / rival["value"], None, None, 0), None)


def _apart(own: dict[str, Any], rival: dict[str, Any]) -> bool:
    estimates = [Estimate(line["value"], line["ci_low"], line["ci_high"], line["n"] or 0) for line in (own, rival)]
    return not (own["noisy"] or rival["noisy"]) and apart(*estimates)


def _short(commit: pl.Expr) -> pl.Expr:
    """Return eight digits of a commit, and its + where files differed from it."""
    return commit.str.replace(r"^([0-9a-f]{8})[0-9a-f]*", "$1")
