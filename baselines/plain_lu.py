"""LU layers in plain torch, trained by maximum likelihood: as fast as we can make layers of this form.

The network is the paper's fc. A layer z = L U x + b keeps both factors in one D x D matrix, and log|det| is the sum of
log|diagonal|. The diagonal has any sign, so that the layers start where ebflow's do. On a CPU the batch is multiplied
by 128 rows of a factor at a time; on a GPU by all at once, because many small products would wait for their launches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from baselines._triangular import factors
from baselines._triangular_panels import affine
from harness.methods import LayerCost, Method, Model, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["METHODS"]

_PANEL = 128


class PlainLUModel(Model):
    """L layers of two triangular factors with a smooth leaky ReLU between them.

    Args:
        problem: The problem to build for.
    """

    def __init__(self, problem: Problem) -> None:
        import torch

        from ebflow.layers import SmoothLeakyReLU

        size, layers = problem.dimension, range(problem.layers)
        self.shape = problem.shape
        self.affine = affine(size, _PANEL if problem.device == "cpu" else size)
        self.activation = SmoothLeakyReLU(residual=problem.residual)
        self.factors = torch.nn.ParameterList(-torch.eye(size) for _ in layers)
        self.biases = torch.nn.ParameterList(torch.ones(size) for _ in layers)
        # The activation's constants belong to the state, so that weights never end up in another density.
        self.module = torch.nn.ModuleList([self.factors, self.biases, self.activation])

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        z, log_det = self.to_latent(x)
        return (0.5 * z.square().sum(1) - log_det).mean()

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = x.flatten(1), x.new_zeros(len(x))
        for index, (both, bias) in enumerate(zip(self.factors, self.biases, strict=True)):
            if index:
                x, term = self.activation(x)
                log_det = log_det + term
            x, term = self.affine(x, both, bias)
            log_det = log_det + term
        return x, log_det

    def to_data(self, z: Tensor) -> Tensor:
        import torch

        for index, (both, bias) in reversed(list(enumerate(zip(self.factors, self.biases, strict=True)))):
            y = torch.linalg.solve_triangular(both, (z - bias).mT, upper=False, unitriangular=True)
            z = torch.linalg.solve_triangular(both, y, upper=True).mT
            z = self.activation.inverse(z) if index else z
        return z.view(-1, *self.shape)

    def linear_layers(self) -> list[tuple[Tensor, Tensor]]:
        import torch

        layers = []
        for own, bias in zip(self.factors, self.biases, strict=True):
            both = own.detach()
            lower = both.tril(-1) + torch.eye(len(both)).to(both)
            layers.append((lower @ both.triu(), bias.detach()))
        return layers

    def load_linear_layers(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        import torch

        loaded = [(*factors(weight), bias) for weight, bias in layers]
        with torch.no_grad():
            for own, own_bias, (lower, upper, bias) in zip(self.factors, self.biases, loaded, strict=True):
                own.copy_(lower.tril(-1) + upper)
                own_bias.copy_(bias)


METHODS = [
    Method(
        name="plain-lu-ml",
        objective="ml",
        linear="lu",
        build=PlainLUModel,
        fc_cost=LayerCost(3, saved=0.5),  # six products with a triangle, each of which needs half the flops
        summary="two triangular factors in plain torch, multiplied by panels, no O(D^3) term",
    )
]
