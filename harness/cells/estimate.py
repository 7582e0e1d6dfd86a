"""How long a training takes on this machine, from its budget or from two steps of it."""

from __future__ import annotations

import math
from functools import cache

from harness.methods import Problem
from harness.methods.calls import guarded
from harness.methods.registry import registry, why_unavailable
from harness.timing.interleaved import time_block, trainer_on_noise
from harness.training.configuration import TrainingConfig


def step_seconds(name: str, problem: Problem, config: TrainingConfig) -> float:
    """Time a training step of a method, after the first, once for all seeds; 0 if it cannot run: its row will say why.

    Where steps are not alike it is the mean over a period. The start is the published one, because the probe's batch is
    too small to whiten.
    """
    return _step_seconds(name, problem.replace(seed=0, start="published"), config)


@cache
def _step_seconds(name: str, problem: Problem, config: TrainingConfig) -> float:
    method = registry().find(name)
    if why_unavailable(method) is not None:
        return 0.0
    try:
        trainer, batch = trainer_on_noise(method, problem, config)
        with guarded("a training step"):
            trainer.step(batch)
            return time_block(lambda: trainer.step(batch), method.period(problem), problem.device)
    except Exception:  # a competitor may fail in any way
        return 0.0


def training_seconds(name: str, problem: Problem, config: TrainingConfig, samples: int) -> float:
    """Estimate the seconds of a training on so many samples; validation, scoring and downloads are not counted."""
    if not samples or not registry().find(name).iterative:
        return 0.0
    steps = config.epochs * math.ceil(samples / problem.batch)
    return min(config.max_seconds or math.inf, steps * step_seconds(name, problem, config))
