"""Every layer of the package, with an event shape that it takes and some that it refuses: a new class costs a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ebflow.layers import (
    ActNorm,
    AffineCoupling,
    Bias,
    Chain,
    ChannelCoupling,
    Convolution,
    Convolution1x1,
    Dense,
    Layer,
    Logit,
    Permutation,
    Reshape,
    Scale,
    SmoothLeakyReLU,
    Split,
    Squeeze,
    Triangular,
    Whitening,
)

DOUBLE = torch.float64


@dataclass(frozen=True)
class Case:
    """A layer, the event shape it takes, and event shapes that it must refuse."""

    build: Callable[[], Layer]
    shape: tuple[int, ...]
    refuses: tuple[tuple[int, ...], ...] = ()

    def batch(self, n: int, dtype: torch.dtype = DOUBLE) -> Tensor:
        """Inputs inside (0, 1) for the logit, on both sides of zero for the others."""
        normal = torch.randn(n, *self.shape, generator=torch.Generator().manual_seed(7), dtype=DOUBLE)
        return (torch.sigmoid(normal) if isinstance(self.build(), Logit) else 2 * normal).to(dtype)


def coupling(mask: Tensor) -> AffineCoupling:
    if mask.dim() == 1:
        return AffineCoupling(mask, nn.Sequential(nn.Linear(5, 5), nn.Tanh()), nn.Linear(5, 5))
    return AffineCoupling(mask, nn.Sequential(nn.Conv2d(2, 2, 1), nn.Tanh()), nn.Conv2d(2, 2, 3, padding=1))


def channel_coupling(shape: tuple[int, ...]) -> ChannelCoupling:
    channels = shape[0]
    return ChannelCoupling(shape, nn.Sequential(nn.Conv2d(channels // 2, channels, 3, padding=1), nn.Tanh()))


def whitening() -> Whitening:
    layer = Whitening(5).double()
    layer.initialize(torch.randn(50, 5, dtype=DOUBLE) @ torch.randn(5, 5, dtype=DOUBLE) + 1)
    return layer.float()


LAYERS = {
    "dense": Case(lambda: Dense(5), (5,), ((4,), (5, 1), ())),
    "dense, D=1": Case(lambda: Dense(1), (1,), ((2,),)),
    "dense, no bias": Case(lambda: Dense(3, bias=False), (3,), ((2,), (3, 1))),
    "bias": Case(lambda: Bias((2, 3)), (2, 3), ((3, 2), (6,), ())),
    "lower triangular": Case(lambda: Triangular(5, upper=False), (5,), ((4,), (5, 1), ())),
    "upper triangular": Case(lambda: Triangular(4, upper=True), (4,), ((5,), (15,))),
    "triangular, D=1": Case(lambda: Triangular(1, upper=True), (1,), ((2,),)),
    "convolution, k=1": Case(lambda: Convolution((3, 2, 3), 1), (3, 2, 3), ((3, 3, 2), (18,))),
    "convolution, k=3": Case(lambda: Convolution((2, 3, 5), 3), (2, 3, 5), ((2, 5, 3), (1, 3, 5))),
    "convolution, k=5": Case(lambda: Convolution((1, 5, 3), 5), (1, 5, 3), ((1, 3, 5),)),
    "convolution, k=7, beyond the image": Case(lambda: Convolution((2, 3, 2), 7), (2, 3, 2), ((2, 2, 3),)),
    "convolution 1x1": Case(lambda: Convolution1x1((3, 3, 5)), (3, 3, 5), ((3, 5, 3), (3,))),
    "convolution 1x1, even": Case(lambda: Convolution1x1((2, 4, 3)), (2, 4, 3), ((3, 4, 3),)),
    "actnorm": Case(lambda: ActNorm((5,)), (5,), ((1,), (4,), (5, 1))),
    "actnorm, image": Case(lambda: ActNorm((2, 3, 4)), (2, 3, 4), ((2, 4, 3), (1, 3, 4))),
    "scale": Case(lambda: Scale((2, 3), -0.3, 2.5), (2, 3), ((3, 2), (6,))),
    "scale, negative": Case(lambda: Scale((3,), 1.5, -0.2), (3,), ((4,),)),
    "permutation": Case(lambda: Permutation(torch.tensor([2, 0, 3, 1])), (4,), ((3,), ())),
    "permutation, image": Case(lambda: Permutation(torch.tensor([1, 2, 0])), (3, 2, 4), ((2, 2, 4),)),
    "reshape": Case(lambda: Reshape((2, 3), (3, 2, 1)), (2, 3), ((3, 2), (6,))),
    "squeeze": Case(lambda: Squeeze(), (2, 4, 6), ((2, 3, 6), (2, 4, 5), (4, 6))),
    "smooth leaky relu": Case(lambda: SmoothLeakyReLU(0.2), (4,)),
    "smooth leaky relu, residual": Case(lambda: SmoothLeakyReLU(0.3, residual=True), (2, 2, 3)),
    "coupling": Case(lambda: coupling(torch.tensor([1.0, 0, 1, 0, 0])), (5,), ((4,), (1,), (), (0,))),
    "coupling, image": Case(lambda: coupling(torch.tensor([1.0, 0])[:, None, None]), (2, 3, 4), ((3, 3, 4), (2,))),
    "channel coupling": Case(lambda: channel_coupling((4, 3, 2)), (4, 3, 2), ((4, 2, 3), (2, 3, 2), (4,))),
    "chain": Case(lambda: Chain((3,), [Dense(3), SmoothLeakyReLU(0.2), ActNorm((3,))]), (3,), ((4,), (3, 1), ())),
    "split": Case(
        lambda: Split(
            (4, 2, 2), [ActNorm((2, 2, 2)), Squeeze(), Convolution1x1((8, 1, 1)), channel_coupling((8, 1, 1))]
        ),
        (4, 2, 2),
        ((2, 2, 2), (4, 2, 1), (16,)),
    ),
    "whitening": Case(whitening, (5,), ((4,), (5, 1))),
    "logit": Case(lambda: Logit(0.5), (2, 3)),
}
