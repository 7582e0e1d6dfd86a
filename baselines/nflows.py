"""nflows 0.14 (https://github.com/bayesiains/nflows), dense and LU layers, trained by maximum likelihood.

The stack is the paper's fc: L linear layers with a smooth leaky ReLU between them. ``nflows-dense-ml`` starts where
ebflow's does; an LU layer's diagonal is positive, so ``nflows-lu-ml`` starts at +I.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from baselines._nflows_model import LinearStack
from baselines._triangular import POSITIVE_DIAGONAL, factors
from harness.methods import LayerCost, Method, Problem

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METHODS"]


class SharingStack(LinearStack):
    """A stack of layers that can be read and set as a matrix and a bias."""

    def linear_layers(self) -> list[tuple[Tensor, Tensor]]:
        return [(layer.weight().detach(), layer.bias.detach()) for layer in self.linear_maps]

    def load_linear_layers(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        for layer, (weight, bias) in zip(self.linear_maps, layers, strict=True):
            layer.load(weight, bias)


def _dense(problem: Problem) -> SharingStack:
    import torch
    from nflows.transforms.linear import NaiveLinear

    class Dense(NaiveLinear):
        """NaiveLinear with an inverse: the released one calls torch.solve, which is gone."""

        def inverse_no_cache(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            factors, pivots = torch.linalg.lu_factor(self._weight)
            x = torch.linalg.lu_solve(factors, pivots, (inputs - self.bias).mT).mT
            return x, -factors.diagonal().abs().log().sum().expand(len(x))

        @torch.no_grad()
        def load(self, weight: Tensor, bias: Tensor) -> None:
            self._weight.copy_(weight)
            self.bias.copy_(bias)

    layers = [Dense(problem.dimension, orthogonal_initialization=False) for _ in range(problem.layers)]
    for layer in layers:
        layer.load(-torch.eye(problem.dimension), torch.ones(problem.dimension))
    return SharingStack(problem, layers)


def _lu(problem: Problem) -> SharingStack:
    import torch
    from nflows.transforms import LULinear

    class LU(LULinear):
        """LULinear with an inverse that no deprecated function and no warning goes through."""

        def inverse_no_cache(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            lower, upper = self._create_lower_upper()
            x = torch.linalg.solve_triangular(lower, (inputs - self.bias).mT, upper=False, unitriangular=True)
            return torch.linalg.solve_triangular(upper, x, upper=True).mT, -self.logabsdet().expand(len(inputs))

        @torch.no_grad()
        def load(self, weight: Tensor, bias: Tensor) -> None:
            lower, upper = factors(weight, above=self.eps)
            self.lower_entries.copy_(lower[self.lower_indices])
            self.upper_entries.copy_(upper[self.upper_indices])
            self.unconstrained_upper_diag.copy_(torch.log(torch.expm1(upper.diag() - self.eps)))
            self.bias.copy_(bias)

    layers = [LU(problem.dimension) for _ in range(problem.layers)]
    for layer in layers:
        torch.nn.init.ones_(layer.bias)
    return SharingStack(problem, layers)


METHODS = [
    Method(
        name=f"nflows-{name}-ml",
        objective="ml",
        linear=name,
        build=build,
        requires=("nflows.flows",),
        fc_cost=cost,
        own_start=POSITIVE_DIAGONAL if name == "lu" else "",
        summary=summary,
        paper="https://github.com/bayesiains/nflows",
    )
    for name, build, cost, summary in [
        ("dense", _dense, LayerCost(3, cubic=2), "NaiveLinear: any matrix, slogdet at every step"),
        # Two triangular factors, multiplied as full matrices.
        ("lu", _lu, LayerCost(6), "LULinear: two triangular factors, no O(D^3) term"),
    ]
]
