"""Layers that only move components: log|det J| = 0."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ebflow.layers.base import FixedLayer, Shape, require_shape

__all__ = ["Permutation", "Reshape", "Squeeze"]


class Rearrangement(FixedLayer):
    """A layer that moves components and changes none: J is orthogonal, so its transpose is its inverse."""

    def adjoint(self, g: Tensor) -> Tensor:
        return self.inverse(g)

    def transform(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Permutation(Rearrangement):
    """y_i = x_{p(i)} along the first event axis.

    Args:
        permutation: The p of the formula as an integer tensor, shape (C,).

    Raises:
        ValueError: if `permutation` is no vector of int32 or int64, or no permutation of 0, ..., C - 1.
    """

    def __init__(self, permutation: Tensor) -> None:
        super().__init__()
        if permutation.dtype not in (torch.int32, torch.int64) or permutation.dim() != 1:
            shape = tuple(permutation.shape)
            raise ValueError(f"a permutation is a vector of int32 or int64, not {permutation.dtype} of shape {shape}")
        expected = torch.arange(len(permutation), device=permutation.device, dtype=permutation.dtype)
        if not permutation.is_meta and not torch.equal(permutation.sort().values, expected):
            raise ValueError(f"not a permutation of 0..{len(permutation) - 1}")
        self.permutation: Tensor
        self.register_buffer("permutation", permutation)

    def linear(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.permutation)

    def inverse(self, y: Tensor) -> Tensor:
        return y.index_select(1, self.permutation.argsort())

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, (len(self.permutation), *shape[1:]))
        return shape


class Reshape(Rearrangement):
    """The same components in another event shape.

    Args:
        before: Event shape on the data's side.
        after: Event shape on the latent's side.

    Raises:
        ValueError: if the two shapes do not hold equally many components.
    """

    def __init__(self, before: Shape, after: Shape) -> None:
        super().__init__()
        if math.prod(before) != math.prod(after):
            raise ValueError(f"a reshape from {tuple(before)} to {tuple(after)} changes the number of components")
        self.before, self.after = tuple(before), tuple(after)

    def linear(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.after)

    def inverse(self, y: Tensor) -> Tensor:
        return y.reshape(y.shape[0], *self.before)

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, self.before)
        return self.after


class Squeeze(Rearrangement):
    """Space to depth: each 2 x 2 block of pixels becomes four channels, in the order (channel, row, column)."""

    def linear(self, x: Tensor) -> Tensor:
        # Not pixel_unshuffle, which leaves an empty batch in its old shape.
        batch, channels, height, width = x.shape
        blocks = x.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
        return blocks.reshape(batch, 4 * channels, height // 2, width // 2)

    def inverse(self, y: Tensor) -> Tensor:
        batch, channels, height, width = y.shape
        blocks = y.reshape(batch, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        return blocks.reshape(batch, channels // 4, 2 * height, 2 * width)

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[1] % 2 or shape[2] % 2:
            raise ValueError(f"squeeze halves images of even height and width, not samples of shape {tuple(shape)}")
        channels, height, width = shape
        return (4 * channels, height // 2, width // 2)
