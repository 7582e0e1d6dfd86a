"""Layers made of layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ebflow.layers.base import ConstantLayer, Layer, Pullback, Shape, VaryingLayer, require_shape

__all__ = ["Chain", "Split"]


class Chain(VaryingLayer):
    """Layers one after the other; the log-determinants of the varying ones alone are part of the energy.

    The constant layers are named by `constant_layers`, so that they count in log Z however deep they lie.

    Args:
        shape: Event shape of the input.
        layers: The layers of the chain, from data to latent.

    Raises:
        ValueError: if a layer does not fit the shape that reaches it.
    """

    def __init__(self, shape: Shape, layers: Iterable[Layer]) -> None:
        super().__init__()
        self.layers = cast("Sequence[Layer]", nn.ModuleList(layers))  # torch does not say what a list holds
        self.shape = tuple(shape)
        latent_shape = self.shape
        for layer in self.layers:
            latent_shape = layer.output_shape(latent_shape)
        self.latent_shape = latent_shape

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        varying = x.new_zeros(x.shape[0])  # not len(x), which `torch.export` would take for a constant
        for layer in self.layers:
            x, log_det = layer(x)
            varying = varying + log_det
        return x, varying

    def inverse(self, y: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            y = layer.inverse(y)
        return y

    def linearize(self, x: Tensor) -> tuple[Tensor, Pullback]:
        pullbacks = []
        for layer in self.layers:
            x, pullback = layer.linearize(x)
            pullbacks.append(pullback)

        def through_all(score: Tensor) -> Tensor:
            for pullback in reversed(pullbacks):
                score = pullback(score)
            return score

        return x, through_all

    def constant_layers(self) -> Iterator[ConstantLayer]:
        for layer in self.layers:
            yield from layer.constant_layers()

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, self.shape)
        return self.latent_shape

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        for layer in self.layers:
            layer.initialize(x)
            x, _ = layer(x)


class Split(Chain):
    """The first half of the channels goes through further layers, the second half is latent already.

    The output is the vector of both, the chain's first. Where Glow (https://arxiv.org/abs/1807.03039) scores the second
    half by N(0, I) and drops it, here the base of the flow scores it: the same density, by a bijection.

    Args:
        shape: Event shape, channels first, an even number of them.
        layers: The layers from the first half of the channels to its latent.

    Raises:
        ValueError: if the number of channels is odd, or a layer does not fit the shape that reaches it.
    """

    def __init__(self, shape: Shape, layers: Iterable[Layer]) -> None:
        if not shape or shape[0] % 2:
            raise ValueError(f"a split takes an even number of channels, not samples of shape {tuple(shape)}")
        super().__init__((shape[0] // 2, *shape[1:]), layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.chunk(2, dim=1)
        y, varying = super().forward(first)
        return self._join(y, second), varying

    def inverse(self, y: Tensor) -> Tensor:
        first, second = self._part(y)
        return torch.cat([super().inverse(first), second], dim=1)

    def linearize(self, x: Tensor) -> tuple[Tensor, Pullback]:
        first, second = x.chunk(2, dim=1)
        y, through_first = super().linearize(first)

        def pullback(score: Tensor) -> Tensor:
            of_first, of_second = self._part(score)
            return torch.cat([through_first(of_first), of_second], dim=1)

        return self._join(y, second), pullback

    def output_shape(self, shape: Shape) -> Shape:
        channels, *rest = self.shape
        require_shape(self, shape, (2 * channels, *rest))
        return (2 * math.prod(self.shape),)

    def initialize(self, x: Tensor) -> None:
        super().initialize(x.chunk(2, dim=1)[0])

    def _join(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([first.flatten(1), second.flatten(1)], dim=1)

    def _part(self, y: Tensor) -> tuple[Tensor, Tensor]:
        first, second = y.chunk(2, dim=1)
        return first.reshape(len(y), *self.latent_shape), second.reshape(len(y), *self.shape)
