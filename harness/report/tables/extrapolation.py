"""The test NLL that shortened trainings would end at, from laws fitted to the end of their validation curves.

Two laws are the extremes of how the remaining distance to the final NLL decays with time t: a power law, c + a t^-b
with b from 1/2 to 8, and an exponential, c + a exp(-t / tau) with tau up to twice the time that is fitted. The bound
1/2 is the worst case of stochastic gradient descent on a convex loss. The time of the power law runs since the start of
training. An epoch at a larger learning rate than the final one counts for more than one, at most for the ratio of both.

The laws are fitted to the tail, the part of the curve at the final learning rate. All laws that fit it about as well
as the best one are kept, and their predictions span an interval. No such law foresees an escape from a plateau. So the
interval is widened by hindcasts: the same fit to the first half of a tail, or to its first three quarters, predicts a
later validation that is known. The largest miss of all hindcasts of a table, below the interval or above it, widens the
intervals of all its lines. It is scaled as a random walk in the logarithm of time would grow.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from harness.datasets import DECLARATIONS
from harness.errors import InputError
from harness.paper import published
from harness.paper.configurations import configuration
from harness.paper.recipes import PUBLISHED_LAYERS
from harness.report.tables.columns import of_ebflow

_Numbers = npt.NDArray[np.float64]
_NAMES = ("dataset", "architecture", "method", "recipe", "seed")
_FEWEST = 40
"""Validations in a tail: the first hindcast is fitted to half of them."""
_HINDCASTS = ((1 / 2, 3 / 4), (1 / 2, 1.0), (3 / 4, 1.0))
"""Fractions of a tail: the part that a hindcast is fitted to, and the part whose last validation it predicts."""
_TOLERANCE = math.exp(3.84 / 5)
"""How many times the squared error of the best law that of another may be: a likelihood-ratio test at 95 %.

A tail counts as five independent observations, however long it is, because neighbouring validations err alike.
"""


class _Prediction(NamedTuple):
    """An NLL at a later epoch, in nats: the mean of the best power law and the best exponential, and its interval."""

    value: float
    low: float
    high: float


class _Tail(NamedTuple):
    """The validations of one training at its final learning rate.

    Args:
        epochs: Epochs of training before each validation.
        values: Validation NLLs in nats.
        age: Epochs at the final learning rate that are worth as much as those before the first of these validations.
    """

    epochs: _Numbers
    values: _Numbers
    age: float

    def first(self, fraction: float) -> _Tail:
        """Return the first part of the tail."""
        end = int(fraction * len(self.epochs))
        return _Tail(self.epochs[:end], self.values[:end], self.age)

    def walk(self, epoch: float) -> float:
        """Return how far a random walk in the logarithm of time gets from the end of the tail to a later epoch."""
        start = self.age - self.epochs[0]
        return math.sqrt(math.log((start + epoch) / (start + self.epochs[-1])))


def extrapolation(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the test NLLs (nats) that shortened trainings reached, and would reach after their recipe's epochs.

    A training has a line if its learning rate came to rest, if there are 40 validations since then, and if they fall.
    Its test NLL is expected to stay as far from its validation NLL as it is at the weights that were kept. It cannot
    rise any more, because the weights of the best validation are kept.
    """
    ends, misses = [], [(0.0, 0.0)]
    for cell in _curves(rows).partition_by("cell", maintain_order=True):
        row, tail = cell.row(0, named=True), _tail(cell)
        epochs = _published_epochs(row)
        if tail is None or epochs is None or epochs <= tail.epochs[-1]:
            continue
        end = _predicted(tail, epochs)
        if not end.value < tail.values.mean() or not np.isfinite(end).all():
            continue
        hindcasts = [_missed(tail.first(known), tail.first(whole)) for known, whole in _HINDCASTS]
        misses += hindcasts
        inside = f"{hindcasts.count((0.0, 0.0))} of {len(hindcasts)}"
        ends.append((row, tail, epochs, end, inside))
    below, above = (max(side) for side in zip(*misses, strict=True))
    lines = []
    for row, tail, epochs, end, inside in ends:
        low, high = end.low - below * tail.walk(epochs), end.high + above * tail.walk(epochs)
        reached = row["nll"]
        there = [min(value + reached - row["best"], reached) for value in (end.value, low, high)]
        names = [row[name] for name in (*_NAMES, "base", "EMA")]
        lines.append((*names, int(tail.epochs[-1]), reached, epochs, *there, inside))
    schema = {name: rows.schema[name] for name in (*_NAMES, "base", "EMA")}
    schema |= {"epochs": pl.Int64(), "NLL nats": pl.Float64(), "published epochs": pl.Int64()}
    schema |= {"NLL there": pl.Float64(), "low": pl.Float64(), "high": pl.Float64(), "hindcasts inside": pl.String()}
    recipe = of_ebflow(published.likelihood()).with_columns(base=pl.lit("paper"), EMA=True)
    return (
        pl.DataFrame(lines, schema=schema, orient="row")
        .join(recipe, on=["dataset", "architecture", "method", "base", "EMA"], how="left")
        .sort(_NAMES, maintain_order=True)
        .with_columns(pl.col("published_nll").is_between("low", "high").alias("published NLL inside"))
        .rename({"published_nll": "published NLL", "published_ci": "published +-"})
        .select(
            *(*_NAMES, "epochs", "NLL nats", "published epochs", "NLL there", "low", "high"),
            *("published NLL", "published +-", "published NLL inside", "hindcasts inside"),
        )
    )


