"""The estimate is steps times the time of a step, bounded by the budget, and nothing for what does not run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cells import ImputationCell, LikelihoodCell, RuntimeCell, estimate
from harness.methods import Problem
from harness.results import Row, Store, cell_key
from harness.training.configuration import TrainingConfig

TRAINING = LikelihoodCell(
    "digits", "quick", "ebflow-dsm", Problem(shape=(1, 8, 8)), "digits", TrainingConfig(epochs=3), draws=1
)


@pytest.fixture
def a_step_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "time_block", lambda call, number, device: 0.5)
    estimate._step.cache_clear()


@pytest.mark.usefixtures("a_step_takes")
def test_a_training_is_its_steps() -> None:
    # The training set of the digits makes 12 batches of 100.
    assert estimate.seconds(TRAINING) == 3 * 12 * 0.5
    bounded = replace(TRAINING, config=replace(TRAINING.config, max_seconds=4.0))
    assert estimate.seconds(bounded) == 4.0
    whitened = replace(TRAINING, problem=TRAINING.problem.replace(start="whitened"))
    assert estimate.seconds(whitened) == 3 * 12 * 0.5
    imputation = ImputationCell("x", "quick", TRAINING.method, TRAINING.problem, "digits", TRAINING.config)
    assert estimate.seconds(imputation) == 3 * 12 * 0.5


@pytest.mark.usefixtures("a_step_takes")
def test_what_does_not_run_takes_no_time(tmp_path: Path, with_methods: Callable, fake_method: Callable) -> None:
    assert estimate.seconds(replace(TRAINING, method="gaussian")) == 0
    assert estimate.seconds(replace(TRAINING, dataset="mnist", data_dir=tmp_path)) == 0
    with_methods(fake_method("gone-ml", requires=("no_such_library",)))
    assert estimate.seconds(replace(TRAINING, method="gone-ml")) == 0


@pytest.mark.usefixtures("a_step_takes")
def test_a_timing_is_its_repetitions() -> None:
    cell = RuntimeCell("runtime", "custom", ("ebflow-dsm", "ebflow-ml"), Problem(shape=(4,)), repeats=10)
    assert estimate.seconds(cell) == 2 * 25 * 0.5


@pytest.mark.usefixtures("a_step_takes")
def test_the_plan_counts_what_is_left(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    store = Store(tmp_path)
    other = replace(TRAINING, problem=TRAINING.problem.replace(seed=1))
    timing = RuntimeCell("figure", "quick", ("ebflow-dsm",), Problem(shape=(4,)), repeats=10)
    cells = [TRAINING, other, timing]

    def plan(fresh: bool) -> list[tuple]:
        return estimate.plan(cells, estimate.costs(cells, store, fresh)).rows()

    assert plan(fresh=False) == [
        ("digits", 2, 2, 0, "36 s", "18 s"),
        ("figure", 1, 1, 1, "12 s", "12 s"),
        ("all", 3, 3, 1, "48 s", "18 s"),
    ]
    store.write([make_row(experiment="digits", cell=cell_key(other.identity()))])
    assert plan(fresh=False)[0] == ("digits", 2, 1, 0, "18 s", "18 s")
    assert plan(fresh=True)[0] == ("digits", 2, 2, 0, "36 s", "18 s")
    long = replace(TRAINING, config=TrainingConfig(epochs=100_000))
    planned = estimate.plan([long], estimate.costs([long], store, False))
    assert planned.rows() == [("digits", 1, 1, 0, "7 days", "7 days")]


def test_a_step_is_really_taken() -> None:
    estimate._step.cache_clear()
    assert 0 < estimate.seconds(TRAINING) < 60
