"""normflows (https://github.com/VincentStimper/normalizing-flows), LU layers with a permutation, by maximum likelihood.

The stack is the paper's fc. The diagonals are positive: layers start at a permutation, with unit biases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from baselines._normflows_model import LinearStack
from harness.methods import LayerCost, Method, Problem

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METHODS"]


def _build(problem: Problem) -> LinearStack:
    import torch
    from normflows.flows import LULinearPermute

    def load(parts: list[Any], weight: Tensor, bias: Tensor) -> None:
        (layer,) = parts
        exchanges, lower, upper = torch.linalg.lu(weight)
        if not torch.equal(exchanges, torch.eye(len(weight)).to(weight)) or bool(
            (upper.diag() <= layer.linear.eps).any()
        ):
            raise ValueError("an LU layer takes weights that factor without row exchanges, with a positive diagonal")
        layer.permutation._permutation.copy_(torch.arange(len(weight)))
        layer.linear.lower_entries.copy_(lower[layer.linear.lower_indices])
        layer.linear.upper_entries.copy_(upper[layer.linear.upper_indices])
        layer.linear.unconstrained_upper_diag.copy_(torch.log(torch.expm1(upper.diag() - layer.linear.eps)))
        layer.linear.bias.copy_(bias)

    def linear() -> list[Any]:
        layer = LULinearPermute(problem.dimension)
        torch.nn.init.ones_(layer.linear.bias)
        return [layer]

    return LinearStack(problem, linear, load)


METHODS = [
    Method(
        name="normflows-luperm-ml",
        objective="ml",
        linear="luperm",
        build=_build,
        requires=("normflows",),
        fc_cost=LayerCost(6),
        summary="LULinearPermute: a fixed permutation and two triangular factors, no O(D^3) term",
        paper="https://arxiv.org/abs/1906.04032",
    )
]
