"""Seconds an iteration, all methods side by side.

An iteration is everything between two batches: noise, loss, backward, clipping, optimiser, averaging. The batch lies in
memory. Methods are interleaved repetition by repetition, in an order that rotates, so that a machine that drifts drifts
for all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.density import build, count_parameters
from harness.errors import InputError, one_line
from harness.method import Method
from harness.problem import Problem
from harness.training import Trainer, TrainingConfig

__all__ = ["Timing", "measure", "time_block", "trainer_on_noise"]

_WARM_UP_STEPS = 3
_SHORTEST_BLOCK = 0.02  # seconds; shorter blocks would time the clock


@dataclass
class Timing:
    """The measured repetitions of one method, seconds an iteration, or why there are none."""

    method: Method
    seconds: list[float] = field(default_factory=list)
    parameters: int | None = None
    failure: str | None = None


def measure(
    methods: Sequence[Method],
    problem: Problem,
    repeats: int,
    config: TrainingConfig,
    progress: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Time every method on one problem; one that fails is reported and the others go on.

    Args:
        methods: Available ones.
        problem: Its batch is drawn from N(0, I).
        repeats: Repetitions of every method.
        config: Optimiser, clipping, averaging.
        progress: Called after every repetition of a method.
    """
    timings = [Timing(method) for method in methods]
    steps: dict[str, tuple[Callable[[], Tensor], int]] = {}
    for timing in timings:
        try:
            trainer, batch = trainer_on_noise(timing.method, problem, config)
            timing.parameters = count_parameters(trainer.model)

            def step(trainer: Trainer = trainer, batch: Tensor = batch) -> Tensor:
                return trainer.step(batch)

            for _ in range(_WARM_UP_STEPS):
                loss = step()
            if not bool(loss.isfinite()):
                raise ArithmeticError("the loss is not finite during warm-up")
            once = time_block(step, 1, problem.device)
            steps[timing.method.name] = step, max(1, math.ceil(_SHORTEST_BLOCK / once))
        except InputError:
            raise
        except Exception as error:  # a competitor may fail in any way, and must not take the others down
            timing.failure = one_line(error)
    running = [timing for timing in timings if timing.failure is None]
    for repetition in range(repeats):
        turn = repetition % max(1, len(running))
        for timing in running[turn:] + running[:turn]:
            step, number = steps[timing.method.name]
            timing.seconds.append(time_block(step, number, problem.device))
            progress()
    return timings


def trainer_on_noise(method: Method, problem: Problem, config: TrainingConfig) -> tuple[Trainer, Tensor]:
    """Build what is timed: a trainer, and a batch of shape (B, *event) from N(0, I)."""
    generator = torch.Generator(problem.device).manual_seed(problem.seed)
    dtype = getattr(torch, problem.dtype)
    batch = torch.randn(problem.batch, *problem.shape, generator=generator, device=problem.device, dtype=dtype)
    model = build(method, problem)
    model.init_batch(batch)
    model.module.train()
    return Trainer(model, config, generator), batch


def time_block(step: Callable[[], Tensor], number: int, device: str) -> float:
    """Seconds for each of `number` steps in a row, the device idle before and after."""
    _wait_for(device)
    started = time.perf_counter()
    for _ in range(number):
        step()
    _wait_for(device)
    return (time.perf_counter() - started) / number


def _wait_for(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
