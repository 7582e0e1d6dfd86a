"""Activation normalisation with a data-dependent start."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebflow.layers.base import ConstantLayer, Shape, require_finite, require_shape

__all__ = ["ActNorm"]


class ActNorm(ConstantLayer):
    """y = (x - t) exp(-l) with one t and one l a channel (Glow, https://arxiv.org/abs/1807.03039).

    Both are trained and saved. `initialize` sets them so that its batch leaves with zero mean and unit variance; until
    then the layer is the identity. A batch with a single value a channel has no variance and leaves the layer as it is.

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
            x: Data of shape (B, *event).

        Raises:
            ValueError: if the batch is empty or holds a number that is not finite, or if a channel is constant or its
                spread overflows, so that the channel has no scale.
        """
        axes = [axis for axis in range(x.dim()) if axis != 1]
        if not len(x):
            raise ValueError("ActNorm cannot start from an empty batch")
        require_finite(x)
        if x.numel() == x.shape[1]:
            return
        std = x.std(dim=axes, keepdim=True)[0]
        if not x.is_meta:
            self._require_scale(x.movedim(1, 0).flatten(1), std.flatten())
        self.shift.copy_(x.mean(dim=axes, keepdim=True)[0])
        self.log_scale.copy_(std.log())

    def _require_scale(self, values: Tensor, std: Tensor) -> None:
        """Raise an error that names the first channel without a scale; values of shape (C, N), std of shape (C,)."""
        constant = (values.amax(1) == values.amin(1)) | (std == 0)
        if bool(constant.any()):
            channel = int(constant.nonzero()[0])
            raise ValueError(
                f"ActNorm cannot start from channel {channel}, which is {float(values[channel, 0]):g} in all of the "
                "batch: use a larger or noisier batch, or leave the channel out"
            )
        if not bool(std.isfinite().all()):
            channel = int((~std.isfinite()).nonzero()[0])
            raise ValueError(
                f"the spread of channel {channel} overflows {values.dtype}: scale the data, or use float64"
            )

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
