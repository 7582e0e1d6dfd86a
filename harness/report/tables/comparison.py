"""Which timings may be compared, and which method is faster by the rule of `harness.results.statistics`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import polars as pl

from harness.errors import unknown
from harness.report.tables.columns import COMPILED, TORCH, is_noisy
from harness.results import DRIFT_METRIC
from harness.results.statistics import LEVEL, NOISY_DRIFT, Comparison, Estimate, apart, holm, paired_ratio

SETTING = ("B", "dtype", "device", "threads", "cpu", "gpu", "torch", "commit")
"""What has to be the same before two timings of one problem are compared."""

PLACE = ("architecture", "shape", "D", "L", *SETTING)
"""Where timings of different methods are compared: a problem and a setting."""

ACROSS = tuple(name for name in SETTING if name != "torch")
"""Which of the settings a user may ask to compare across."""


def newest(rows: pl.DataFrame, *others: str) -> pl.DataFrame:
    """Rows of the newest run alone, of each method in each place, `with_setting`.

    Runs of different commits are in different places.

    Args:
        rows: In `harness.results.SCHEMA`.
        others: More columns that tell two runs apart.
    """
    return (
        with_setting(rows)
        .sort("started_at", maintain_order=True)
        .filter(pl.col("cell") == pl.col("cell").last().over("experiment", "profile", "method", *PLACE, *others))
    )


def with_setting(rows: pl.DataFrame) -> pl.DataFrame:
    """Add the columns of a setting; what was compiled is another method, and named so."""
    return rows.with_columns(
        method=pl.when(COMPILED).then(pl.col("method") + " (compiled)").otherwise("method"),
        compiled=COMPILED,
        commit=_short(pl.col("commit")),
        torch=TORCH,
    )


def compare_across(rows: pl.DataFrame, columns: Collection[str]) -> pl.DataFrame:
    """Let timings that differ in some settings be compared: where a setting differs, the method's name says it instead.

    Args:
        rows: In `harness.results.SCHEMA`.
        columns: Names among `ACROSS`.

    Raises:
        InputError: A name is not among them.
    """
    texts = {
        "B": pl.format("B = {}", "B"),
        "threads": pl.format("{} threads", "threads"),
        "commit": _short(pl.col("commit")),
    }
    timed = pl.col("cell").is_in(
        rows.filter(pl.col("metric").str.starts_with("seconds_per"))["cell"].unique().to_list()
    )
    for column in columns:
        if column not in ACROSS:
            raise unknown("setting to compare across", column, ACROSS)
        if rows.filter(timed)[column].n_unique() > 1:
            named = pl.format("{} ({})", "method", texts.get(column, pl.col(column)).fill_null(f"no {column}"))
            rows = rows.with_columns(method=pl.when(timed).then(named).otherwise("method"))
        rows = rows.with_columns(pl.when(timed).then(None).otherwise(column).alias(column))
    return rows


def comparisons(rows: pl.DataFrame) -> pl.DataFrame:
    """Every method against the fastest ML method with any dense matrix, and against the fastest ML method at all.

    Both were timed in one place; where in one run, repetition by repetition, the ratio is paired and has an interval
    with the number of its pairs. All comparisons of one place are corrected together. Where there are no pairs, as in
    runs of older versions, two methods differ if their own intervals do not overlap and no machine was noisy.

    Args:
        rows: What `newest` returns.

    Returns:
        A line for each method and each of ``against``: dense ML, any ML; ``verdict`` is faster, slower or not told
        apart.
    """
    fine = rows.filter(pl.col("status") == "ok")
    repetitions: dict[tuple[str, str], dict[int, float]] = {}
    for cell, method, number, value in (
        fine.filter(metric="seconds_of_repetition").select("cell", "method", "iteration", "value").iter_rows()
    ):
        repetitions.setdefault((cell, method), {})[number] = value
    found = []
    timings = fine.filter(metric="seconds_per_iteration").with_columns(noisy=is_noisy())
    for place, group in timings.group_by(*PLACE, "compiled", maintain_order=True):
        timed = group.sort("value").to_dicts()
        pairs = list(_pairs(timed))
        compared = {(own["method"], rival["method"]): _ratio(own, rival, repetitions) for own, _, rival in pairs}
        tested = {key: comparison.p for key, comparison in compared.items() if comparison.p is not None}
        corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
        for own, against, rival in pairs:
            key = own["method"], rival["method"]
            ratio = compared[key].estimate
            different = corrected[key] < 1 - LEVEL if key in corrected else _apart(own, rival)
            verdict = "not told apart" if not different else "faster" if ratio.value < 1 else "slower"
            line = (ratio.value, ratio.low, ratio.high, ratio.n if key in corrected else None, verdict)
            found.append((*place, own["method"], own["linear"], against, rival["method"], *line))
    kept = (*PLACE, "compiled", "method", "linear")
    schema = {name: rows.schema[name] for name in kept} | {
        "against": pl.String,
        "reference": pl.String,
        "ratio": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "n": pl.Int64,
        "verdict": pl.String,
    }
    return pl.DataFrame(found, schema=schema, orient="row")


def ratios(rows: pl.DataFrame) -> pl.DataFrame:
    """Seconds an iteration as a multiple of a reference's in the same run; empty for runs that kept no repetitions."""
    return (
        comparisons(newest(rows))
        .filter(pl.col("n").is_not_null())
        .unique([*PLACE, "method", "reference"], keep="first", maintain_order=True)
        .sort("architecture", *SETTING, "L", "D", "reference", "ratio", nulls_last=True)
        .select(
            "method", "linear", "architecture", "L", "D", *SETTING, "reference", "ratio", "low", "high", "n", "verdict"
        )
    )


def noise(rows: pl.DataFrame) -> list[str]:
    """The sentence that tables of timings need below them where some are marked as noisy."""
    rows = newest(rows)
    noisy = rows.filter(is_noisy())["cell"].unique().to_list()
    if not noisy:
        return []
    worst = rows.filter(pl.col("cell").is_in(noisy), pl.col("metric") == DRIFT_METRIC)["value"].max()
    return [
        f"* noisy: the machine's reference product drifted up to {worst:.2f}-fold during the run, where "
        f"{NOISY_DRIFT:.2f} is let pass: ratios within a run hold, but to trust the times measure them again (--fresh) "
        "on an idle machine"
    ]


def _pairs(timed: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, dict[str, Any]]]:
    """Each method with what it is compared against; given from the fastest on."""
    likelihood = [line for line in timed if line["objective"] == "ml"]
    for against, rivals in (
        ("dense ML", [line for line in likelihood if line["linear"] == "dense"]),
        ("any ML", likelihood),
    ):
        for own in timed:
            rival = next((line for line in rivals if line["method"] != own["method"]), None)
            if rival is not None:
                yield own, against, rival


def _ratio(
    own: dict[str, Any], rival: dict[str, Any], repetitions: dict[tuple[str, str], dict[int, float]]
) -> Comparison:
    """Paired where one run has repetitions of both, or else the ratio of the medians alone."""
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
    """Eight digits of a commit, and its + where files differed."""
    return commit.str.replace(r"^([0-9a-f]{8})[0-9a-f]*", "$1")
