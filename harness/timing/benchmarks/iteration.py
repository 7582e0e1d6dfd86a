"""Seconds of a training iteration."""

from . import DEPTHS, DIMENSIONS, OncePerPoint, available


class TrainingIteration(OncePerPoint):
    """Noise, loss, backward, optimiser and averaging, on a batch of 100 in memory; the mean over a whole period."""

    params = (available(), DIMENSIONS, DEPTHS)
    whole_periods = True

    def time_iteration(self, method: str, dimension: int, depth: int) -> None:
        """Take the steps of one period, a single one for most methods."""
        for _ in range(self.period):
            self.trainer.step(self.batch)
