"""Test likelihoods and divergences, over seeds."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any, NamedTuple

import polars as pl
import polars.selectors as cs

from harness.paper import published
from harness.report.tables.columns import STAR, half_width, is_disturbed, of_ebflow, status
from harness.results.statistics import LEVEL, Comparison, Estimate, holm, mean_interval, paired_difference

_NETWORK = ("dataset", "architecture", "method", "recipe")
STRUCTURE = [*_NETWORK, "shape", "D", "L", "B", "dtype", "device", "threads", "EMA", "MaP", "training"]
"""What tells two trainings apart, seeds aside."""

_LEVELS = [("mnist", "fc", 985 / (784 * math.log(2))), ("mnist", "cnn", 960 / (784 * math.log(2)))]
"""Levels of validation bits/dim beyond the paper's, 985 and 960 nats, that well-trained networks reach."""

_STEPS = pl.col("steps").round().cast(pl.Int64, strict=False)


class _Scored(NamedTuple):
    """The test NLLs of one training: what tells it apart, and its values by seed, and by seed and draw."""

    named: dict[str, Any]
    seeds: Mapping[int, float]
    draws: Mapping[tuple[int, int], float]


def likelihood(rows: pl.DataFrame) -> pl.DataFrame:
    """Return test NLLs in nats and bits/dim, over seeds, with the published value; empty where another table has them.

    A star marks seconds of training that mean little (`harness.report.tables.columns.is_disturbed`).

    `points` has the sets whose exact density is known, and `ablation` the methods that were trained without MaP too.
    """
    rows = rows.filter(~_has_divergence(rows), ~_is_crossed(), kind="likelihood")
    others = {"bits_per_dim": "bits/dim", "training_iterations": "steps"}
    return (
        with_metrics(over_seeds(rows, "nll"), rows, others)
        .pipe(_with_seconds, rows)
        .join(of_ebflow(published.likelihood()), on=["dataset", "architecture", "method"], how="left")
        .pipe(_with_priors)
        .sort("dataset", "architecture", pl.coalesce("value", "prior"), nulls_last=True)
        .with_columns(_STEPS, pl.coalesce("published_nll", "prior").alias("published NLL"))
        .rename({"value": "NLL nats", "published_ci": "published +-"})
        .select(
            *(*_NETWORK, "EMA", "L", "B", "dtype", "device", "parameters", "NLL nats", "low", "high", "seeds"),
            *("bits/dim", "published NLL", "published +-", "steps", "training s", "training s" + STAR, "status"),
        )
        # Draws of a test set without noise are all alike, to rounding: that is no interval.
        .with_columns(
            pl.when(pl.col("high") - pl.col("low") > 1e-9 * pl.col("NLL nats").abs()).then(end).alias(end)
            for end in ("low", "high")
        )
    )


