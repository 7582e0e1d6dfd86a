"""Activation normalisation with a data-dependent start."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebflow.layers.base import ConstantLayer, Shape, require_shape

__all__ = ["ActNorm"]


class ActNorm(ConstantLayer):
    """y = (x - t) exp(-l) with one t and one l a channel (Glow, https://arxiv.org/abs/1807.03039).

    Both are trained and saved. `initialize` sets them so that its batch leaves with zero mean and unit variance; until
    then the layer is the identity.

    Args:
        shape: Event shape, channels first: (D,) or (C, H, W).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = tuple(shape)
        parameter_shape = (shape[0], *(1 for _ in shape[1:]))
        self.shift = nn.Parameter(torch.zeros(parameter_shape))
        self.log_scale = nn.Parameter(torch.zeros(parameter_shape))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Normalise this batch.

        Args:
            x: Data of shape (B, *event), with at least two values a channel.

        Raises:
            ValueError: if a channel holds a single value or a constant, so that it has no scale.
        """
        axes = [axis for axis in range(x.dim()) if axis != 1]
        if x.numel() // x.shape[1] < 2:
            raise ValueError("ActNorm starts from a batch with at least two values a channel; use a larger batch")
        std = x.std(dim=axes, keepdim=True)[0]
        if x.device.type != "meta" and not bool((std > 0).all()):
            raise ValueError("ActNorm cannot start from a constant channel; use a larger or noisier batch")
        self.shift.copy_(x.mean(dim=axes, keepdim=True)[0])
        self.log_scale.copy_(std.log())

    def linear(self, x: Tensor) -> Tensor:
        return x * torch.exp(-self.log_scale)

    def adjoint(self, g: Tensor) -> Tensor:
        return g * torch.exp(-self.log_scale)

    def offset(self) -> Tensor:
        return -self.shift * torch.exp(-self.log_scale)

    def inverse(self, y: Tensor) -> Tensor:
        return y * torch.exp(self.log_scale) + self.shift

    def log_abs_det(self) -> Tensor:
        return -math.prod(self.shape[1:]) * self.log_scale.sum()

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, self.shape)
        return shape
