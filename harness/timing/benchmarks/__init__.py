"""The asv suite: the speed of every method over D and L, commit after commit.

A plain ``asv run`` times every method at three D and one L. The environment variable ``HARNESS_ASV_GRID=full`` asks for
the full grid, which takes several times as long.
"""

import os
import time

import torch
import torch._dynamo  # asv forks each process from one that has this package: there, this second is spent once for all

from harness.methods import Problem
from harness.methods.process_settings import prepare
from harness.methods.registry import registry
from harness.timing.asv_results import THREADS, THREADS_VARIABLE
from harness.timing.interleaved import trainer_on_noise
from harness.training.configuration import TrainingConfig
from harness.training.step import Trainer


def grid(name: str) -> tuple[list[int], list[int]]:
    """Return the sizes D and L to time.

    Args:
        name: What `HARNESS_ASV_GRID` says: full, or nothing for the sizes of a plain ``asv run``.

    Raises:
        ValueError: if the name is another one.
    """
    grids = {"": ([64, 256, 784], [2]), "full": ([16, 64, 256, 784], [1, 2, 4])}
    if name not in grids:
        raise ValueError(f"HARNESS_ASV_GRID must be full or not be set, unlike {name!r}")
    return grids[name]


DIMENSIONS, DEPTHS = grid(os.environ.get("HARNESS_ASV_GRID", ""))

_steps = 1  # that a timed call takes


def _seconds_of_one_step() -> float:
    """Tell CPU time, in units of the steps of a timed call.

    CPU time is that of a clock for one thread on a core of its own, and unchanged where others share the core.
    """
    return time.process_time() / _steps


def threads() -> int:
    """Return the number of threads that asv's matrix names; an existing environment has no matrix, and one thread."""
    if os.environ.get("ASV_ENV_TYPE") == "existing":  # of it asv keeps no variable that a reader could ask for
        return THREADS
    return int(os.environ.get(THREADS_VARIABLE, THREADS))


class OncePerPoint:
    """A benchmark that builds its model once for every parameter point.

    asv_runner calls ``setup`` before every timed call; building anew there would put cold caches into each measurement.
    """

    param_names = ("method", "D", "L")
    timeout = 300
    number = 1
    rounds = 2
    warmup_time = 0.2
    timer = staticmethod(_seconds_of_one_step)  # asv calls it as an attribute of an instance
    repeat = (5, 60, 0.8)

    _point: tuple[str, int, int] | None = None
    whole_periods = False
    """Whether a timed call takes all steps of a period, so that its time is divided by their number."""
    period: int
    trainer: Trainer
    batch: torch.Tensor

    def setup(self, method: str, dimension: int, depth: int) -> None:
        """Build the trainer and its batch, and take the first, slow steps."""
        global _steps
        if self._point == (method, dimension, depth):
            return
        self._point = (method, dimension, depth)
        prepare("cpu", threads())
        problem = Problem(shape=(dimension,), layers=depth)
        competitor = registry().find(method)
        self.period = competitor.period(problem)
        _steps = self.period if self.whole_periods else 1
        self.trainer, self.batch = trainer_on_noise(competitor, problem, TrainingConfig())
        for _ in range(3):
            self.trainer.step(self.batch)


def available(objective: str | None = None) -> list[str]:
    """Return the names of the methods that run here, of one objective or of all."""
    return [m.name for m in registry().available("fc") if objective in (None, m.objective)]
