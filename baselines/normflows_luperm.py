"""normflows (https://github.com/VincentStimper/normalizing-flows), LU layers with a permutation, by maximum likelihood.

The stack is the paper's fc. The diagonals are positive: layers start at a permutation, with unit biases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from baselines._normflows_model import LinearStack
from baselines._triangular import POSITIVE_DIAGONAL, factors
from harness.methods import LayerCost, Method, Problem

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METHODS"]


def _build(problem: Problem) -> LinearStack:
    import torch
    from normflows.flows import LULinearPermute

    def load(parts: list[Any], weight: Tensor, bias: Tensor) -> None:
        (layer,) = parts
        lower, upper = factors(weight, above=layer.linear.eps)
        layer.permutation._permutation.copy_(torch.arange(len(weight)))
        layer.linear.lower_entries.copy_(lower[layer.linear.lower_indices])
        layer.linear.upper_entries.copy_(upper[layer.linear.upper_indices])
        layer.linear.unconstrained_upper_diag.copy_(torch.log(torch.expm1(upper.diag() - layer.linear.eps)))
        layer.linear.bias.copy_(bias)

    def read(parts: list[Any]) -> tuple[Tensor, Tensor]:
        (layer,) = parts
        weight = torch.empty_like(layer.linear.weight())
        weight[:, layer.permutation._permutation] = layer.linear.weight()  # the permutation comes first
        return weight, layer.linear.bias

    def linear() -> list[Any]:
        layer = LULinearPermute(problem.dimension)
        torch.nn.init.ones_(layer.linear.bias)
        return [layer]

    return LinearStack(problem, linear, load, read)


METHODS = [
    Method(
        name="normflows-luperm-ml",
        objective="ml",
        linear="luperm",
        build=_build,
        requires=("normflows",),
        fc_cost=LayerCost(6),
        own_start=POSITIVE_DIAGONAL,
        summary="LULinearPermute: a fixed permutation and two triangular factors, no O(D^3) term",
        paper="https://arxiv.org/abs/1906.04032",
    )
]
