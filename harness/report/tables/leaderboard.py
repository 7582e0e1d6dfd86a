"""The leaderboard: the best training of every method on every dataset, mean ranks, and performance profiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from harness import datasets
from harness.paper import published
from harness.report.tables.columns import STAR, is_disturbed, with_stars
from harness.report.tables.text import text_of, to_markdown
from harness.report.tables.trainings import STRUCTURE, over_seeds, with_metrics
from harness.results.schema import BETTER_THAN_TRUTH
from harness.results.store import load_results

GAPS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Gaps to the best NLL, in nats a dimension, at which the performance profile is read."""

FACTORS = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Multiples of the shortest time at which the performance profile is read."""

NOTES = (
    "A line is the best training of a method on a dataset: the recipe and architecture with the lowest validation NLL. "
    "The test NLL chooses nothing.",
    "The interval is a 95 % t-interval over seeds. Where there is one seed it is over draws of the test noise, "
    "or over test samples if they get none.",
    "A dataset has trainings of one version of this project, the one in which most methods were trained, with uniform "
    "noise on grey levels, and of the full length of their recipe. Trainings of the quick profile stand only on a "
    "dataset that has no full one, and the column length says so. A training that an option shortened is left out, and "
    "so are experiments that change the recipe's depth or activation, which they do for few methods.",
    "A rank is a method's place by test NLL among the methods with a number on the dataset. NLLs that are equal to "
    "0.001 nats share the mean of their places. The mean rank is over the datasets that have two ranked methods or "
    "more; what a method was not trained on does not count. Methods with fewer than half of the datasets stand below "
    "the others. Neighbours are often not told apart: the tables of differences test them.",
    "Seconds to 1 % are the seconds of training until the validation NLL was at most b + 0.01 |b|, where b is the "
    "lowest final validation NLL of any ranked method on the dataset; the median over seeds, of which one that never "
    "comes there counts as infinite. The size of 1 % depends on the units of the data.",
    "A performance profile is the share of a method's datasets on which it comes within a gap of the best test NLL, or "
    "within a factor of the shortest time to 1 % on the same machine. A training that failed or diverged is within "
    "none.",
    f"A method whose NLL is {BETTER_THAN_TRUTH} is shown and not ranked. Filters hide lines; no filter changes a rank.",
)
"""How the numbers of the leaderboard come about, a sentence or more each."""

_GROUP = ["dataset", "data", "project"]
_MACHINE = ["dataset", "device", "cpu", "gpu", "threads"]
_FACTS = ["objective", "linear", "family", "project", "cpu", "gpu", "length"]
_COLUMNS = ["dataset", "D", "length", "rank", "ranked", "method", "family", "architecture", "recipe", "nll"]
_COLUMNS += ["low", "high", "interval", "seeds", "validation_nll", "gap", "training_seconds", "noisy"]
_COLUMNS += ["seconds_to_best", "reached", "time_factor", "peak_memory", "status", "objective", "linear", "project"]
_COLUMNS += ["device", "threads", "cpu", "gpu", "cells"]
_SHOWN = ["dataset", "length", "rank", "method", "family", "recipe", "architecture", "nll", "low", "high", "interval"]
_SHOWN += ["seeds", "training_seconds", "noisy", "seconds_to_best", "peak_memory", "status"]


def leaderboard(folder: Path | str) -> pl.DataFrame:
    """Return the leaderboard of a results folder, one line for each dataset and method.

    The columns are those of `entries`.

    Raises:
        InputError: if the folder holds no results.
    """
    return entries(load_results(folder))


def entries(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the best training of every method on every dataset, chosen by validation NLL, as `NOTES` explain.

    Args:
        rows: Rows with the columns of `harness.results.derived`.

    Returns:
        A frame sorted by dataset and rank. ``nll`` is the mean test NLL in nats over ``seeds``, ``low`` and ``high``
        bound its 95 % interval, which is over what ``interval`` says (seeds, draws or samples). ``rank`` is the place
        among the ``ranked`` methods of the dataset. ``gap`` is the distance to the best NLL in nats a dimension,
        infinite where the training failed. ``training_seconds`` mean little where ``noisy`` is true.
        ``seconds_to_best`` is infinite where a training never came within 1 % of the best validation NLL, and null
        where no curve was kept; ``reached`` is false and null there. ``time_factor`` is its multiple of the shortest
        one on the same machine, ``peak_memory`` is in bytes, ``length`` is full or quick, and ``cells`` are the keys.
    """
    rows = _compared(rows)
    facts = rows.group_by(STRUCTURE).agg(
        pl.col(_FACTS).first(),
        marked=pl.col("reason").str.contains(BETTER_THAN_TRUTH, literal=True).any(),
        drawn=(pl.col("metric") == "nll_of_draw").any(),
        failed=pl.col("status").is_in(["diverged", "failed"]).any(),
        noisy=pl.col("disturbed").any(),
        cells=pl.col("cell").unique(maintain_order=True),
    )
    others = {name: name for name in ("validation_nll", "training_seconds", "peak_memory")}
    board = (
        with_metrics(over_seeds(rows, "nll"), rows, others)
        .join(facts, on=STRUCTURE, how="left", nulls_equal=True, maintain_order="left")
        .rename({"value": "nll"})
        .sort(pl.col("nll").is_null(), "validation_nll", *STRUCTURE, nulls_last=True)
        .unique(["dataset", "method"], keep="first", maintain_order=True)
    )
    counts = pl.col("nll").is_not_null() & ~pl.col("marked")
    place = pl.when(counts).then(pl.col("nll").round(3))
    best, level = (pl.when(counts).then(name).min().over("dataset") for name in ("nll", "validation_nll"))
    lost = pl.col("nll").is_null() & pl.col("failed")
    several = pl.when(pl.col("seeds") > 1).then(pl.lit("seeds"))
    over = pl.when("drawn").then(pl.lit("draws")).otherwise(pl.lit("samples"))
    board = board.with_columns(
        rank=place.rank("average").over("dataset"),
        ranked=place.count().over("dataset").cast(pl.Int64),
        gap=pl.when(lost).then(math.inf).when(counts).then((pl.col("nll") - best) / pl.col("D")),
        interval=pl.coalesce(several, pl.when(pl.col("low").is_not_null()).then(over)),
        level=level + 0.01 * level.abs(),
    )
    seconds = pl.col("seconds_to_best")
    shortest = pl.when(counts).then(seconds).min().over(_MACHINE)
    factor = pl.when(lost).then(math.inf).when(counts).then(seconds / shortest)
    return (
        board.join(_seconds_to_level(rows, board), on=STRUCTURE, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(reached=seconds.is_finite(), time_factor=pl.when(shortest.is_finite()).then(factor))
        .sort("dataset", "rank", "nll", "method", nulls_last=True)
        .select(_COLUMNS)
    )


def _compared(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep the trainings that may stand beside each other on a dataset, each once, with the column length."""
    varied = pl.col("other_network") & (pl.col("experiment") != "train")
    own = rows.with_columns(disturbed=is_disturbed()).filter(
        pl.col("smooth_noise").is_null(), ~varied, kind="likelihood"
    )
    scored = (pl.col("metric") == "nll") & (pl.col("status") == "ok")
    full = ~pl.col("shortened").fill_null(False)
    has_full = (full & scored & (pl.col("objective") != "closed-form")).any().over("dataset")
    own = own.with_columns(
        length=pl.when(has_full).then(pl.lit("full")).otherwise(pl.lit("quick")),
        data=pl.col("training").str.json_path_match("$.data"),  # what tells two files of one name apart
    ).filter(pl.when(has_full).then(full).otherwise(pl.col("profile") == "quick"))
    methods = pl.col("method").filter(scored).n_unique().alias("methods")
    versions = own.group_by(_GROUP, maintain_order=True).agg(methods, pl.col("started_at").max().alias("last"))
    chosen = versions.sort("methods", "last").unique("dataset", keep="last", maintain_order=True)
    return own.join(chosen, on=_GROUP, how="semi", nulls_equal=True, maintain_order="left")


def _seconds_to_level(rows: pl.DataFrame, board: pl.DataFrame) -> pl.DataFrame:
    """Return the median over seeds of the seconds at which the validation NLL first was at most the board's level."""
    curve = rows.filter(metric="validation_curve", status="ok").join(
        board.select(*STRUCTURE, "level").drop_nulls("level"), on=STRUCTURE, nulls_equal=True, maintain_order="left"
    )
    first = pl.col("seconds").filter(pl.col("value") <= pl.col("level")).min().fill_null(math.inf)
    seeds = curve.group_by(*STRUCTURE, "seed").agg(first.alias("seconds_to_best"))
    return seeds.group_by(STRUCTURE).agg(pl.col("seconds_to_best").median())


def standings(board: pl.DataFrame) -> pl.DataFrame:
    """Return one line a method: its mean rank, over how many datasets, and its test NLL in nats on each dataset.

    The argument has lines of `entries`.
    """
    ranks = pl.col("rank").filter(pl.col("ranked") > 1)
    means = board.group_by("method", maintain_order=True).agg(
        pl.col("family").first(), ranks.mean().alias("mean rank"), ranks.count().cast(pl.Int64).alias("datasets")
    )
    digits = pl.when(pl.col("nll").abs() < 10).then(3).otherwise(2)
    text = pl.struct("nll", "low", "high", "rank", digits=digits).map_elements(_with_interval, return_dtype=pl.String)
    for dataset in sorted(board["dataset"].unique()):
        own = board.filter(dataset=dataset).select("method", text.alias(f"{dataset}, nats"))
        means = means.join(own, on="method", how="left", maintain_order="left")
    return means.sort(_has_few(), "mean rank", "method", nulls_last=True)


def _has_few() -> pl.Expr:
    """Return whether a method has fewer than half as many datasets as another one, which makes its means say little."""
    return 2 * pl.col("datasets") < pl.col("datasets").max()


def _with_interval(line: dict[str, float | None]) -> str | None:
    nll, low, high, digits = (line[name] for name in ("nll", "low", "high", "digits"))
    if nll is None:
        return None
    text = f"{nll:,.{digits}f}"
    if low is not None and high is not None and high - low > 1e-9 * abs(nll):  # draws without noise are all alike
        text += f" ± {(high - low) / 2:,.{digits}f}"
    return text if line["rank"] is not None else f"{text} (not ranked)"


def profile(board: pl.DataFrame, column: str, limits: Sequence[float]) -> pl.DataFrame:
    """Return the percentage of a method's datasets on which a column of `entries` is at most each limit.

    Only datasets with two ranked methods or more are counted. Methods with few of them come last.

    Args:
        board: Lines of `entries`.
        column: ``gap`` or ``time_factor``.
        limits: The limits, each the name of a column of the result.
    """
    within = [(100.0 * (pl.col(column) <= limit).mean()).round().cast(pl.Int64).alias(f"{limit:g}") for limit in limits]
    counted = board.filter(pl.col("ranked") > 1).drop_nulls(column)
    table = counted.group_by("method").agg(pl.col("family").first(), pl.len().cast(pl.Int64).alias("datasets"), *within)
    shares = [-pl.col(f"{limit:g}") for limit in limits]
    return table.sort(_has_few(), *shares, "method")


def lines(board: pl.DataFrame) -> pl.DataFrame:
    """Return the lines of `entries` as people read them, with other people's published numbers between them."""
    never = pl.when(~pl.col("reached")).then(pl.lit("never"))
    seconds = pl.col("seconds_to_best").map_elements(text_of, return_dtype=pl.String)
    rank = pl.concat_str("rank", pl.lit(" of "), "ranked").str.replace(".0 of", " of", literal=True)
    names = {"nll": "NLL nats", "training_seconds": "training s", "noisy": "training s" + STAR}
    shown = board.with_columns(
        rank, seconds_to_best=never.otherwise(seconds), peak_memory=pl.col("peak_memory") / 2**20
    ).select(_SHOWN)
    shown = with_stars(shown.rename({**names, "seconds_to_best": "s to 1 %", "peak_memory": "peak MiB"}))
    theirs = published_numbers().join(board, on="dataset", how="semi").with_columns(recipe=pl.lit("published"))
    return pl.concat([shown, theirs], how="diagonal").sort("dataset", "NLL nats", nulls_last=True, maintain_order=True)


def published_numbers() -> pl.DataFrame:
    """Return the test NLLs in nats that other people published: dataset, architecture, method and ``NLL nats``.

    Log-likelihoods in logit space are left out: no NLL of this project is in that space.
    """
    scores = []
    for score in published.tabular() + published.images():
        method = f"{score.method} ({score.paper})"
        if score.unit == "nats":
            scores.append((score.dataset, None, method, -score.value))
        elif score.unit == "bits/dim" and score.dataset in datasets.names():
            dimension = math.prod(datasets.shape(score.dataset))
            scores.append((score.dataset, None, method, score.value * dimension * math.log(2)))
    priors = published.priors().rename({"published_nll": "NLL nats"})
    return pl.concat([priors, pl.DataFrame(scores, schema=priors.schema, orient="row")])


def tables(board: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the tables of the leaderboard with their titles, all but those that nothing fills."""
    titled = (
        ("Mean rank, and test NLL in nats with 95 % interval", standings(board)),
        ("The best training of every method on every dataset", lines(board)),
        ("Percentage of datasets within a gap of the best NLL, nats a dimension", profile(board, "gap", GAPS)),
        ("Percentage of datasets within a factor of the shortest time", profile(board, "time_factor", FACTORS)),
    )
    return ((title, frame) for title, frame in titled if not frame.is_empty())


def text(rows: pl.DataFrame) -> str:
    """Return the leaderboard in Markdown; nothing if no row fills it."""
    board = entries(rows)
    if board.is_empty():
        return ""
    parts = [f"### {title}\n\n{to_markdown(frame)}" for title, frame in tables(board)]
    return "\n\n".join(["## Leaderboard", *parts, *NOTES]) + "\n"
