"""nflows 0.14 (https://github.com/bayesiains/nflows), spline couplings, MAF and MADE, trained by maximum likelihood.

L blocks behind an ActNorm that starts from data, since splines bend nothing beyond their bounds; MADE is one block. The
problem says how large networks and splines are. Couplings transform the even and the odd components in turn; MAF
reverses the order before every block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from baselines._nflows_model import NflowsModel
from baselines._published_recipes import coupling_splines, masked_autoregressive
from harness.methods import Method, Problem

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["METHODS"]


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
    from nflows.transforms import LULinear, PiecewiseRationalQuadraticCouplingTransform, RandomPermutation
    from nflows.utils import create_alternating_binary_mask

    dimension = problem.dimension
    if dimension < 2:
        raise ValueError("a coupling needs samples of at least two components; use --dims 2 or more")
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
        name="nflows-nsf-ml",
        objective="ml",
        linear="none",
        build=_nsf,
        requires=("nflows.flows",),
        summary="rational-quadratic spline couplings with residual networks",
        paper="https://arxiv.org/abs/1906.04032",
        own_recipes=coupling_splines(),
        meta_device=False,  # splines sort samples into those within their bounds and the others
    ),
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
