"""Affine coupling with a mask and two networks of the caller's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ebflow.layers.base import Shape, VaryingLayer

__all__ = ["AffineCoupling"]


class AffineCoupling(VaryingLayer):
    """y = m x + (1 - m) (x - t(m x)) exp(-s(m x)) (RealNVP, https://arxiv.org/abs/1605.08803).

    Args:
        mask: m, ones where a component passes unchanged; broadcasts against one sample.
        log_scale: The network s, from (B, *event) to (B, *event).
        shift: The network t, likewise.
    """

    def __init__(self, mask: Tensor, log_scale: nn.Module, shift: nn.Module) -> None:
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask)
        self.log_scale = log_scale
        self.shift = shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        kept, free = self.mask * x, 1 - self.mask
        log_scale = free * self.log_scale(kept)
        y = kept + free * (x - self.shift(kept)) * torch.exp(-log_scale)
        return y, -log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:  # noqa: D102
        kept, free = self.mask * y, 1 - self.mask
        return kept + free * (y * torch.exp(self.log_scale(kept)) + self.shift(kept))

    def output_shape(self, shape: Shape) -> Shape:  # noqa: D102
        fits = len(self.mask.shape) <= len(shape) and all(
            extent in (1, size) for extent, size in zip(reversed(self.mask.shape), reversed(shape), strict=False)
        )
        if not fits:
            raise ValueError(f"a mask of shape {tuple(self.mask.shape)} does not fit samples of shape {tuple(shape)}")
        return shape
