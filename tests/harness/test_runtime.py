"""Timing: who goes when, what is counted, and that nobody's failure is anybody else's. No second is asserted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness import runtime
from harness.errors import InputError
from harness.method import Method
from harness.problem import Problem
from harness.registry import registry
from harness.runtime import measure, time_block, trainer_on_noise
from harness.training import TrainingConfig

PROBLEM = Problem(shape=(3,), batch=4)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Whose block of how many steps was timed, in order; the clock says that a step takes 8 ms."""
    timed: list[tuple[str, int]] = []

    def block(step: Callable[[], Any], number: int, device: str) -> float:
        timed.append((step.__defaults__[0].model.name, number))
        return 0.008

    monkeypatch.setattr(runtime, "time_block", block)
    return timed


@pytest.fixture
def named(fake_method: Callable[..., Method], fake_model: type) -> Callable[[str], Method]:
    """Declare a method whose model knows its name."""

    def make(name: str) -> Method:
        def build(problem: Problem) -> Any:
            model = fake_model(problem)
            model.name = name
            return model

        return fake_method(name, build)

    return make


def test_methods_take_turns_in_an_order_that_rotates(
    blocks: list[tuple[str, int]], named: Callable[[str], Method]
) -> None:
    ticks: list[int] = []
    timings = measure([named(n) for n in "abc"], PROBLEM, 4, TrainingConfig(), lambda: ticks.append(len(blocks)))
    assert "".join(name for name, _ in blocks) == "abc" + "abc" + "bca" + "cab" + "abc"
    # First one step each to see how long it takes, then as many as make 20 ms.
    assert [number for _, number in blocks] == [1] * 3 + [3] * 12
    # Told after every repetition of a method.
    assert ticks == list(range(4, 16))
    assert [timing.seconds for timing in timings] == [[0.008] * 4] * 3
    assert [timing.parameters for timing in timings] == [6] * 3


def test_a_failing_method_is_reported_and_the_others_go_on(
    blocks: list[tuple[str, int]], named: Callable[[str], Method], fake_method: Callable[..., Method], fake_model: type
) -> None:
    def refuses(problem: Problem) -> Any:
        raise RuntimeError("no\n kernel")

    class NotFinite(fake_model):
        def training_loss(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
            return super().training_loss(x, generator) * float("nan")

    methods = [named("a"), fake_method("bad", refuses), fake_method("nan", NotFinite), named("b")]
    timings = measure(methods, PROBLEM, 2, TrainingConfig())
    assert [timing.failure for timing in timings] == [
        None,
        "RuntimeError: no kernel",
        "ArithmeticError: the loss is not finite during warm-up",
        None,
    ]
    assert [len(timing.seconds) for timing in timings] == [2, 0, 0, 2]
    assert "".join(name for name, _ in blocks) == "ab" + "ab" + "ba"


def test_nothing_left_to_time(fake_method: Callable[..., Method]) -> None:
    def refuses(problem: Problem) -> Any:
        raise RuntimeError("no")

    assert [t.seconds for t in measure([fake_method("bad", refuses)], PROBLEM, 3, TrainingConfig())] == [[]]


def test_a_shape_that_does_not_fit_is_the_user_s_mistake() -> None:
    problem = Problem(architecture="cnn", shape=(1, 6, 6), layers=3)
    with pytest.raises(InputError, match=r"^ebflow-ml: squeeze halves images of even height and width"):
        measure([registry().find("ebflow-ml")], problem, 1, TrainingConfig())
    with pytest.raises(InputError, match=r"^nflows-lu-ml has no cnn architecture, only fc"):
        measure([registry().find("nflows-lu-ml")], problem, 1, TrainingConfig())


def test_a_block_runs_its_steps() -> None:
    steps: list[int] = []
    seconds = time_block(lambda: steps.append(1), 5, "cpu")
    assert len(steps) == 5
    assert seconds > 0


def test_the_device_is_idle_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append(f"wait for {device}"))
    time_block(lambda: log.append("step"), 2, "cuda:1")
    assert log == ["wait for cuda:1", "step", "step", "wait for cuda:1"]


def test_the_batch_is_noise_of_the_seed(fake_method: Callable[..., Method]) -> None:
    problem = Problem(shape=(2, 3), batch=1000, dtype="float64", seed=7)
    trainer, batch = trainer_on_noise(fake_method(), problem, TrainingConfig())
    _, again = trainer_on_noise(fake_method(), problem, TrainingConfig())
    _, other = trainer_on_noise(fake_method(), problem.replace(seed=8), TrainingConfig())
    assert batch.shape == (1000, 2, 3)
    assert batch.dtype == torch.float64
    assert torch.equal(batch, again)
    assert not torch.equal(batch, other)
    assert abs(float(batch.mean())) < 0.05
    assert abs(float(batch.std()) - 1) < 0.05
    # Initialised from the batch, and in training mode.
    assert trainer.model.log == ["init 1000"]
    assert trainer.model.module.training


def test_a_step_is_what_training_does(fake_method: Callable[..., Method]) -> None:
    trainer, batch = trainer_on_noise(fake_method(), PROBLEM, TrainingConfig())
    before = [p.detach().clone() for p in trainer.parameters]
    trainer.step(batch)
    assert trainer.average is not None
    assert trainer.model.log == ["init 4", "after_step"]
    assert all(not torch.equal(a, b) for a, b in zip(before, trainer.parameters, strict=True))


def test_one_real_run() -> None:
    methods = registry().available("fc")
    problem = Problem(shape=(8,), batch=10)
    timings = measure(methods, problem, 2, TrainingConfig())
    assert [timing.method.name for timing in timings] == [method.name for method in methods]
    assert [timing.failure for timing in timings] == [None] * len(methods)
    assert all(len(timing.seconds) == 2 and min(timing.seconds) > 0 for timing in timings)
    assert {t.parameters for t in timings if t.method.linear == "dense"} == {2 * (8 * 8 + 8)}
