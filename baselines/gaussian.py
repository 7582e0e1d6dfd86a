"""One Gaussian with full covariance, fitted in closed form: the bar that every linear flow has to clear.

It is the exact maximum-likelihood optimum of any flow that is one dense layer, in the space after the preprocessing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from baselines._energy_model import EnergyModel
from harness.methods import Method, Problem, moments

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["METHODS"]


class GaussianModel(EnergyModel):
    """z = A (x - mean), where A^T A is the inverse covariance: one dense layer set by its closed form."""

    def __init__(self, problem: Problem) -> None:
        from ebflow import architectures

        super().__init__(architectures.fc(problem.shape, layers=1))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit mean and covariance to the samples of all batches, in float64.

        Raises:
            ValueError: if the covariance is singular, as some component is constant or depends linearly on others.
        """
        import torch

        data = moments(batches)
        mean = data.mean
        if reason := data.why_singular():
            raise ValueError(f"the covariance is singular: {reason}")
        factor = torch.linalg.cholesky(data.covariance)
        identity = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
        self.module.layers[-1].load_state_dict({"weight": whitening, "bias": -whitening @ mean})

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        raise NotImplementedError("the Gaussian is fitted in closed form and has no training step")


METHODS = [
    Method(
        name="gaussian",
        objective="closed-form",
        linear="dense",
        build=GaussianModel,
        architectures=("fc", "cnn", "glow", "toy"),
        summary="one Gaussian with full covariance: what any linear model can reach",
        iterative=False,
    )
]
