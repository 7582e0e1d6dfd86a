"""normflows (https://github.com/VincentStimper/normalizing-flows), spline couplings, by maximum likelihood.

L couplings behind an ActNorm that starts from data, since splines bend nothing beyond their bounds. They transform the
odd and the even components in turn; the others pass through a spline without a network.
"""

from __future__ import annotations

from baselines._normflows_model import NormflowsModel, chain
from harness.methods import Method, Problem

__all__ = ["METHODS"]


def _build(problem: Problem) -> NormflowsModel:
    from normflows.flows import ActNorm, CoupledRationalQuadraticSpline

    dimension = problem.dimension
    if dimension < 2:
        raise ValueError("a coupling needs samples of at least two components; use --dims 2 or more")
    couplings = [
        CoupledRationalQuadraticSpline(
            dimension, num_blocks=2, num_hidden_channels=256, num_bins=8, tail_bound=5.0, reverse_mask=index % 2 == 1
        )
        for index in range(problem.layers)
    ]
    return NormflowsModel(problem, chain(problem, [ActNorm((dimension,)), *couplings]))


METHODS = [
    Method(
        name="normflows-nsf-ml",
        objective="ml",
        linear="none",
        build=_build,
        requires=("normflows",),
        summary="rational-quadratic spline couplings, 8 bins on [-5, 5], residual networks of 256 units",
        paper="https://arxiv.org/abs/1906.04032",
        meta_device=False,  # splines sort samples into those within their bounds and the others
    )
]