def differences(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the test NLL of every training minus that of the best one of the same data and network, where paired.

    With two common seeds or more the pairs are seeds, and the difference is one of methods. With one common seed they
    are the draws of the test noise, which all methods are scored with: the difference is then one of these two trained
    models, and says nothing of how another seed would end. Uniform and smooth noise have other draws, and are not
    compared. Which training is best is found from the same numbers, so the differences of all pairs of one set, network
    and noise are corrected together, whichever are shown.
    """
    rows = rows.filter(kind="likelihood", status="ok").filter(pl.col("metric").is_in(["nll", "nll_of_draw"]))
    shown = [*_NETWORK, "EMA", "MaP", "L", "B", "dtype", "device"]
    lines = []
    shared = ["dataset", "architecture", "shape", "D", "dtype", "device", "smooth_noise", "project"]
    for _, group in rows.group_by(shared, maintain_order=True):
        every = (_scored(key, own) for key, own in group.group_by(STRUCTURE, maintain_order=True))
        trainings = [training for training in every if training.seeds]
        trainings.sort(key=lambda training: fmean(training.seeds.values()))
        compared = {
            (first, second): _paired(trainings[second], trainings[first])
            for first, second in itertools.combinations(range(len(trainings)), 2)
        }
        tested = {pair: comparison.p for pair, (comparison, _) in compared.items() if comparison.p is not None}
        corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
        for (first, second), p in corrected.items():
            if first > 0:
                continue
            comparison, over = compared[first, second]
            verdict = "not told apart" if p >= 1 - LEVEL else "lower" if comparison.estimate.value < 0 else "higher"
            reference = "{method}, {recipe}, L = {L}".format(**trainings[0].named)
            names = [*(trainings[second].named[name] for name in shown), reference]
            lines.append((*names, *dataclasses.astuple(comparison.estimate), over, verdict))
    schema: dict[str, pl.DataType] = {name: rows.schema[name] for name in shown} | {"reference": pl.String()}
    schema |= dict.fromkeys(("difference nats", "low", "high"), pl.Float64())
    schema |= {"n": pl.Int64(), "paired over": pl.String(), "verdict": pl.String()}
    return pl.DataFrame(lines, schema=schema, orient="row").sort("dataset", "architecture", "difference nats")


def points(rows: pl.DataFrame) -> pl.DataFrame:
    """Return test NLL, KL and Fisher divergence (nats) of the synthetic sets, from their exact density."""
    rows = rows.filter(pl.col("kind") == "likelihood", _has_divergence(rows))
    scored = pl.concat([over_seeds(rows, "kl"), over_seeds(rows.filter(pl.col("status") != "ok"), "nll")])
    others = {"nll": "NLL nats", "fisher": "Fisher", "skipped_steps": "skipped steps"}
    table = (
        with_metrics(scored, rows, others)
        .sort("dataset", "value", nulls_last=True)
        .with_columns(half_width().alias("KL nats +-"))
        .rename({"value": "KL nats"})
        .select(
            *(*_NETWORK, "L", "B", "dtype", "NLL nats", "NLL nats +-", "KL nats", "KL nats +-", "Fisher", "Fisher +-"),
            *("skipped steps", "seeds", "status"),
        )
    )
    # One seed has no interval of what is measured once, and most trainings skip no step: no column for them.
    optional = ("+-", "skipped steps")
    return table.select(column for column in table if not (column.name.endswith(optional) and column.count() == 0))


def ablation(rows: pl.DataFrame) -> pl.DataFrame:
    """Return test NLLs in nats with and without averaged weights (EMA) and matching after preprocessing (MaP).

    The gradient norm is the median over all validations of the last batch's norm, before clipping.
    """
    rows = rows.filter(~_has_divergence(rows), _is_crossed(), kind="likelihood")
    norm = pl.col("value").median().alias("gradient norm"), pl.col("value").quantile(0.9).alias("its 90 % quantile")
    norms = rows.filter(metric="gradient_norm").group_by(STRUCTURE).agg(norm)
    return (
        with_metrics(over_seeds(rows, "nll"), rows, {"training_iterations": "steps"})
        .join(norms, on=STRUCTURE, how="left", nulls_equal=True)
        .join(of_ebflow(published.ablation()), on=["dataset", "architecture", "method", "EMA", "MaP"], how="left")
        .sort(*_NETWORK, "MaP", "EMA")
        .rename({"value": "NLL nats", "published_nll": "published NLL"})
        .select(
            *(*_NETWORK, "EMA", "MaP", "NLL nats", "low", "high", "seeds", "published NLL", "gradient norm"),
            *("its 90 % quantile", _STEPS, "status"),
        )
    )


def time_to_level(rows: pl.DataFrame) -> pl.DataFrame:
    """Return steps and seconds of training until levels of validation bits/dim; a star marks seconds that mean little.

    Where nothing is published the columns of published values are empty.
    """
    return reached_levels(rows).select(
        *(*_NETWORK, "EMA", "L", "seed", "bits/dim", "steps to it", "seconds to it", "seconds to it" + STAR),
        *("published steps (10 %)", "published seconds (GPU)", "best bits/dim", "steps in all"),
    )


def reached_levels(rows: pl.DataFrame) -> pl.DataFrame:
    """Return what `time_to_level` shows, and all of `STRUCTURE`, which tells trainings of one recipe's name apart.

    The levels are those at which the paper's figure 2(b) is read, and for tuned recipes a lower one of our own.
    """
    published_levels = of_ebflow(published.time_to_level())
    levels = published_levels.select("dataset", "architecture", "level").unique()
    own = pl.DataFrame(_LEVELS, levels.schema, orient="row").with_columns(own=True)
    tuned = pl.col("base").str.starts_with("tuned").fill_null(False)
    curve = (
        rows.with_columns(disturbed=is_disturbed())
        .filter("MaP", kind="likelihood", metric="validation_curve")
        .join(pl.concat([levels.with_columns(own=False), own]), on=["dataset", "architecture"])
        .filter(~pl.col("own") | tuned)
        .with_columns(bits=pl.col("value") / (pl.col("D") * math.log(2)))
        .sort("iteration")
    )
    keys = [*STRUCTURE, "seed", "level"]
    reached = (
        curve.filter(pl.col("bits") <= pl.col("level"))
        .group_by(keys)
        .agg(pl.first("iteration", "seconds", "disturbed"))
    )
    return (
        curve.group_by(keys, maintain_order=True)
        .agg(pl.col("bits").min().alias("best bits/dim"), pl.col("iteration").max().alias("steps in all"))
        .join(reached, on=keys, how="left", nulls_equal=True, maintain_order="left")
        .join(published_levels, on=["dataset", "architecture", "method", "level"], how="left")
        .sort("dataset", "architecture", "recipe", "method", "seed", "level", maintain_order=True)
        .with_columns((3600 * pl.col("published_hours")).alias("published seconds (GPU)"))
        .rename({"disturbed": "seconds to it" + STAR, "published_steps": "published steps (10 %)"})
        .rename({"level": "bits/dim", "iteration": "steps to it", "seconds": "seconds to it"})
    )


def curves(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the validation NLL in nats at the first validation, at the best one and at the last one.

    Beside them stands the objective's own loss, where a training kept it.
    """
    rows = rows.filter(kind="likelihood").sort("iteration")
    watched = [*STRUCTURE, "seed"]
    losses = rows.filter(metric="validation_loss").select(*watched, "iteration", loss="value")
    rows = rows.filter(metric="validation_curve").join(
        losses, on=[*watched, "iteration"], how="left", nulls_equal=True, maintain_order="left"
    )
    table = (
        rows.group_by(watched, maintain_order=True)
        .agg(
            pl.col("iteration").first().alias("from step"),
            pl.col("value").first().alias("NLL there"),
            pl.col("value").min().alias("best"),
            pl.col("iteration").sort_by("value").first().alias("at step"),
            pl.col("value").last().alias("last"),
            pl.col("iteration").last().alias("last step"),
            pl.col("loss").first().alias("loss there"),
            pl.col("loss").last().alias("last loss"),
        )
        .filter(pl.col("from step") < pl.col("last step"))
        .sort(*_NETWORK, "MaP", "EMA", "seed", maintain_order=True)
        .select(*_NETWORK, pl.exclude(*_NETWORK, "shape", "D", *STRUCTURE[7:11], "training"))
    )
    return table if table["last loss"].count() else table.drop("loss there", "last loss")


def refreshes(rows: pl.DataFrame) -> pl.DataFrame:
    """Return how often trainings refreshed log Z, how far its kept gradient was off, and the cosine of the whole one.

    The error is relative to the exact gradient of log Z. The cosine is between the gradient of a step and what it would
    have been with the exact gradient of log Z. Both are looked at after the last step before each validation.
    """
    rows = rows.filter(kind="likelihood")
    value = pl.col("value")
    errors, cosines = (rows.filter(metric=name) for name in ("log_z_gradient_error", "gradient_cosine"))
    error = errors.group_by(STRUCTURE).agg(
        *(value.median().alias("error, median"), value.max().alias("error, largest"))
    )
    cosine = cosines.group_by(STRUCTURE).agg(
        value.median().alias("cosine, median"), value.min().alias("cosine, smallest")
    )
    return (
        with_metrics(over_seeds(rows, "steps_per_refresh"), rows, {"nll": "NLL nats"})
        .pipe(_with_seconds, rows)
        .join(error, on=STRUCTURE, how="left", nulls_equal=True)
        .join(cosine, on=STRUCTURE, how="left", nulls_equal=True)
        .sort(*_NETWORK)
        .rename({"value": "steps a refresh"})
        .select(
            *(*_NETWORK, "L", "B", "steps a refresh"),
            cs.contains("error", "cosine"),
            *("NLL nats", "training s", "training s" + STAR, "seeds"),
        )
    )


def _with_priors(table: pl.DataFrame) -> pl.DataFrame:
    """Add other people's published numbers for the networks of the table, in a column of their own."""
    shown = table.select("dataset", "architecture").unique()
    priors = published.priors().join(shown, on=["dataset", "architecture"], how="semi")
    priors = priors.rename({"published_nll": "prior"}).with_columns(recipe=pl.lit("published"))
    return pl.concat([table, priors], how="diagonal")


def _is_crossed() -> pl.Expr:
    """Return whether a row's method was trained without MaP too."""
    return (~pl.col("MaP")).any().over("method", "dataset", "architecture")


def _has_divergence(rows: pl.DataFrame) -> pl.Expr:
    """Return whether a row is of a set whose exact density is known."""
    return pl.col("dataset").is_in(rows.filter(kind="likelihood", metric="kl")["dataset"].unique().to_list())


def _scored(key: Iterable[Any], own: pl.DataFrame) -> _Scored:
    """Collect the test NLLs of one training."""
    seeds = own.filter(metric="nll").select("seed", "value").rows()
    draws = own.filter(metric="nll_of_draw").drop_nulls("iteration").select("seed", "iteration", "value").rows()
    named = dict(zip(STRUCTURE, key, strict=True))
    return _Scored(named, dict(seeds), {(seed, draw): value for seed, draw, value in draws})


def _paired(own: _Scored, best: _Scored) -> tuple[Comparison, str]:
    """Compare two trainings over common seeds, or over the draws of the one common seed; say which."""
    seeds = sorted(own.seeds.keys() & best.seeds.keys())
    if len(seeds) >= 2:
        return paired_difference([own.seeds[seed] for seed in seeds], [best.seeds[seed] for seed in seeds]), "seeds"
    draws = sorted(own.draws.keys() & best.draws.keys())
    if not draws:
        return Comparison(Estimate(0.0, None, None, 0), None), "none"
    return paired_difference([own.draws[draw] for draw in draws], [best.draws[draw] for draw in draws]), "draws"


def with_metrics(table: pl.DataFrame, rows: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    """Add the means over seeds of more metrics, each under its name, and half the interval under the name and +-."""
    for metric, name in names.items():
        means = over_seeds(rows, metric)
        means = means.select(*STRUCTURE, pl.col("value").alias(name), half_width().alias(f"{name} +-"))
        table = table.join(means, on=STRUCTURE, how="left", nulls_equal=True)
    return table


def _with_seconds(table: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Add the mean seconds of training over seeds, with a star if those of one seed mean little."""
    marked = rows.with_columns(disturbed=is_disturbed()).filter(metric="training_seconds")
    marked = marked.group_by(STRUCTURE).agg(pl.col("disturbed").any().alias("training s" + STAR))
    table = with_metrics(table, rows, {"training_seconds": "training s"})
    return table.join(marked, on=STRUCTURE, how="left", nulls_equal=True)


def over_seeds(rows: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Average one metric over seeds, with a t-interval from two seeds on; one seed keeps its own interval."""
    good = pl.col("status") == "ok"
    numbers = pl.Struct({"value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "n": pl.Int64})
    estimate = pl.col("values").map_elements(
        lambda values: dataclasses.asdict(mean_interval(values.to_list())) if len(values) else None, numbers
    )
    single = pl.col("seeds") == 1
    return (
        rows.filter(metric=metric)
        .group_by(STRUCTURE, maintain_order=True)
        .agg(
            pl.col("value").filter(good).alias("values"),
            pl.col("ci_low", "ci_high").filter(good).first(),
            good.sum().cast(pl.Int64).alias("seeds"),
            pl.col("parameters").max(),
            status().unique(maintain_order=True).str.join("; "),
        )
        .with_columns(estimate.struct.unnest())
        .with_columns(pl.when(single).then(f"ci_{end}").otherwise(end).alias(end) for end in ("low", "high"))
        .select(*STRUCTURE, "value", "low", "high", "seeds", "parameters", "status")
    )
