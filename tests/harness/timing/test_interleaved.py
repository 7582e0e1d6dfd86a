"""Timing: who goes when, what is counted, and that nobody's failure is anybody else's. No second is asserted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from harness.methods import Method, Problem
from harness.methods.registry import registry
from harness.timing.interleaved import Block, measure, time_block, trainer_on_noise
from harness.training.configuration import TrainingConfig

PROBLEM = Problem(shape=(3,), batch=4)


Blocks = list[tuple[str, int]]


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Blocks:
    """Whose block of how many calls was timed, in order; the clock says that a call takes 8 ms.

    A capital is a whole iteration, a small letter loss and backward alone, a dot one of the machine's rates.
    """
    timed: Blocks = []

    def time(block: Block, number: int) -> float:
        method, _, part = block.name.partition(" ")
        timed.append(({"iteration": method[0].upper(), "gradient": method[0]}.get(part, "."), number))
        block.call()
        return 0.008

    monkeypatch.setattr(Block, "time", time)
    return timed


def test_methods_take_turns_in_an_order_that_rotates(blocks: Blocks, fake_method: Callable[..., Method]) -> None:
    ticks: list[str] = []
    found = measure([fake_method(n) for n in "abc"], PROBLEM, 4, TrainingConfig(), lambda: ticks.append(blocks[-1][0]))
    # The first iteration, then one of each kind to see how long it takes; the machine's two rates; the reference
    # product to see how long it takes, and its first sample; and a turn of each method that is not kept.
    warm_up = "AAaBBbCCc" + ".." + ".." + "AaBbCc"
    order = "".join(name for name, _ in blocks)
    assert order == warm_up + "AaBbCc.." + "BbCcAa.." + "CcAaBb.." + "AaBbCc.."
    # As many calls in a row as make 20 ms; of the reference, 2 ms.
    assert [number for _, number in blocks] == [1] * 13 + [3] * 38
    # Told after every repetition of a method.
    assert "".join(ticks) == "abc" + "bca" + "cab" + "abc"
    for timing in found.timings:
        assert timing.seconds == timing.gradient_seconds == [0.008] * 4
        assert timing.first_seconds == 0.008
        assert timing.parameters == 6
    products, copies, reference = found.rates
    assert reference[1] == [pytest.approx(2 * 256**3 / 0.008)]
    assert products[1] == [pytest.approx(6 * 4 * 3**2 / 0.008)] * 4
    assert copies[1] == [pytest.approx(2 * 2 * 3**2 * 4 / 0.008)] * 4


def test_steps_that_are_not_alike_are_timed_in_whole_periods(
    monkeypatch: pytest.MonkeyPatch, fake_method: Callable[..., Method], fake_model: type
) -> None:
    """One step in eight takes 80 ms and the others 4: the mean is 13.5, and the median of single steps would be 4."""
    steps = []

    class Periodic(fake_model):
        def __init__(self, problem: Problem) -> None:
            super().__init__(problem)
            self.every, self.calls = problem.refresh, 0

        def training_loss(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
            steps.append(0.08 if self.calls % self.every == 0 else 0.004)
            self.calls += 1
            return super().training_loss(x, generator)

    def time(block: Block, number: int) -> float:
        before = len(steps)
        for _ in range(number):
            block.call()
        return sum(steps[before:]) / number or 0.001  # the machine's rates take no step

    monkeypatch.setattr(Block, "time", time)
    method = fake_method("periodic-aml", Periodic, periods={"fc": 8})
    (timing,) = measure([method], PROBLEM, 5, TrainingConfig()).timings
    assert timing.failure is None
    assert method.period(PROBLEM) == 8
    assert timing.seconds == pytest.approx([(0.08 + 7 * 0.004) / 8] * 5)
    assert timing.gradient_seconds == timing.seconds
    assert timing.refresh_seconds == pytest.approx([0.08] * 5)
    (given,) = measure([method], PROBLEM.replace(refresh=2), 3, TrainingConfig()).timings
    assert given.seconds == pytest.approx([0.042] * 3)


def test_a_failing_method_is_reported_and_the_others_go_on(
    blocks: Blocks, fake_method: Callable[..., Method], fake_model: type
) -> None:
    def refuses(problem: Problem) -> Any:
        raise RuntimeError("no\n kernel")

    class NotFinite(fake_model):
        def training_loss(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
            return super().training_loss(x, generator) * float("nan")

    methods = [fake_method("a"), fake_method("bad", refuses), fake_method("nan", NotFinite), fake_method("b")]
    timings = measure(methods, PROBLEM, 2, TrainingConfig()).timings
    assert [timing.failure for timing in timings] == [
        None,
        "RuntimeError: no kernel",
        "ArithmeticError: the loss is not finite during warm-up",
        None,
    ]
    assert [len(timing.seconds) for timing in timings] == [2, 0, 0, 2]
    assert [len(timing.gradient_seconds) for timing in timings] == [2, 0, 0, 2]
    assert "".join(name for name, _ in blocks).endswith("AaBb.." + "BbAa..")


def test_the_machine_is_watched_for_a_hundredth_of_the_time(
    clock: Callable[..., dict[str, float]], fake_method: Callable[..., Method]
) -> None:
    spent = clock({"method": lambda: 0.008, "reference": lambda: 0.0005, "rate": lambda: 0.001})
    found = measure([fake_method(n) for n in "ab"], PROBLEM, 50, TrainingConfig())
    assert spent["reference"] <= 0.011 * spent["method"]
    (reference,) = (values for rate, values in found.rates if rate.metric == "reference_gemm")
    assert len(reference) > 20


def test_nothing_left_to_time(fake_method: Callable[..., Method]) -> None:
    def refuses(problem: Problem) -> Any:
        raise RuntimeError("no")

    found = measure([fake_method("bad", refuses)], PROBLEM, 3, TrainingConfig())
    assert [timing.seconds for timing in found.timings] == [[]]
    assert found.rates == []


def test_a_shape_that_does_not_fit_is_a_failure_too() -> None:
    problem = Problem(architecture="cnn", shape=(1, 6, 6), layers=3)
    methods = [registry().find("ebflow-ml"), registry().find("nflows-lu-ml")]
    squeeze, no_cnn = (timing.failure for timing in measure(methods, problem, 1, TrainingConfig()).timings)
    assert squeeze is not None
    assert squeeze.startswith("ebflow-ml: squeeze halves images of even height and width")
    assert no_cnn is not None
    assert no_cnn.startswith("nflows-lu-ml has no cnn architecture, only fc")


def test_a_method_that_fails_between_two_repetitions_leaves_the_turns(
    blocks: Blocks, fake_method: Callable[..., Method], fake_model: type
) -> None:
    class Tires(fake_model):
        def after_step(self) -> None:
            super().after_step()
            # One initialisation, five steps of warm-up, one of a turn that is not kept, one a repetition.
            if len(self.log) == 1 + 5 + 1 + 2:
                raise RuntimeError("tired")

    methods = [fake_method("a"), fake_method("tires", Tires), fake_method("b")]
    found = measure(methods, PROBLEM, 3, TrainingConfig())
    assert [timing.failure for timing in found.timings] == [None, "RuntimeError: tired", None]
    order = "".join(name for name, _ in blocks)
    assert order.endswith("AaTtBb.." + "TBbAa.." + "BbAa..")
    assert [len(timing.seconds) for timing in (found.timings[0], found.timings[2])] == [3, 3]


def test_a_block_runs_its_steps() -> None:
    steps: list[int] = []
    seconds = time_block(lambda: steps.append(1), 5, "cpu")
    assert len(steps) == 5
    assert seconds > 0


def test_a_cuda_device_is_idle_before_and_after_and_times_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            log.append("event")

        def elapsed_time(self, other: Event) -> float:
            return 12.0 if other is not self else 0.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("wait"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(log.append(device)))
    assert time_block(lambda: log.append("step"), 2, "cuda:1") == pytest.approx(0.006)
    assert log == ["cuda:1", "wait", "event", "step", "step", "event", "wait"]


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
    found = measure(methods, problem, 2, TrainingConfig())
    timings = found.timings
    assert [timing.method.name for timing in timings] == [method.name for method in methods]
    assert [timing.failure for timing in timings] == [None] * len(methods)
    assert all(len(timing.seconds) == 2 and min(timing.seconds) > 0 for timing in timings)
    dense = [f"{library}-dense-ml" for library in ("nflows", "normflows", "zuko")]
    assert {t.parameters for t in timings if t.method.name in dense} == {2 * (8 * 8 + 8)}
    # Weights, gradients, one moment and the average at the least.
    assert all(timing.peak_bytes > 4 * 4 * timing.parameters for timing in timings)
    rates = [
        "gemm_rate",
        "gemm_rate_2_rows",
        "gemm_rate_3_rows",
        "gemm_rate_5_rows",
        "gemm_rate_square",
        "copy_bandwidth",
    ]
    assert [rate.metric for rate, _ in found.rates] == [*rates, "reference_gemm"]
    assert all(len(values) == 2 and min(values) > 0 for _, values in found.rates[:-1])
    assert min(found.rates[-1][1]) > 0


@pytest.mark.parametrize("dtype", ["float64", "bf16"])
def test_other_arithmetic(dtype: str) -> None:
    methods = registry().available("fc")
    found = measure(methods, Problem(shape=(8,), batch=10, dtype=dtype), 1, TrainingConfig())
    failures = {timing.method.name: timing.failure for timing in found.timings if timing.failure}
    assert failures.keys() == ({"ebflow-fdssm"} if dtype == "bf16" else set())  # whose differences bf16 rounds away
