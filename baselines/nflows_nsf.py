"""nflows 0.14 (https://github.com/bayesiains/nflows), spline couplings, trained by maximum likelihood.

L couplings behind an ActNorm that starts from data, since splines bend nothing beyond their bounds. The problem says
how large networks and splines are. Couplings transform the even and the odd components in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines._nflows_model import Blocks
from baselines._published_recipes import coupling_splines
from harness.methods import Method, Problem

if TYPE_CHECKING:
    from torch import nn

__all__ = ["METHODS"]


def _nsf(problem: Problem) -> Blocks:
    from nflows.nn.nets import ResidualNet
    from nflows.transforms import LULinear, PiecewiseRationalQuadraticCouplingTransform, RandomPermutation
    from nflows.utils import create_alternating_binary_mask

    dimension = problem.dimension
    if dimension < 2:
        raise ValueError("a coupling needs samples of at least two components, not D = 1; choose another method")
    transforms: list[nn.Module] = []
    for index in range(problem.layers):
        if problem.mixing:
            transforms += [RandomPermutation(dimension), LULinear(dimension, identity_init=True)]
        transforms.append(
            PiecewiseRationalQuadraticCouplingTransform(
                create_alternating_binary_mask(dimension, even=index % 2 == 0),
                lambda inputs, outputs: ResidualNet(
                    inputs, outputs, problem.hidden, num_blocks=problem.blocks, dropout_probability=problem.dropout
                ),
                num_bins=problem.bins,
                tails="linear",
                tail_bound=problem.tail_bound,
                apply_unconditional_transform=problem.mixing,
            )
        )
    if problem.mixing:
        transforms += [RandomPermutation(dimension), LULinear(dimension, identity_init=True)]
    return Blocks(problem, transforms)


METHODS = [
    Method(
        name="nflows-nsf-ml",
        objective="ml",
        linear="none",
        build=_nsf,
        requires=("nflows.flows",),
        summary="rational-quadratic spline couplings with residual networks",
        paper="https://arxiv.org/abs/1906.04032",
        own_recipes=coupling_splines(),
        meta_device=False,  # splines sort samples into those within their bounds and the others
    )
]
