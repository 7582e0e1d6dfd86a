"""What is measured after a training fails alone: the other metrics, the file of the model and the state are kept."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from endings import quiet

from harness import load_model
from harness.cells import LikelihoodCell, base, likelihood
from harness.cells.sweep import run_cells
from harness.methods import Method, Problem
from harness.results import Row, Store
from harness.results.statistics import Estimate, mean_interval
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig
from harness.training.loop import Divergence

CELL = LikelihoodCell(
    experiment="train",
    profile="custom",
    method="fake",
    problem=Problem(shape=(1, 8, 8)),
    dataset="digits",
    config=TrainingConfig(epochs=1, evaluate_every=1),
    draws=1,
)


@pytest.fixture(autouse=True)
def _fake_is_registered(with_methods: Callable[..., None], fake_method: Callable[..., Method]) -> None:
    with_methods(fake_method(), fake_method("watched", objective="dsm"))


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: Any) -> Any:
        raise error

    return fail


def lost(rows: list[Row]) -> list[tuple[str, str, str | None]]:
    """Return metric, status and reason of the rows without a value, after a look at the others."""
    assert {row.metric for row in rows if row.status == "ok"} >= {"validation_nll", "validation_curve"}
    assert all(math.isfinite(row.value) for row in rows if row.value is not None)
    return [(row.metric, row.status, row.reason) for row in rows if row.status != "ok"]


@pytest.mark.parametrize(
    ("broken", "error", "expected"),
    [
        ("_step_bytes", MemoryError("no room"), ("peak_memory", "failed", "MemoryError: no room")),
        (
            "nll_of_test_set",
            Divergence("the test NLL is not finite"),
            ("nll", "diverged", "the test NLL is not finite"),
        ),
        ("nll_of_test_set", RuntimeError("layer 2"), ("nll", "failed", "RuntimeError: layer 2")),
    ],
)
def test_a_measurement_that_fails(
    broken: str, error: BaseException, expected: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, broken, failing(error))
    rows = CELL.run().rows
    assert lost(rows) == [expected]
    assert ("nll" in {row.metric for row in rows if row.status == "ok"}) == (expected[0] != "nll")


@pytest.mark.parametrize("name", ["kl", "fisher"])
def test_a_divergence_from_the_truth_fails_without_the_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def against_truth(which: str, *rest: Any) -> Estimate:
        return mean_interval([-math.inf, 1.0] if which == name else [1.0, 2.0])

    monkeypatch.setattr(likelihood, "_against_truth", against_truth)
    rows = CELL.run().rows
    assert lost(rows) == [(name, "failed", f"its {name} is -inf")]
    assert {"nll", "kl", "fisher"} - {name} <= {row.metric for row in rows if row.status == "ok"}


def test_an_interval_that_is_not_finite_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [1e200, -1e200, 3.0]  # whose squares overflow
    monkeypatch.setattr(likelihood, "nll_of_test_set", lambda *_: values)
    row = next(row for row in CELL.run().rows if row.metric == "nll")
    assert (row.status, row.value, row.ci_low, row.ci_high) == ("ok", pytest.approx(1.0), None, None)
    assert row.reason == "its interval is not finite"


def test_what_is_only_watched_does_not_end_a_training(
    fake_model: type, fake_method: Callable[..., Method], with_methods: Callable[..., None], monkeypatch: Any
) -> None:
    class Observed(fake_model):
        def observations(self) -> dict[str, float]:
            raise LookupError("nothing to see")

    with_methods(fake_method("observed", Observed), fake_method("watched", objective="dsm"))
    rows = replace(CELL, method="observed").run().rows
    assert lost(rows) == [("observations", "failed", "LookupError: nothing to see")]
    monkeypatch.setattr("harness.training.scoring.validation_loss", failing(ValueError("no loss")))
    assert lost(replace(CELL, method="watched").run().rows) == [("validation_loss", "failed", "ValueError: no loss")]


def test_observations_take_no_name_of_the_curve(
    fake_model: type, fake_method: Callable[..., Method], with_methods: Callable[..., None], tmp_path: Path
) -> None:
    class Observed(fake_model):
        def observations(self) -> dict[str, float]:
            return {"validation_curve": 1.0, "gradient_norm": -1.0, "own": 2.0}

    with_methods(fake_method("observed", Observed))
    rows = run_cells([replace(CELL, method="observed")], Store(tmp_path), lambda cell, there: quiet)
    assert lost(rows) == []
    values = {row.metric: row.value for row in rows}
    assert values["own"] == 2.0
    assert values["gradient_norm"] > 0


def test_a_model_that_cannot_be_written_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = replace(CELL, save=tmp_path / "model")
    assert lost(saved.run().rows) == []
    assert load_model(tmp_path / "model").description.method == "fake"
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(likelihood, "write_model", failing(full))
    assert lost(saved.run().rows) == [("saved_model", "failed", "OSError: [Errno 28] No space left on device")]


def test_a_metric_alone_has_no_training_repeated_and_a_failed_score_goes_on_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    state: list[Path] = []

    def run(cell: LikelihoodCell) -> list[Row]:
        def start(cell: Any, there: bool) -> Any:
            told.append(there)
            state[:] = [tmp_path / "checkpoints" / "train" / f"{cell.key()}.safetensors"]
            return quiet

        return run_cells([cell], Store(tmp_path), start)

    monkeypatch.setattr(TrainingCheckpoint, "due", lambda self: True)
    monkeypatch.setattr(likelihood, "_step_bytes", failing(MemoryError()))
    run(CELL)
    assert not state[0].exists()
    run(CELL)
    assert told == [False, True]
    other = replace(CELL, draws=3)
    with monkeypatch.context() as broken:
        broken.setattr(likelihood, "nll_of_test_set", failing(RuntimeError("a driver")))
        run(other)
    assert state[0].exists()  # with the whole training
    monkeypatch.setattr("harness.training.loop.Training.step", failing(AssertionError("it is trained already")))
    assert {row.status for row in run(other) if row.metric == "nll"} == {"ok"}
    assert not state[0].exists()


def test_a_cell_is_finished_by_its_main_metric(make_cell_row: Callable[..., Row]) -> None:
    good, bad = make_cell_row(0, metric="nll"), make_cell_row(0, metric="kl", status="failed", value=None, reason="x")
    assert base.is_finished(CELL, [good, bad])
    assert not base.is_finished(CELL, [replace(bad, metric="nll"), replace(good, metric="kl")])
    assert not base.is_finished(CELL, [])
