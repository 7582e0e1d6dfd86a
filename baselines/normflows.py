"""normflows (https://github.com/VincentStimper/normalizing-flows), dense and LU layers, by maximum likelihood.

The stack is the paper's fc. `InvertibleAffine` multiplies row vectors (z W) and has no bias; the adapter adds one, so
that all methods fit the same function. Both start where ebflow's does.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from baselines._normflows_model import LinearStack
from harness.methods import LayerCost, Method, Problem

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METHODS"]


def _bias(dimension: int) -> Any:
    """Return the bias that InvertibleAffine lacks; AffineConstFlow would multiply by a scale of one as well."""
    import torch

    from ebflow.interop.normflows import LayerFlow
    from ebflow.layers import Bias

    layer = Bias((dimension,))
    torch.nn.init.ones_(layer.bias)
    return LayerFlow(layer)


def _build(use_lu: bool, problem: Problem) -> LinearStack:
    import torch
    from normflows.flows import InvertibleAffine

    def load(parts: list[Any], weight: Tensor, bias: Tensor) -> None:
        affine, shift = parts
        shift.layer.bias.copy_(bias)
        if not use_lu:
            affine.W.copy_(weight.mT)
            return
        exchanges, lower, upper = torch.linalg.lu(weight.mT)
        affine.P.copy_(exchanges)
        affine.L.copy_(lower)
        affine.U.copy_(upper.triu(1))
        affine.sign_S.copy_(upper.diag().sign())
        affine.log_S.copy_(upper.diag().abs().log())

    def read(parts: list[Any]) -> tuple[Tensor, Tensor]:
        affine, shift = parts
        return (affine._assemble_W() if use_lu else affine.W).mT, shift.layer.bias

    def linear() -> list[Any]:
        return [InvertibleAffine(problem.dimension, use_lu=use_lu), _bias(problem.dimension)]

    with warnings.catch_warnings():
        # Building InvertibleAffine factors a matrix with Tensor.lu.
        warnings.filterwarnings("ignore", "torch.lu is deprecated")
        model = LinearStack(problem, linear, load, read)
    start = -torch.eye(problem.dimension), torch.ones(problem.dimension)
    model.load_linear_layers([start] * problem.layers)
    return model


METHODS = [
    Method(
        name=f"normflows-{name}-ml",
        objective="ml",
        linear=name,
        build=partial(_build, name == "lu"),
        requires=("normflows",),
        fc_cost=cost,
        summary=summary,
        paper="https://github.com/VincentStimper/normalizing-flows",
    )
    for name, cost, summary in [
        ("dense", LayerCost(3, cubic=2), "InvertibleAffine: any matrix, slogdet at every step"),
        # P L U is two products of D x D matrices forward and three back, as full matrices, 2 D^3 flops each.
        ("lu", LayerCost(3, cubic=10), "InvertibleAffine(use_lu=True): assembles P L U at every step, O(D^3)"),
    ]
]