def caveats(rows: pl.DataFrame) -> list[str]:
    """Return what stands below the table: how it is made, and what it cannot do."""
    return [
        "NLL there is the mean of a power law and an exponential, fitted to the validations at the final learning "
        "rate; low and high span all such laws that fit about as well, widened by the largest miss of the table's "
        "hindcasts, which are fitted to the first half or three quarters of those validations and predict a later one",
        "The column hindcasts inside counts those that hit before the intervals were widened; the intervals say "
        "nothing of other seeds, nor of an escape from a plateau that is larger than any in the table's curves",
    ]


def _curves(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the validations of shortened trainings whose test set was scored, with what tells their learning rates."""
    setting = pl.col("config").str
    return (
        rows.filter("shortened", "MaP", kind="likelihood")
        .with_columns(
            nll=pl.col("value").filter(metric="nll", status="ok").first().over("cell"),
            schedule=setting.json_path_match("$.settings.config.schedule"),
            decay=setting.json_path_match("$.settings.config.decay").cast(pl.Float64, strict=False),
            decay_epochs=setting.json_path_match("$.settings.config.decay_epochs").cast(pl.Int64, strict=False),
        )
        .filter(pl.col("nll").is_finite(), pl.col("decay_epochs") > 0, pl.col("decay").is_between(0, 1, closed="right"))
        .filter(metric="validation_curve", status="ok", schedule="steps")
        .with_columns(best=pl.col("value").min().over("cell"))
        .unique(["cell", "iteration"], keep="first", maintain_order=True)
        .sort("iteration", maintain_order=True)
    )


def _published_epochs(row: dict[str, Any]) -> int | None:
    """Return the number of epochs of a training's recipe, or None for a recipe that this version does not have."""
    names = [row[name] for name in ("dataset", "architecture", "objective", "base", "family")]
    try:
        return configuration(*names).training.epochs if row["architecture"] in PUBLISHED_LAYERS else None
    except InputError:
        return None


def _tail(curve: pl.DataFrame) -> _Tail | None:
    """Return the part of a curve with a constant learning rate, or None if it is too short or not finite."""
    row = curve.row(0, named=True)
    if row["dataset"] not in DECLARATIONS:
        return None
    steps = math.ceil(DECLARATIONS[row["dataset"]].splits[0] / row["B"])
    tail = curve.filter(pl.col("iteration") >= float(steps) * row["decay_epochs"])
    if tail.height < _FEWEST:
        return None
    epochs = tail["iteration"].to_numpy() / steps
    with np.errstate(all="ignore"):
        decaying = (np.float64(row["decay"]) ** -np.arange(row["decay_epochs"])).sum()
    values, age = tail["value"].to_numpy(), float(decaying) + epochs[0] - row["decay_epochs"]
    return _Tail(epochs, values, age) if np.isfinite([*values, age]).all() else None


def _predicted(tail: _Tail, epoch: float) -> _Prediction:
    """Predict the validation NLL (nats) at a later epoch: the mean of the tail, if that does not fall."""
    times = np.append(tail.epochs, epoch) - tail.epochs[0]
    length = times[-2]
    ages = np.geomspace(tail.epochs[0], tail.age, 5)[:, None, None]
    exponents = np.geomspace(1 / 2, 8, 120)[:, None]
    constants = length * np.geomspace(1 / 20, 2, 200)[:, None]
    power_laws = ((times + ages) / (length + ages)) ** -exponents
    with np.errstate(all="ignore"):  # of numbers near the largest one there is; then no prediction is finite
        fits = [
            _fitted(laws, tail.values)
            for laws in (power_laws.reshape(-1, len(times)), np.exp((length - times) / constants))
        ]
        best = [predictions[errors.argmin()] for predictions, errors in fits]
        predictions, errors = map(np.concatenate, zip(*fits, strict=True))
        good = predictions[errors <= errors.min() * _TOLERANCE]
        noise = 2 * np.sqrt(errors.min() / len(tail.values))
        ends = np.concatenate([good, best])
        return _Prediction(float(np.mean(best)), float(ends.min() - noise), float(ends.max() + noise))


def _fitted(laws: _Numbers, values: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Fit c + a g, a >= 0, by least squares for many laws g; return predictions at the last time and squared errors."""
    middle = laws[:, :-1].mean(1)
    shapes = laws[:, :-1] - middle[:, None]
    squares = (shapes**2).sum(1)
    mean = values.mean()
    factors = np.maximum(shapes @ (values - mean) / squares, 0)
    errors = np.maximum(((values - mean) ** 2).sum() - factors**2 * squares, 0)
    return mean + factors * (laws[:, -1] - middle), errors


def _missed(known: _Tail, whole: _Tail) -> tuple[float, float]:
    """Return how far the last validation lies below and above its prediction's interval, in nats over `_Tail.walk`."""
    epoch, truth = whole.epochs[-1], whole.values[-1]
    guess = _predicted(known, epoch)
    walk = known.walk(epoch)
    return max(guess.low - truth, 0.0) / walk, max(truth - guess.high, 0.0) / walk
