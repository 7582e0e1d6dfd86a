"""nflows 0.14 (https://github.com/bayesiains/nflows), spline couplings and MAF, trained by maximum likelihood.

L blocks behind an ActNorm that starts from data, since splines bend nothing beyond their bounds. Networks have two
hidden layers of 256 units (MAF) or two residual blocks of as many (splines), splines 8 bins on [-5, 5]. Couplings
transform the even and the odd components in turn; MAF reverses the order before every block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from baselines._nflows_model import NflowsModel
from harness.methods import Method, Problem

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["METHODS"]

_HIDDEN = 256


class Blocks(NflowsModel):
    """Transforms of vectors behind an ActNorm."""

    def __init__(self, problem: Problem, transforms: Sequence[nn.Module]) -> None:
        from nflows.transforms.normalization import ActNorm

        self.front = ActNorm(problem.dimension)
        # It would start from whatever it sees first in training mode, and look at a buffer at every step to know.
        del self.front.initialized
        self.front.initialized = True
        self.front.requires_grad_(not problem.frozen_actnorm)
        super().__init__(problem, [self.front, *transforms])

    def init_batch(self, x: Tensor) -> None:
        import torch

        if len(x) == 1:
            return  # one sample has no scale
        std, mean = torch.std_mean(x.flatten(1), 0)
        with torch.no_grad():
            self.front.log_scale.copy_(-(std + 1e-6).log())
            self.front.shift.copy_(-mean / (std + 1e-6))


def _nsf(problem: Problem) -> Blocks:
    from nflows.nn.nets import ResidualNet
    from nflows.transforms import PiecewiseRationalQuadraticCouplingTransform
    from nflows.utils import create_alternating_binary_mask

    dimension = problem.dimension
    if dimension < 2:
        raise ValueError("a coupling needs samples of at least two components; use --dims 2 or more")
    couplings = [
        PiecewiseRationalQuadraticCouplingTransform(
            create_alternating_binary_mask(dimension, even=index % 2 == 0),
            lambda inputs, outputs: ResidualNet(inputs, outputs, _HIDDEN),
            num_bins=8,
            tails="linear",
            tail_bound=5.0,
        )
        for index in range(problem.layers)
    ]
    return Blocks(problem, couplings)


def _maf(problem: Problem) -> Blocks:
    from nflows.transforms import MaskedAffineAutoregressiveTransform, ReversePermutation

    dimension = problem.dimension
    transforms: list[nn.Module] = []
    for _ in range(problem.layers):
        affine = MaskedAffineAutoregressiveTransform(dimension, _HIDDEN, num_blocks=2, use_residual_blocks=False)
        transforms += [ReversePermutation(dimension), affine]
    return Blocks(problem, transforms)


METHODS = [
    Method(
        name="nflows-nsf-ml",
        objective="ml",
        linear="none",
        build=_nsf,
        requires=("nflows.flows",),
        summary="rational-quadratic spline couplings, 8 bins on [-5, 5], residual networks of 256 units",
        paper="https://arxiv.org/abs/1906.04032",
        meta_device=False,  # splines sort samples into those within their bounds and the others
    ),
    Method(
        name="nflows-maf-ml",
        objective="ml",
        linear="none",
        build=_maf,
        requires=("nflows.flows",),
        summary="masked affine autoregressive blocks, 2 x 256 hidden units; a sample takes D passes",
        paper="https://arxiv.org/abs/1705.07057",
    ),
]
