"""Test likelihoods and divergences, over seeds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import polars as pl

from harness.paper import published
from harness.report.tables.columns import EMA, MAP, SMOOTH_NOISE, is_of_kind, of_ebflow, status
from harness.results.statistics import LEVEL, Comparison, Estimate, holm, mean_interval, paired_difference

_STRUCTURE = [
    *("method", "recipe", "dataset", "architecture", "shape", "D", "L", "B", "dtype", "device", "threads"),
    *("EMA", "MaP", "settings"),
]
"""What tells two trainings apart, seeds aside."""


_Numbered = Sequence[Mapping[tuple[int, ...], float]]


def likelihood(rows: pl.DataFrame) -> pl.DataFrame:
    """Test NLL in nats and bits/dim, over seeds, the published value beside it; empty where another table says it."""
    rows = _with_settings(rows)
    rows = rows.filter(~_has_divergence(rows), ~_is_crossed())
    table = _over_seeds(rows, "nll")
    for metric, name in [
        ("bits_per_dim", "bits/dim"),
        ("training_iterations", "steps"),
        ("training_seconds", "training s"),
    ]:
        extra = _over_seeds(rows, metric).select(*_STRUCTURE, pl.col("value").alias(name))
        table = table.join(extra, on=_STRUCTURE, how="left")
    return (
        table.join(of_ebflow(published.likelihood()), on=["dataset", "architecture", "method"], how="left")
        .pipe(_with_priors)
        .sort("dataset", "architecture", pl.coalesce("value", "prior"), nulls_last=True)
        .select(
            "dataset",
            "architecture",
            "method",
            "recipe",
            "EMA",
            "L",
            "B",
            "dtype",
            "device",
            "parameters",
            pl.col("value").alias("NLL nats"),
            "low",
            "high",
            "seeds",
            "bits/dim",
            pl.coalesce("published_nll", "prior").alias("published NLL"),
            pl.col("published_ci").alias("published +-"),
            pl.col("steps").round().cast(pl.Int64, strict=False),
            "training s",
            "status",
        )
    )


def differences(rows: pl.DataFrame) -> pl.DataFrame:
    """Test NLL of every training minus that of the best one of the same data and network, where both can be paired.

    With two common seeds or more the pairs are seeds, and the difference is one of methods. With one common seed they
    are the draws of the test noise, which all methods are scored with: the difference is then one of these two trained
    models, and says nothing of how another seed would end. Uniform and smooth noise have other draws, and are not
    compared. All differences of one set, network and noise are corrected together.
    """
    rows = _with_settings(rows).filter(pl.col("status") == "ok")
    rows = rows.with_columns(noise=SMOOTH_NOISE)
    shared = ["dataset", "architecture", "shape", "D", "dtype", "device", "noise"]
    shown = ["dataset", "architecture", "method", "recipe", "EMA", "MaP", "L", "B", "dtype", "device"]
    found = []
    for _, group in rows.group_by(shared, maintain_order=True):
        trainings = [
            (
                dict(zip(_STRUCTURE, key, strict=True)),
                _numbered(own.filter(metric="nll"), "seed"),
                _numbered(own.filter(metric="nll_of_draw"), "seed", "iteration"),
            )
            for key, own in group.filter(pl.col("metric").is_in(["nll", "nll_of_draw"])).group_by(
                _STRUCTURE, maintain_order=True
            )
        ]
        best, *others = sorted(trainings, key=lambda training: fmean(training[1].values()))
        compared = [(training[0], *_paired(training[1:], best[1:])) for training in others]
        compared = [line for line in compared if line[1].p is not None]
        corrected = holm([comparison.p for _, comparison, _ in compared])
        for p, (named, comparison, pairs) in zip(corrected, compared, strict=True):
            estimate = comparison.estimate
            verdict = "not told apart" if p >= 1 - LEVEL else "lower" if estimate.value < 0 else "higher"
            reference = f"{best[0]['method']}, {best[0]['recipe']}"
            line = (reference, *dataclasses.astuple(estimate), pairs, verdict)
            found.append((*(named[name] for name in shown), *line))
    schema = {name: rows.schema[name] for name in shown} | {
        "reference": pl.String,
        "difference nats": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "n": pl.Int64,
        "paired over": pl.String,
        "verdict": pl.String,
    }
    return pl.DataFrame(found, schema=schema, orient="row").sort("dataset", "architecture", "difference nats")


def points(rows: pl.DataFrame) -> pl.DataFrame:
    """Test NLL, KL and Fisher divergence (nats) of the synthetic sets, from their exact density."""
    rows = _with_settings(rows)
    rows = rows.filter(_has_divergence(rows))
    table = _over_seeds(rows, "kl")
    nll, fisher = (
        _over_seeds(rows, metric).select(*_STRUCTURE, pl.col("value").alias(name), _half().alias(f"{name} +-"))
        for metric, name in (("nll", "NLL nats"), ("fisher", "Fisher"))
    )
    skipped = _over_seeds(rows, "skipped_steps").select(*_STRUCTURE, pl.col("value").alias("skipped steps"))
    failures = _over_seeds(rows.filter(pl.col("status") != "ok"), "nll")
    table = (
        pl.concat([table, failures])
        .join(nll, on=_STRUCTURE, how="left")
        .join(fisher, on=_STRUCTURE, how="left")
        .join(skipped, on=_STRUCTURE, how="left")
        .sort("dataset", "value", nulls_last=True)
        .select(
            "dataset",
            "architecture",
            "method",
            "recipe",
            "L",
            "B",
            "NLL nats",
            "NLL nats +-",
            pl.col("value").alias("KL nats"),
            _half().alias("KL nats +-"),
            "Fisher",
            "Fisher +-",
            "skipped steps",
            "seeds",
            "status",
        )
    )
    # One seed has no interval of what is found once, and most trainings may skip no step: no column for them.
    optional = ("+-", "skipped steps")
    return table.select(column for column in table if not (column.name.endswith(optional) and column.count() == 0))


def ablation(rows: pl.DataFrame) -> pl.DataFrame:
    """Test NLL in nats with and without averaged weights (EMA) and matching after preprocessing (MaP).

    The gradient norm is the median over all validations of the last batch's, before clipping.
    """
    rows = _with_settings(rows)
    rows = rows.filter(~_has_divergence(rows), _is_crossed())
    norms = (
        rows.filter(metric="gradient_norm")
        .group_by(_STRUCTURE)
        .agg(pl.col("value").median().alias("gradient norm"), pl.col("value").quantile(0.9).alias("its 90 % quantile"))
    )
    steps = _over_seeds(rows, "training_iterations").select(*_STRUCTURE, pl.col("value").alias("steps"))
    return (
        _over_seeds(rows, "nll")
        .join(norms, on=_STRUCTURE, how="left")
        .join(steps, on=_STRUCTURE, how="left")
        .join(of_ebflow(published.ablation()), on=["dataset", "architecture", "method", "EMA", "MaP"], how="left")
        .sort("dataset", "architecture", "method", "recipe", "MaP", "EMA")
        .select(
            "dataset",
            "architecture",
            "method",
            "recipe",
            "EMA",
            "MaP",
            pl.col("value").alias("NLL nats"),
            "low",
            "high",
            "seeds",
            pl.col("published_nll").alias("published NLL"),
            "gradient norm",
            "its 90 % quantile",
            pl.col("steps").round().cast(pl.Int64, strict=False),
            "status",
        )
    )


def time_to_level(rows: pl.DataFrame) -> pl.DataFrame:
    """Steps and seconds of training until the validation bits/dim that the paper's figure 2(b) is read at.

    Without a published level, as for tuned recipes and peers, the row has its own numbers alone.
    """
    rows = _with_settings(rows).filter(pl.col("MaP"))
    published_levels = of_ebflow(published.time_to_level())
    levels = published_levels.select("dataset", "architecture", "level").unique()
    curve = (
        rows.filter(metric="validation_curve")
        .join(levels, on=["dataset", "architecture"])
        .with_columns(bits=pl.col("value") / (pl.col("D") * math.log(2)))
        .sort("iteration")
    )
    keys = [*_STRUCTURE, "seed", "level"]
    reached = curve.filter(pl.col("bits") <= pl.col("level")).group_by(keys).agg(pl.first("iteration", "seconds"))
    return (
        curve.group_by(keys, maintain_order=True)
        .agg(pl.col("bits").min().alias("best bits/dim"), pl.col("iteration").max().alias("steps in all"))
        .join(reached, on=keys, how="left", maintain_order="left")
        .join(published_levels, on=["dataset", "architecture", "method", "level"], how="left")
        .sort("dataset", "architecture", "recipe", "method", "seed", "level", maintain_order=True)
        .select(
            "dataset",
            "architecture",
            "method",
            "recipe",
            "seed",
            pl.col("level").alias("bits/dim"),
            pl.col("iteration").alias("steps to it"),
            pl.col("seconds").alias("seconds to it"),
            pl.col("published_steps").alias("published steps (10 %)"),
            (3600 * pl.col("published_hours")).alias("published seconds (GPU)"),
            "best bits/dim",
            "steps in all",
        )
    )


def curves(rows: pl.DataFrame) -> pl.DataFrame:
    """Validation NLL in nats where training started to be watched, at its best, and at its end: whether it rises.

    Beside it the objective's own loss, where it was watched.
    """
    rows = _with_settings(rows).sort("iteration")
    watched = [*_STRUCTURE, "seed"]
    losses = rows.filter(metric="validation_loss").select(*watched, "iteration", loss="value")
    rows = rows.filter(metric="validation_curve").join(
        losses, on=[*watched, "iteration"], how="left", maintain_order="left"
    )
    first, last = pl.col("value").first(), pl.col("value").last()
    at_best = pl.col("iteration").sort_by("value").first()
    table = (
        rows.group_by(watched, maintain_order=True)
        .agg(
            pl.col("iteration").first().alias("from step"),
            first.alias("NLL there"),
            pl.col("value").min().alias("best"),
            at_best.alias("at step"),
            last.alias("last"),
            pl.col("iteration").last().alias("last step"),
            pl.col("loss").first().alias("loss there"),
            pl.col("loss").last().alias("last loss"),
        )
        .filter(pl.col("from step") < pl.col("last step"))
        .sort("dataset", "architecture", "method", "recipe", "MaP", "EMA", "seed", maintain_order=True)
        .drop("shape", "D", "L", "B", "dtype", "device", "threads", "settings")
    )
    return table if table["last loss"].count() else table.drop("loss there", "last loss")


def _with_priors(table: pl.DataFrame) -> pl.DataFrame:
    """Add other people's published numbers for the networks of the table, in a column of their own."""
    shown = table.select("dataset", "architecture").unique()
    priors = (
        published.priors().join(shown, on=["dataset", "architecture"], how="semi").rename({"published_nll": "prior"})
    )
    return pl.concat([table, priors.with_columns(recipe=pl.lit("published"))], how="diagonal")


