"""The estimate is steps, bounded by the budget, and scored samples; it is nothing for what does not run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cells import ImputationCell, LikelihoodCell, NormalizerCell, RuntimeCell, estimate
from harness.cells.plan import costs, plan, telling_first
from harness.datasets import splits
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
def a_step_takes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(estimate, "_timed", lambda *_: estimate.Pace(0.5, 0.001))
    estimate._pace.cache_clear()
    yield
    estimate._pace.cache_clear()


@pytest.mark.usefixtures("a_step_takes")
def test_a_training_is_its_steps() -> None:
    # The training set of the digits makes 12 batches of 100. Validation is scored after the last epoch, and its own
    # loss is looked at; the test is scored once.
    _, validation, test = splits("digits")
    look, scoring = validation * 0.001 + validation / 100 * 0.5, test * 0.001
    assert TRAINING.cost() == pytest.approx(3 * 12 * 0.5 + look + scoring)
    assert TRAINING.closing_cost() == pytest.approx(scoring)
    likelihood = replace(TRAINING, method="ebflow-ml")
    assert likelihood.cost() == pytest.approx(3 * 12 * 0.5 + validation * 0.001 + scoring)
    often = replace(TRAINING, config=replace(TRAINING.config, evaluate_every=1), draws=2)
    assert often.cost() == pytest.approx(3 * 12 * 0.5 + 3 * look + 2 * scoring)
    bounded = replace(often, config=replace(often.config, max_seconds=8.0))
    assert bounded.cost() == pytest.approx(8.0 + 2 * look + 2 * scoring)  # of two epochs
    whitened = replace(TRAINING, problem=TRAINING.problem.replace(start="whitened"))
    assert whitened.cost() == TRAINING.cost()
    imputation = ImputationCell(
        experiment="x",
        profile="quick",
        method=TRAINING.method,
        problem=TRAINING.problem,
        dataset="digits",
        config=TRAINING.config,
    )
    chains = 3 * 600 * 5 * 1000 * 0.001
    assert imputation.cost() == pytest.approx(3 * 12 * 0.5 + look + chains)


@pytest.mark.usefixtures("a_step_takes")
def test_what_does_not_run_takes_no_time(tmp_path: Path, with_methods: Callable, fake_method: Callable) -> None:
    assert replace(TRAINING, dataset="mnist", data_dir=tmp_path).cost() == 0
    with_methods(fake_method("gone-ml", requires=("no_such_library",)))
    assert replace(TRAINING, method="gone-ml").cost() == 0


def test_a_timing_is_its_repetitions_and_tries_no_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_timed", lambda *_: pytest.fail("a method was tried"))
    cell = RuntimeCell(
        experiment="runtime",
        profile="custom",
        methods=("ebflow-dsm", "ebflow-ml"),
        problem=Problem(shape=(4,)),
        repeats=10,
    )
    assert cell.cost() > 0
    assert replace(cell, methods=cell.methods[:1]).cost() == pytest.approx(cell.cost() / 2)
    large, larger = (replace(cell, problem=Problem(shape=(size,))).cost() for size in (1600, 3200))
    assert 4 < larger / large < 8  # between a product of the batch and a determinant


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
        ("digits", 2, 2, 0, "40 s", "20 s"),
        ("figure", 1, 1, 1, "1 s", "1 s"),
        ("all", 3, 3, 1, "41 s", "20 s"),
    ]
    store.write([make_row(experiment="digits", cell=other.key())])
    assert planned(fresh=False)[0] == ("digits", 2, 1, 0, "20 s", "20 s")
    assert planned(fresh=True)[0] == ("digits", 2, 2, 0, "40 s", "20 s")
    long = replace(TRAINING, config=TrainingConfig(epochs=100_000))
    assert plan([long], costs([long], store, False)).rows() == [("digits", 1, 1, 0, "7 days", "7 days")]


def test_curves_come_first_from_their_ends_inwards_and_trainings_by_seed() -> None:
    timings = [
        RuntimeCell(experiment=name, profile="x", methods=("ebflow-dsm",), problem=Problem(shape=(D,)), repeats=1)
        for name, sizes in (("a", (1, 2, 3, 4, 5, 6)), ("b", (10, 20)))
        for D in sizes
    ]
    trainings = [
        replace(TRAINING, method=method, problem=TRAINING.problem.replace(seed=seed))
        for method in ("ebflow-dsm", "ebflow-ml")
        for seed in (0, 1)
    ]
    ordered = telling_first([*trainings, *timings])
    assert [cell.problem.dimension for cell in ordered[:8]] == [6, 20, 1, 10, 3, 4, 2, 5]
    replayed = [replace(cell, config=TrainingConfig(cuda_graphs=True)) for cell in timings[:6]]
    sides = telling_first([*timings[:6], *replayed])  # plain steps and replayed ones are curves of their own
    assert [cell.problem.dimension for cell in sides] == [6, 6, 1, 1, 3, 3, 4, 4, 2, 2, 5, 5]
    told = [(cell.problem.seed, cell.method) for cell in ordered[8:] if isinstance(cell, LikelihoodCell)]
    assert told == [(0, "ebflow-dsm"), (0, "ebflow-ml"), (1, "ebflow-dsm"), (1, "ebflow-ml")]


def test_a_step_is_really_taken() -> None:
    estimate._pace.cache_clear()
    assert 0 < TRAINING.cost() < 60
    assert 0 < replace(TRAINING, method="gaussian", problem=TRAINING.problem.replace(layers=1)).cost() < 60


def test_log_z_is_its_draws() -> None:
    cell = NormalizerCell(experiment="log-z", profile="quick", problem=Problem(shape=(4,)))
    assert 0 < cell.cost() < 60
