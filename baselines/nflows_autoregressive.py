"""nflows 0.14 (https://github.com/bayesiains/nflows), MAF and MADE, trained by maximum likelihood.

L blocks behind an ActNorm that starts from data; MADE is one block. The order of the components is reversed before
every block. The problem says how large networks are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines._nflows_model import Blocks
from baselines._published_recipes import masked_autoregressive
from harness.methods import Method, Problem

if TYPE_CHECKING:
    from torch import nn

__all__ = ["METHODS"]


def _maf(problem: Problem) -> Blocks:
    from nflows.transforms import MaskedAffineAutoregressiveTransform, ReversePermutation

    dimension = problem.dimension
    transforms: list[nn.Module] = []
    for _ in range(problem.layers):
        affine = MaskedAffineAutoregressiveTransform(
            dimension,
            problem.hidden,
            num_blocks=problem.blocks,
            use_residual_blocks=False,
            dropout_probability=problem.dropout,
        )
        transforms += [ReversePermutation(dimension), affine]
    return Blocks(problem, transforms)


def _made(problem: Problem) -> Blocks:
    return _maf(problem.replace(layers=1))


METHODS = [
    Method(
        name="nflows-maf-ml",
        objective="ml",
        linear="none",
        build=_maf,
        requires=("nflows.flows",),
        summary="masked affine autoregressive blocks; a sample takes D passes",
        paper="https://arxiv.org/abs/1705.07057",
        own_recipes=masked_autoregressive(5, 1e-4),
    ),
    Method(
        name="nflows-made-ml",
        objective="ml",
        linear="none",
        build=_made,
        requires=("nflows.flows",),
        summary="one masked affine autoregressive block, whatever L is; a sample takes D passes",
        paper="https://arxiv.org/abs/1502.03509",
        own_recipes=masked_autoregressive(1, 1e-3),
    ),
]