def _is_crossed() -> pl.Expr:
    """Whether a row's method was trained without MaP too: `ablation` shows those, `likelihood` all others."""
    return (~pl.col("MaP")).any().over("method", "dataset", "architecture")


def _has_divergence(rows: pl.DataFrame) -> pl.Expr:
    """Whether a row is of a set whose exact density is known: `points` shows those, and no other table does."""
    return pl.col("dataset").is_in(rows.filter(metric="kl")["dataset"].unique().to_list())


def _with_settings(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of trainings, with what their configuration says of EMA and MaP, and all of it but the seed."""
    return rows.filter(is_of_kind("LikelihoodCell")).with_columns(
        EMA=EMA, MaP=MAP, settings=pl.col("config").map_elements(_without_seed, return_dtype=pl.String)
    )


def _without_seed(config: str) -> str:
    content = json.loads(config)
    content["problem"].pop("seed")
    return json.dumps(content)


def _numbered(rows: pl.DataFrame, *columns: str) -> dict[tuple[int, ...], float]:
    """Values by what numbers them."""
    return {tuple(numbers): value for *numbers, value in rows.select(*columns, "value").iter_rows()}


def _paired(own: _Numbered, best: _Numbered) -> tuple[Comparison, str]:
    """Compare over common seeds, or over the draws of the one common seed; the pairs' name."""
    (seeds, draws), (best_seeds, best_draws) = own, best
    common = sorted(seeds.keys() & best_seeds.keys())
    if len(common) >= 2:
        return paired_difference([seeds[key] for key in common], [best_seeds[key] for key in common]), "seeds"
    common = sorted(draws.keys() & best_draws.keys())
    if not common:
        return Comparison(Estimate(0.0, None, None, 0), None), "none"
    return paired_difference([draws[key] for key in common], [best_draws[key] for key in common]), "draws"


def _half() -> pl.Expr:
    """Half of the width of an interval of a mean, which is symmetric."""
    return (pl.col("high") - pl.col("low")) / 2


def _over_seeds(rows: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Average one metric over seeds, with a t-interval from two seeds on; one seed keeps its own interval."""
    good = pl.col("status") == "ok"
    interval = pl.Struct({"value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "n": pl.Int64})
    over_seeds = pl.col("values").map_elements(
        lambda values: dataclasses.asdict(mean_interval(values.to_list())) if len(values) else None,
        return_dtype=interval,
    )
    single = pl.col("seeds") == 1
    return (
        rows.filter(metric=metric)
        .group_by(_STRUCTURE, maintain_order=True)
        .agg(
            pl.col("value").filter(good).alias("values"),
            pl.col("ci_low", "ci_high").filter(good).first(),
            good.sum().cast(pl.Int64).alias("seeds"),
            pl.col("parameters").max(),
            status().unique(maintain_order=True).str.join("; "),
        )
        .with_columns(over_seeds.alias("estimate"))
        .select(
            *_STRUCTURE,
            pl.col("estimate").struct.field("value"),
            pl.when(single).then("ci_low").otherwise(pl.col("estimate").struct.field("low")).alias("low"),
            pl.when(single).then("ci_high").otherwise(pl.col("estimate").struct.field("high")).alias("high"),
            "seeds",
            "parameters",
            "status",
        )
    )
