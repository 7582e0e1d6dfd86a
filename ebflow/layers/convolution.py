"""Convolutions that keep the shape of an image, with their exact determinants."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebflow.layers.base import ConstantLayer, Shape, require_shape

__all__ = ["Convolution", "Convolution1x1"]


class Convolution(ConstantLayer):
    """Zero-padded "same" convolution from C to C channels; starts as the identity.

    As a map of the flattened image it is one D x D matrix, D = C H W, unconstrained within the convolution's pattern.

    Args:
        shape: Event shape (C, H, W).
        kernel_size: An odd number.
    """

    def __init__(self, shape: Shape, kernel_size: int) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"a convolution takes images of shape (C, H, W), not {tuple(shape)}")
        if kernel_size % 2 == 0 or kernel_size < 1:
            raise ValueError(f"a 'same' convolution needs an odd kernel size, not {kernel_size}")
        self.shape = tuple(shape)
        channels = shape[0]
        self.weight = nn.Parameter(torch.zeros(channels, channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.dirac_(self.weight)

    def linear(self, x: Tensor) -> Tensor:  # noqa: D102
        return nn.functional.conv2d(x, self.weight, padding="same")

    def adjoint(self, g: Tensor) -> Tensor:  # noqa: D102
        return nn.functional.conv_transpose2d(g, self.weight, padding=self.weight.shape[-1] // 2)

    def offset(self) -> Tensor:  # noqa: D102
        return self.bias[:, None, None]

    def transform(self, x: Tensor) -> Tensor:  # noqa: D102
        return nn.functional.conv2d(x, self.weight, self.bias, padding="same")

    def matrix(self) -> Tensor:
        """Return the D x D matrix of the convolution without its bias (differentiable)."""
        dimension = math.prod(self.shape)
        basis = torch.eye(dimension, dtype=self.weight.dtype, device=self.weight.device)
        return self.linear(basis.view(dimension, *self.shape)).flatten(1).mT

    def inverse(self, y: Tensor) -> Tensor:  # noqa: D102
        centred = (y - self.offset()).flatten(1)
        return torch.linalg.solve(self.matrix(), centred.mT).mT.reshape(y.shape)

    def log_abs_det(self) -> Tensor:  # noqa: D102
        return torch.linalg.slogdet(self.matrix().mT).logabsdet  # transposed for the reason that `Dense` gives

    def output_shape(self, shape: Shape) -> Shape:  # noqa: D102
        require_shape(self, shape, self.shape)
        return shape


class Convolution1x1(ConstantLayer):
    """The same C x C matrix at every pixel (Glow, https://arxiv.org/abs/1807.03039); starts as a random rotation.

    Args:
        shape: Event shape (C, H, W).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"a convolution takes images of shape (C, H, W), not {tuple(shape)}")
        self.shape = tuple(shape)
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(shape[0], shape[0])))

    def linear(self, x: Tensor) -> Tensor:  # noqa: D102
        return nn.functional.conv2d(x, self.weight[:, :, None, None])

    def adjoint(self, g: Tensor) -> Tensor:  # noqa: D102
        return nn.functional.conv2d(g, self.weight.mT[:, :, None, None])

    def inverse(self, y: Tensor) -> Tensor:  # noqa: D102
        # The batch joins the pixels, so that the matrix is factored once and not once a sample.
        pixels = y.transpose(0, 1)
        return torch.linalg.solve(self.weight, pixels.flatten(1)).reshape(pixels.shape).transpose(0, 1)

    def log_abs_det(self) -> Tensor:  # noqa: D102
        _, height, width = self.shape
        return height * width * torch.linalg.slogdet(self.weight).logabsdet

    def output_shape(self, shape: Shape) -> Shape:  # noqa: D102
        require_shape(self, shape, self.shape)
        return shape
