"""Affine couplings, with networks that the caller provides."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebflow.layers.base import Shape, VaryingLayer, require_shape

__all__ = ["AffineCoupling", "ChannelCoupling"]


class AffineCoupling(VaryingLayer):
    """y = m x + (1 - m) (x - t(m x)) exp(-s(m x)) (RealNVP, https://arxiv.org/abs/1605.08803).

    Args:
        mask: The mask m, with ones where a component passes unchanged; broadcasts against one sample.
        log_scale: The network s, from (B, *event) to (B, *event).
        shift: The network t, from (B, *event) to (B, *event).
    """

    def __init__(self, mask: Tensor, log_scale: nn.Module, shift: nn.Module) -> None:
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask)
        self.log_scale = log_scale
        self.shift = shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        near = _stopped(x)
        kept, free = self.mask * near, 1 - self.mask
        log_scale = free * self.log_scale(kept)
        scale = torch.exp((-log_scale).clamp(max=math.log(_most(x))))
        y = kept + free * (near - self.shift(kept)) * scale
        return _stopped(y), _without_density(x, y, -log_scale.flatten(1).sum(1))

    def inverse(self, y: Tensor) -> Tensor:
        kept, free = self.mask * y, 1 - self.mask
        return kept + free * (y * torch.exp(self.log_scale(kept)) + self.shift(kept))

    def output_shape(self, shape: Shape) -> Shape:
        fits = len(self.mask.shape) <= len(shape) and all(
            extent in (1, size) for extent, size in zip(reversed(self.mask.shape), reversed(shape), strict=False)
        )
        if not fits:
            raise ValueError(f"a mask of shape {tuple(self.mask.shape)} does not fit samples of shape {tuple(shape)}")
        return shape


class ChannelCoupling(VaryingLayer):
    """y_2 = x_2 exp(2 tanh(h / 2)) + t, with h and t the even and odd channels of network(x_1); y_1 = x_1.

    x_1 and x_2 are the halves of the channels (Glow, https://arxiv.org/abs/1807.03039, its scale bounded).

    Args:
        shape: Event shape (C, H, W), C even.
        network: A network from (B, C / 2, H, W) to (B, C, H, W).

    Raises:
        ValueError: if the shape is not that of images of an even number of channels.
    """

    def __init__(self, shape: Shape, network: nn.Module) -> None:
        super().__init__()
        if len(shape) != 3 or shape[0] % 2:
            raise ValueError(f"a coupling takes images of an even number of channels, not of shape {tuple(shape)}")
        self.shape = tuple(shape)
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, free = _stopped(x).chunk(2, dim=1)
        log_scale, shift = self._coefficients(kept)
        y = torch.cat([kept, free * torch.exp(log_scale) + shift], dim=1)
        return _stopped(y), _without_density(x, y, log_scale.flatten(1).sum(1))

    def inverse(self, y: Tensor) -> Tensor:
        kept, free = y.chunk(2, dim=1)
        log_scale, shift = self._coefficients(kept)
        return torch.cat([kept, (free - shift) * torch.exp(-log_scale)], dim=1)

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, self.shape)
        return shape

    def _coefficients(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        h = self.network(kept)
        return 2 * torch.tanh(0.5 * h[:, 0::2]), h[:, 1::2]


def _most(x: Tensor) -> float:
    """Return the size at which a component stops, before the square of it or its share of a score overflows."""
    return torch.finfo(x.dtype).max ** 0.4


def _stopped(x: Tensor) -> Tensor:
    """Return components that are no larger than `_most` says, and NaN where one is not finite.

    The scale of a coupling grows exponentially with the distance from the data, and what overflows would cancel to NaN
    in the next layer.
    """
    most = _most(x)
    return x.clamp(-most, most) + 0 * x  # the second term is NaN where x is not finite, and so is its derivative


def _without_density(x: Tensor, y: Tensor, log_det: Tensor) -> Tensor:
    """Return a coupling's log|det J|, shape (B,), and -inf where a component has stopped: far from all data."""
    size = torch.maximum(x.detach().abs(), y.detach().abs()).flatten(1).amax(1)
    return log_det.masked_fill(size >= _most(x), -torch.inf)
