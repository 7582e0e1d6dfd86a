"""Convolutions that keep the shape of an image, with their exact determinants."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ebflow.layers import toeplitz
from ebflow.layers.base import ConstantLayer, Shape, no_inverse, require_shape, solve, under_torch_func

__all__ = ["Convolution", "Convolution1x1"]

_DENSE_UP_TO = 1000
"""D up to which one factorisation of the whole matrix is quicker than an elimination of its band."""


class Convolution(ConstantLayer):
    """Zero-padded "same" convolution from C to C channels; starts as the identity.

    As a map of the flattened image it is one D x D matrix, D = C H W, unconstrained within the convolution's pattern.

    Args:
        shape: Event shape (C, H, W).
        kernel_size: An odd number.

    Raises:
        ValueError: if the shape is not that of images, or the kernel size is even or below 1.
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

    def linear(self, x: Tensor) -> Tensor:
        return _convolve(x, self.weight)

    def adjoint(self, g: Tensor) -> Tensor:
        # The convolution with the kernel turned around: for few channels several times quicker than the transposed one.
        return _convolve(g, self.weight.transpose(0, 1).flip(2, 3))

    def offset(self) -> Tensor:
        return self.bias[:, None, None]

    def matrix(self) -> Tensor:
        """Return the D x D matrix of the convolution without its bias (differentiable)."""
        return toeplitz.matrix(self.weight, *self.shape[1:])

    def inverse(self, y: Tensor) -> Tensor:
        centred = y - self.offset()
        if math.prod(self.shape) <= _DENSE_UP_TO or torch.compiler.is_compiling():  # which looks at no pivot
            return solve(self, self.matrix(), centred.flatten(1).mT).mT.reshape(y.shape)
        x, pivot = toeplitz.solve(self.weight, centred)
        if not (pivot.is_meta or under_torch_func()) and not bool(pivot > 0):  # nor is what is no number
            raise no_inverse(self, self.weight)
        return x

    def log_abs_det(self) -> Tensor:
        device = self.weight.device.type
        # Never in the lower precision of an autocast around it: determinants are not products of a batch.
        with nullcontext() if device == "meta" else torch.autocast(device, enabled=False):
            return toeplitz.log_abs_det(self.weight, *self.shape[1:])

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, self.shape)
        return shape


class Convolution1x1(ConstantLayer):
    """The same C x C matrix at every pixel (Glow, https://arxiv.org/abs/1807.03039); starts as a random rotation.

    Args:
        shape: Event shape (C, H, W).

    Raises:
        ValueError: if the shape is not that of images.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"a convolution takes images of shape (C, H, W), not {tuple(shape)}")
        self.shape = tuple(shape)
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(shape[0], shape[0])))

    def linear(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight[:, :, None, None])

    def adjoint(self, g: Tensor) -> Tensor:
        return nn.functional.conv2d(g, self.weight.mT[:, :, None, None])

    def inverse(self, y: Tensor) -> Tensor:
        # The batch joins the pixels, so that the matrix is factored once and not once a sample.
        pixels = y.transpose(0, 1)
        return solve(self, self.weight, pixels.flatten(1)).reshape(pixels.shape).transpose(0, 1)

    def log_abs_det(self) -> Tensor:
        _, height, width = self.shape
        return height * width * torch.linalg.slogdet(self.weight).logabsdet

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, self.shape)
        return shape


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Zero-padded convolution, shape (B, C, H, W)."""
    if x.shape[1] > 1 or x.device.type != "cpu" or x.dtype != torch.float32 or not len(x):
        return nn.functional.conv2d(x, kernel, padding="same")
    # The samples as channels of one depthwise convolution: on a CPU, where one channel finds no quick kernel, three
    # times as fast (in float64 there is none for this either).
    samples = nn.functional.conv2d(x.transpose(0, 1), kernel.expand(len(x), -1, -1, -1), padding="same", groups=len(x))
    return samples.transpose(0, 1)
