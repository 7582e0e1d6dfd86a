"""The estimate is steps times the time of a step, bounded by the budget, and nothing for what does not run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cells import ImputationCell, LikelihoodCell, RuntimeCell, estimate
from harness.cells.plan import costs, plan
from harness.methods import Problem
from harness.results import Row, Store
from harness.training.configuration import TrainingConfig

TRAINING = LikelihoodCell(
    experiment="digits",
    profile="quick",
    method="ebflow-dsm",
    problem=Problem(shape=(1, 8, 8)),
    dataset="digits",
    config=TrainingConfig(epochs=3),
    draws=1,
)


@pytest.fixture
def a_step_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "time_block", lambda call, number, device: 0.5)
    estimate._step_seconds.cache_clear()


@pytest.mark.usefixtures("a_step_takes")
def test_a_training_is_its_steps() -> None:
    # The training set of the digits makes 12 batches of 100.
    assert TRAINING.cost() == 3 * 12 * 0.5
    bounded = replace(TRAINING, config=replace(TRAINING.config, max_seconds=4.0))
    assert bounded.cost() == 4.0
    whitened = replace(TRAINING, problem=TRAINING.problem.replace(start="whitened"))
    assert whitened.cost() == 3 * 12 * 0.5
    imputation = ImputationCell(
        experiment="x",
        profile="quick",
        method=TRAINING.method,
        problem=TRAINING.problem,
        dataset="digits",
        config=TRAINING.config,
    )
    assert imputation.cost() == 3 * 12 * 0.5


@pytest.mark.usefixtures("a_step_takes")
def test_what_does_not_run_takes_no_time(tmp_path: Path, with_methods: Callable, fake_method: Callable) -> None:
    assert replace(TRAINING, method="gaussian").cost() == 0
    assert replace(TRAINING, dataset="mnist", data_dir=tmp_path).cost() == 0
    with_methods(fake_method("gone-ml", requires=("no_such_library",)))
    assert replace(TRAINING, method="gone-ml").cost() == 0


@pytest.mark.usefixtures("a_step_takes")
def test_a_timing_is_its_repetitions() -> None:
    cell = RuntimeCell(
        experiment="runtime",
        profile="custom",
        methods=("ebflow-dsm", "ebflow-ml"),
        problem=Problem(shape=(4,)),
        repeats=10,
    )
    assert cell.cost() == 2 * 25 * 0.5


@pytest.mark.usefixtures("a_step_takes")
def test_the_plan_counts_what_is_left(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    store = Store(tmp_path)
    other = replace(TRAINING, problem=TRAINING.problem.replace(seed=1))
    timing = RuntimeCell(
        experiment="figure", profile="quick", methods=("ebflow-dsm",), problem=Problem(shape=(4,)), repeats=10
    )
    cells = [TRAINING, other, timing]

    def planned(fresh: bool) -> list[tuple]:
        return plan(cells, costs(cells, store, fresh)).rows()

    assert planned(fresh=False) == [
        ("digits", 2, 2, 0, "36 s", "18 s"),
        ("figure", 1, 1, 1, "12 s", "12 s"),
        ("all", 3, 3, 1, "48 s", "18 s"),
    ]
    store.write([make_row(experiment="digits", cell=other.key())])
    assert planned(fresh=False)[0] == ("digits", 2, 1, 0, "18 s", "18 s")
    assert planned(fresh=True)[0] == ("digits", 2, 2, 0, "36 s", "18 s")
    long = replace(TRAINING, config=TrainingConfig(epochs=100_000))
    assert plan([long], costs([long], store, False)).rows() == [("digits", 1, 1, 0, "7 days", "7 days")]


def test_a_step_is_really_taken() -> None:
    estimate._step_seconds.cache_clear()
    assert 0 < TRAINING.cost() < 60
