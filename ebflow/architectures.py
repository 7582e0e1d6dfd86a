"""The paper's networks: fc, cnn and glow for images, toy for 2-D densities, multimodal for a 10-D one."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ebflow.flow import EBFlow
from ebflow.layers import (
    ActNorm,
    AffineCoupling,
    ChannelCoupling,
    Convolution,
    Convolution1x1,
    Dense,
    Layer,
    Logit,
    Reshape,
    Scale,
    SmoothLeakyReLU,
    Split,
    Squeeze,
    Triangular,
    Whitening,
)
from ebflow.layers.base import Shape

__all__ = ["Matrix", "cnn", "fc", "glow", "multimodal", "raw_pixels", "toy", "whitened_fc"]

Matrix = Literal["full", "lower", "upper", "lu"]
"""The forms of a linear layer that the paper compares; lu is a product of a lower and an upper one."""


def fc(
    shape: Shape, layers: int = 2, *, alpha: float = 0.3, residual: bool = False, before: tuple[Layer, ...] = ()
) -> EBFlow:
    """Dense layers with smooth leaky ReLUs between them, started at -I with unit biases as in the paper.

    1,230,880 parameters on MNIST, 18,880,512 on CIFAR-10.

    Args:
        shape: Event shape of the data; images are flattened.
        layers: Number L of dense layers.
        alpha: Slope far below zero of the smooth leaky ReLU.
        residual: Whether the smooth leaky ReLU is in its residual form.
        before: Layers in front of the network, such as `raw_pixels`.

    Raises:
        ValueError: if layers is below 1, or a layer in front does not fit the shape.
    """
    _at_least_one(layers)
    dimension = math.prod(shape)
    chain: list[Layer] = list(before)
    if len(shape) != 1:
        chain.append(Reshape(shape, (dimension,)))
    for index in range(layers):
        if index:
            chain.append(SmoothLeakyReLU(alpha, residual))
        dense = Dense(dimension)
        assert dense.bias is not None
        nn.init.ones_(dense.bias)
        _negate(dense.weight)
        chain.append(dense)
    return EBFlow(shape, chain)


def whitened_fc(shape: Shape, layers: int = 2, *, alpha: float = 0.3, residual: bool = False) -> EBFlow:
    """The network of `fc` behind a fixed whitening, to be started by `ebflow.initialization.from_data`.

    As many trained numbers as `fc`, and the same family of densities: `ebflow.initialization.fold` takes the whitening
    up into the first dense layer.

    Args:
        shape: Event shape of the data; images are flattened.
        layers: Number L of dense layers.
        alpha: Slope far below zero of the smooth leaky ReLU.
        residual: Whether the smooth leaky ReLU is in its residual form.

    Raises:
        ValueError: if layers is below 1.
    """
    dimension = math.prod(shape)
    before = () if len(shape) == 1 else (Reshape(shape, (dimension,)),)
    inner = fc((dimension,), layers, alpha=alpha, residual=residual)
    return EBFlow(shape, [*before, Whitening(dimension), *inner.layers])


def cnn(
    shape: Shape, layers: int = 6, *, alpha: float = 0.3, residual: bool = True, before: tuple[Layer, ...] = ()
) -> EBFlow:
    """7 x 7 convolutions at three resolutions, a squeeze between them, a smooth leaky ReLU after all but the last.

    26,796 parameters on MNIST, 240,912 on CIFAR-10, with the paper's six layers. Kernels start at minus the identity,
    biases at random.

    Args:
        shape: Event shape (C, H, W); H and W are multiples of four.
        layers: Number L of convolutions: a multiple of three.
        alpha: Slope far below zero of the smooth leaky ReLU.
        residual: Whether the smooth leaky ReLU is in its residual form.
        before: Layers in front of the network, such as `raw_pixels`.

    Raises:
        ValueError: if layers is no multiple of three, or the shape is not that of images with sides that are multiples
            of four.
    """
    _at_least_one(layers)
    if layers % 3:
        raise ValueError(f"the cnn spreads its layers over three resolutions: L must be a multiple of 3, not {layers}")
    chain: list[Layer] = list(before)
    at = tuple(shape)
    for index in range(layers):
        if index and index % (layers // 3) == 0:
            squeeze = Squeeze()
            at = squeeze.output_shape(at)
            chain.append(squeeze)
        convolution = Convolution(at, kernel_size=7)
        _negate(convolution.weight)
        # The standard deviation that the authors' bias start has: that of a Xavier draw with gain 0.01.
        nn.init.normal_(convolution.bias, std=0.01 / math.sqrt(49 * at[0]))
        chain.append(convolution)
        if index < layers - 1:
            chain.append(SmoothLeakyReLU(alpha, residual))
    return EBFlow(shape, chain)


def glow(shape: Shape, layers: int = 32, *, width: int = 512, before: tuple[Layer, ...] = ()) -> EBFlow:
    """ActNorm, 1 x 1 convolution and channel coupling, repeated at two resolutions with a split between them.

    10,041,352 parameters on MNIST. After the first resolution half of the components, coupled once more, are latent
    (Glow, https://arxiv.org/abs/1807.03039, with the paper's couplings).

    Args:
        shape: Event shape (C, H, W); H and W are multiples of four.
        layers: Number L of 1 x 1 convolutions: a multiple of two.
        width: Channels of the coupling networks' two hidden layers.
        before: Layers in front of the network, such as `raw_pixels`.

    Raises:
        ValueError: if layers is no multiple of two, or the shape is not that of images with sides that are multiples of
            four.
    """
    _at_least_one(layers)
    if layers % 2:
        raise ValueError(f"glow spreads its layers over two resolutions: L must be a multiple of 2, not {layers}")
    upper = Squeeze().output_shape(shape)
    half = (upper[0] // 2, *upper[1:])
    lower = Squeeze().output_shape(half)
    leave = ChannelCoupling(upper, _CouplingNetwork(upper[0], width, slope=0.0))
    nested = Split(upper, [Squeeze(), *_glow_steps(lower, layers // 2, width)])
    return EBFlow(shape, [*before, Squeeze(), *_glow_steps(upper, layers // 2, width), leave, nested])


def toy(shape: Shape = (2,), layers: int = 11, *, width: int = 64) -> EBFlow:
    """Dense, masked affine coupling, ActNorm, repeated, and one dense layer more (paper, 2-D experiments).

    Args:
        shape: Event shape (D,), D of at least 2.
        layers: Number L of dense layers.
        width: Units of the coupling networks' three hidden layers.

    Raises:
        ValueError: if layers is below 1, or the shape is not that of vectors of at least two components.
    """
    _at_least_one(layers)
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(f"the toy flow takes vectors of at least two components, not samples of shape {tuple(shape)}")
    (dimension,) = shape
    chain: list[Layer] = []
    for index in range(layers - 1):
        mask = ((torch.arange(dimension) + index) % 2).to(torch.get_default_dtype())
        coupling = AffineCoupling(mask, _perceptron(dimension, width, Swish), _perceptron(dimension, width, _elu))
        chain += [_orthogonal(dimension), coupling, ActNorm(shape)]
    return EBFlow(shape, [*chain, _orthogonal(dimension)])


def multimodal(shape: Shape = (10,), layers: int = 11, *, matrix: Matrix = "full", alpha: float = 0.3) -> EBFlow:
    """Linear layer, smooth leaky ReLU, ActNorm, repeated, and one linear layer more (paper, appendix on linear layers).

    The linear layers have no bias. As in the authors' code, `matrix` is the form of M in z = x M, which is the
    transpose of W in z = W x: with an upper M, z_i depends on x_1, ..., x_i. M starts orthogonal, and as the triangle
    of an orthogonal matrix where its form is triangular; lu is an upper one followed by a lower one, and the lower one
    starts with ones.

    Args:
        shape: Event shape of the data (D,).
        layers: Number L of linear layers; lu counts as one.
        matrix: Form of the linear layers.
        alpha: Slope far below zero of the smooth leaky ReLU.

    Raises:
        ValueError: if layers is below 1, the shape is not that of vectors, or the form of the matrix is unknown.
    """
    _at_least_one(layers)
    if len(shape) != 1:
        raise ValueError(f"the multimodal flow takes vectors, not samples of shape {tuple(shape)}")
    (dimension,) = shape
    chain: list[Layer] = []
    for _ in range(layers - 1):
        chain += [*_linear(dimension, matrix), SmoothLeakyReLU(alpha), ActNorm(shape)]
    return EBFlow(shape, [*chain, *_linear(dimension, matrix)])


def raw_pixels(shape: Shape, *, levels: int = 256, margin: float = 1e-6, alpha: float) -> tuple[Layer, ...]:
    """Scale dequantised pixels into (0, 1) and take the logit, inside the model (the paper's ablation without MaP).

    Args:
        shape: Event shape of the images.
        levels: Number of grey levels; pixels lie in [0, levels).
        margin: Distance kept from 0 and 1.
        alpha: Divisor of the logit.

    Raises:
        ValueError: if there are fewer than two levels, the margin leaves nothing between 0 and 1, or alpha is not above
            0.
    """
    if levels < 2:
        raise ValueError(f"pixels have at least two grey levels, not {levels}")
    if not 0 <= margin < 0.5:
        raise ValueError(f"the margin kept from 0 and 1 must be at least 0 and below 0.5, not {margin}")
    return Scale(shape, shift=-margin * levels, divisor=levels / (1 - 2 * margin)), Logit(alpha)


class Swish(nn.Module):
    """x sigmoid(beta x) with one trained beta a unit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


class _CouplingNetwork(nn.Module):
    """Convolutions 3 x 3, 1 x 1 and 3 x 3, from C / 2 to C channels; zero at the start.

    Every product is that of a matrix with the pixels: the first convolution by patches of its few inputs, the last by
    adding up patches of its few outputs. On a CPU that trains a quarter quicker than convolutions, and differentiates
    twice, as score matching does, in little more than half their time.

    Args:
        channels: Number C of channels.
        width: Channels of the hidden layers.
        slope: Slope of the leaky ReLUs below zero.
    """

    def __init__(self, channels: int, width: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.first = nn.Linear(9 * (channels // 2), width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, 9 * channels, bias=False)
        nn.init.zeros_(self.last.weight)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_gain = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C / 2, H, W) to (B, C, H, W)."""
        patches = nn.functional.unfold(x, 3, padding=1).mT
        hidden = nn.functional.leaky_relu(self.first(patches), self.slope)
        hidden = nn.functional.leaky_relu(self.second(hidden), self.slope)
        y = nn.functional.fold(self.last(hidden).mT, x.shape[2:], 3, padding=1)
        return (y + self.bias) * torch.exp(3 * self.log_gain)


def _glow_steps(shape: Shape, count: int, width: int) -> list[Layer]:
    steps: list[Layer] = []
    for _ in range(count):
        coupling = ChannelCoupling(shape, _CouplingNetwork(shape[0], width, slope=0.1))
        steps += [ActNorm(shape), Convolution1x1(shape), coupling]
    return steps


def _elu(width: int) -> nn.Module:
    return nn.ELU()


def _perceptron(dimension: int, width: int, activation: Callable[[int], nn.Module]) -> nn.Module:
    widths = [dimension, width, width, width]
    hidden = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), activation(b))]
    return nn.Sequential(*hidden, nn.Linear(width, dimension))


def _linear(dimension: int, matrix: Matrix) -> list[Layer]:
    """Return one linear layer of `multimodal`, data to latent."""
    if matrix not in get_args(Matrix):
        raise ValueError(f"the matrices of the multimodal flow are {', '.join(get_args(Matrix))}, not {matrix!r}")
    if matrix == "full":
        return [_orthogonal(dimension, bias=False)]
    # z = x M is z = W x with W the transpose of M.
    first = Triangular(dimension, upper=matrix == "lower")
    first.fill(nn.init.orthogonal_(torch.empty(dimension, dimension)))
    if matrix != "lu":
        return [first]
    second = Triangular(dimension, upper=True)
    second.fill(torch.ones(dimension, dimension))
    return [first, second]


def _orthogonal(dimension: int, bias: bool = True) -> Dense:
    dense = Dense(dimension, bias)
    nn.init.orthogonal_(dense.weight)
    return dense


def _negate(weight: Tensor) -> None:
    with torch.no_grad():
        weight.neg_()


def _at_least_one(layers: int) -> None:
    if layers < 1:
        raise ValueError(f"a flow needs at least one linear layer, not {layers}")
