"""normflows (https://github.com/VincentStimper/normalizing-flows), spline couplings, by maximum likelihood.

L couplings behind an ActNorm that starts from data, since splines bend nothing beyond their bounds. They transform the
odd and the even components in turn; the others pass through a spline without a network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines._normflows_model import NormflowsModel, chain
from baselines._published_recipes import coupling_splines
from harness.methods import Method, Problem

if TYPE_CHECKING:
    from torch import nn

__all__ = ["METHODS"]


def _build(problem: Problem) -> NormflowsModel:
    from normflows.flows import ActNorm, CoupledRationalQuadraticSpline, LULinearPermute

    dimension = problem.dimension
    if dimension < 2:
        raise ValueError("a coupling needs samples of at least two components, not D = 1; choose another method")
    layers: list[nn.Module] = [ActNorm((dimension,))]
    for index in range(problem.layers):
        if problem.mixing:
            layers.append(LULinearPermute(dimension))
        layers.append(
            CoupledRationalQuadraticSpline(
                dimension,
                num_blocks=problem.blocks,
                num_hidden_channels=problem.hidden,
                num_bins=problem.bins,
                tail_bound=problem.tail_bound,
                dropout_probability=problem.dropout,
                reverse_mask=index % 2 == 1,
            )
        )
    if problem.mixing:
        layers.append(LULinearPermute(dimension))
    return NormflowsModel(problem, chain(problem, layers))


METHODS = [
    Method(
        name="normflows-nsf-ml",
        objective="ml",
        linear="none",
        build=_build,
        requires=("normflows",),
        summary="rational-quadratic spline couplings with residual networks",
        paper="https://arxiv.org/abs/1906.04032",
        own_recipes=coupling_splines(),
        meta_device=False,  # splines sort samples into those within their bounds and the others
    )
]
