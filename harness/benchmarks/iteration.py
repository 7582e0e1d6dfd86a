"""Seconds of a training iteration."""

from . import DEPTHS, DIMENSIONS, OncePerPoint, available


class TrainingIteration(OncePerPoint):
    """Noise, loss, backward, optimiser and averaging, on a batch of 100 in memory."""

    params = (available(), DIMENSIONS, DEPTHS)

    def time_iteration(self, method: str, dimension: int, depth: int) -> None:
        """Take one step."""
        self.trainer.step(self.batch)
