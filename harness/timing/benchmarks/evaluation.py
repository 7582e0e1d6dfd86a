"""What comes after training: the log-determinants of new weights, and sampling."""

import torch

from harness.methods.density import log_prob, sample
from harness.methods.registry import registry

from . import DIMENSIONS, OncePerPoint, available


class LogDeterminant(OncePerPoint):
    """Log-density of one sample right after a change of the weights, so that every determinant is computed anew."""

    params = (available("ml"), DIMENSIONS, [2])

    @torch.no_grad()
    def time_log_determinant(self, method: str, dimension: int, depth: int) -> None:
        """Change every weight a little and evaluate one sample."""
        for parameter in self.trainer.parameters:
            parameter.mul_(1 + 1e-6)
        log_prob(self.trainer.model, self.batch[:1])


# Autoregressive and residual blocks are left out: D passes or an iteration for each sample take minutes at D = 784.
_METHODS = [m for m in available("ml") if registry().find(m).samples and registry().find(m).linear != "none"]


class Sampling(OncePerPoint):
    """A hundred samples by the exact inverse of linear layers."""

    params = (_METHODS, DIMENSIONS, [2])

    def time_sampling(self, method: str, dimension: int, depth: int) -> None:
        """Draw the samples."""
        sample(self.trainer.model, (dimension,), 100, self.trainer.generator)
