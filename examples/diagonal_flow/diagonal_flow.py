"""A sinh-arcsinh transformation of every component on its own, trained by maximum likelihood.

With u = (x - shift) exp(-log_scale), z = sinh(exp(log_tail) asinh(u) + skew): location, scale, weight of the tails and
skewness of each component, and nothing between two of them. Jones and Pewsey, "Sinh-arcsinh distributions", Biometrika
96 (2009), https://doi.org/10.1093/biomet/asp053, equation 2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.methods import Method, Model, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["METHODS"]


class DiagonalFlow(Model):
    """One sinh-arcsinh transformation a component; it starts as the identity."""

    def __init__(self, problem: Problem) -> None:
        import torch

        self.module = torch.nn.Module()
        for name in ("shift", "log_scale", "skew", "log_tail"):
            self.module.register_parameter(name, torch.nn.Parameter(torch.zeros(problem.shape)))

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean negative log-density, but for its constant; there is no noise."""
        z, log_det = self.to_latent(x)
        return (0.5 * z.flatten(1).square().sum(1) - log_det).mean()

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, of the shape of x, and log|det dz/dx| in nats, shape (B,)."""
        import torch

        own = self.module
        u = (x - own.shift) * (-own.log_scale).exp()
        t = own.log_tail.exp() * u.asinh() + own.skew
        # log dz/dx; log cosh t in a form that cannot overflow.
        log_cosh = torch.logaddexp(t, -t) - math.log(2)
        slope = log_cosh + own.log_tail - 0.5 * torch.log1p(u.square()) - own.log_scale
        return t.sinh(), slope.flatten(1).sum(1)

    def to_data(self, z: Tensor) -> Tensor:
        """Return the x that `to_latent` maps to z."""
        own = self.module
        u = ((z.asinh() - own.skew) * (-own.log_tail).exp()).sinh()
        return u * own.log_scale.exp() + own.shift


METHODS = [
    Method(
        name="diagonal-flow-ml",
        objective="ml",
        linear="diagonal",
        build=DiagonalFlow,
        architectures=("fc", "cnn", "toy"),
        summary="location, scale, tails and skewness of each component",
        paper="https://doi.org/10.1093/biomet/asp053",
    )
]
