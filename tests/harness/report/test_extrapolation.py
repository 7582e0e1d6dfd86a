"""Trainings cut short of their recipe: curves of known laws, and curves that tell nothing of their end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness.report.publish import pages
from harness.report.tables.extrapolation import extrapolation
from harness.results import Row, to_frame
from harness.results.derived import derived

STEPS = 500  # an epoch of MNIST's 50,000 training samples in batches of 100
AGE = sum(0.95**-epoch for epoch in range(50))  # the first 50 epochs, in epochs at the final learning rate
Curve = Callable[[np.ndarray], np.ndarray]


@pytest.fixture
def trained(make_row: Callable[..., Row]) -> Callable[..., list[Row]]:
    """The rows of the published training of the cnn on MNIST, cut to some epochs, whose validation NLL is a curve."""

    def make(curve: Curve, epochs: int, *, noise: float = 0.0, nll: float | None = None, **changes: Any) -> list[Row]:
        config = {"schedule": "steps", "decay": 0.95, "decay_epochs": 50, "ema_decay": 0.999}
        origin = {"recipe": "paper", "shortened": True} | changes.pop("origin", {})
        settings = {"config": config | changes.pop("config", {}), "preprocess": changes.pop("preprocess", True)}
        written = {"identity": {"kind": "likelihood"}, "settings": settings, "origin": origin}
        columns = {"experiment": "table2-mnist-cnn", "method": "ebflow-dsm", "objective": "dsm", "dataset": "mnist"}
        columns |= {"architecture": "cnn", "shape": "1x28x28", "D": 784, "L": 6, "unit": "nats", "ci_low": None}
        columns |= {"ci_high": None, "recipe": f"paper, {epochs} of 1,000 epochs", "config": json.dumps(written)}
        columns |= changes
        drawn, errors = np.random.default_rng(0).normal(size=epochs), np.zeros(epochs)
        for epoch in range(1, epochs):
            errors[epoch] = 0.8 * errors[epoch - 1] + 0.6 * noise * drawn[epoch]
        values = (curve(np.arange(1.0, epochs + 1)) + errors).tolist()
        points = [
            make_row(**columns, metric="validation_curve", value=value, iteration=STEPS * epoch)
            for epoch, value in enumerate(values, 1)
        ]
        ended = {"value": min(values) + 2 if nll is None else nll, "metric": "nll"}
        return [*points, make_row(**{**columns, **ended})]

    return make


def lines(*trainings: list[Row]) -> list[dict[str, Any]]:
    return extrapolation(derived(to_frame([row for training in trainings for row in training]))).to_dicts()


def power_since_the_start(epochs: np.ndarray) -> np.ndarray:
    return 1100 + 80 * (epochs / 50) ** -0.7


def power_of_learning_rates(epochs: np.ndarray) -> np.ndarray:
    return 1100 + 80 * ((epochs - 50 + AGE).clip(1) / AGE) ** -1.5


def exponential(epochs: np.ndarray) -> np.ndarray:
    return 1100 + 40 * np.exp(-(epochs - 50) / 120)


def settled(epochs: np.ndarray) -> np.ndarray:
    return 1100 + 40 * np.exp(-(epochs - 50) / 20)


LAWS = [power_since_the_start, power_of_learning_rates, exponential, settled]


@pytest.mark.parametrize("curve", LAWS)
@pytest.mark.parametrize(("epochs", "noise"), [(100, 0.05), (100, 0.2), (300, 0.2)])
def test_the_known_end_of_a_curve_is_inside(
    curve: Curve, epochs: int, noise: float, trained: Callable[..., list[Row]]
) -> None:
    (line,) = lines(trained(curve, epochs, noise=noise))
    truth = curve(np.array([1000.0]))[0] + 2
    assert line["low"] <= min(truth, line["NLL nats"])
    assert line["high"] >= min(truth, line["NLL nats"])
    assert line["low"] <= line["NLL there"] <= line["high"] <= line["NLL nats"]
    assert line["high"] - line["low"] < (1000 - epochs) / epochs * 15
    assert (line["epochs"], line["published epochs"]) == (epochs, 1000)


def test_a_longer_training_tells_more(trained: Callable[..., list[Row]]) -> None:
    (short,), (long,) = (lines(trained(exponential, epochs, noise=0.2)) for epochs in (100, 300))
    assert long["high"] - long["low"] < (short["high"] - short["low"]) / 3


def test_the_published_value_stands_beside(trained: Callable[..., list[Row]]) -> None:
    (line,) = lines(trained(power_of_learning_rates, 100))
    assert (line["published NLL"], line["published +-"], line["published NLL inside"]) == (1109.5, 2.4, True)
    (line,) = lines(trained(lambda epochs: exponential(epochs) + 200, 300))
    assert (line["published NLL"], line["published NLL inside"]) == (1109.5, False)
    snf = {"origin": {"recipe": "snf"}, "config": {"decay": 1.0, "ema_decay": None}, "architecture": "fc", "L": 2}
    (line,) = lines(trained(exponential, 300, **snf))
    assert (line["published epochs"], line["published NLL"], line["published NLL inside"]) == (2000, None, None)


def test_a_miss_of_a_hindcast_widens_every_interval(trained: Callable[..., list[Row]]) -> None:
    def escaping(epochs: np.ndarray) -> np.ndarray:
        return exponential(epochs) - 15 * (epochs > 88)

    calm = trained(exponential, 100, noise=0.2)
    wild = trained(escaping, 100, noise=0.2, method="ebflow-ssm", objective="ssm", cell="f" * 16)
    (alone,), (beside, escaped) = lines(calm), lines(calm, wild)
    assert alone["hindcasts inside"] == beside["hindcasts inside"] == "3 of 3"
    assert escaped["hindcasts inside"] == "1 of 3"
    assert beside["low"] < alone["low"] - 15
    assert (beside["NLL there"], beside["high"]) == (alone["NLL there"], alone["high"])


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": {"shortened": False}},
        {"origin": {"recipe": "of another version"}},
        {"config": {"decay_epochs": 120}},
        {"config": {"schedule": "cosine"}},
        {"config": {"decay": "?"}},
        {"preprocess": False},
        {"architecture": "new"},
        {"dataset": "new"},
        {"curve": lambda epochs: 1100 + epochs / 10},
        {"curve": lambda epochs: 1100 + 0 * epochs},
        {"curve": lambda epochs: exponential(epochs) * 1e300},
        {"epochs": 85},
        {"epochs": 1000},
    ],
)
def test_what_tells_nothing_of_its_end_has_no_line(changes: dict[str, Any], trained: Callable[..., list[Row]]) -> None:
    assert len(lines(trained(exponential, 100))) == 1
    assert lines(trained(**{"curve": exponential, "epochs": 100, **changes})) == []


def test_a_diverged_training_has_no_line(trained: Callable[..., list[Row]]) -> None:
    *curve, nll = trained(exponential, 100)
    frame = derived(to_frame([*curve, nll])).with_columns(
        status=pl.when(metric="nll").then(pl.lit("diverged")).otherwise("status"),
        value=pl.when(pl.col("metric") != "nll").then("value"),
    )
    assert extrapolation(frame).is_empty()


def test_the_page_says_how_the_interval_is_made(trained: Callable[..., list[Row]]) -> None:
    frame = derived(to_frame(trained(exponential, 100)))
    (page,) = (page for page in pages(frame) if page.name.endswith("extrapolation"))
    assert "published NLL inside" in page.text()
    assert "nothing of other seeds" in page.text()
    assert page.cells == [("0123456789abcdef",)]
