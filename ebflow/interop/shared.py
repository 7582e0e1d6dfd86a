"""Layers on the parameters of another library's layers, used in place: nothing is copied, so nothing can go stale.

Such a layer keeps their module whole and no tensor of its own. It therefore follows their module through `.to`,
`load_state_dict` and every edit, and an optimiser of either trains both.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ebflow.flow import EBFlow
from ebflow.layers.base import (
    ConstantLayer,
    CurvedPullback,
    Layer,
    Pullback,
    Shape,
    require_shape,
    solve,
    solve_triangular,
)

__all__ = [
    "Affine",
    "Diagonal",
    "Factor",
    "Isometry",
    "Matrix",
    "Orthogonal",
    "Product",
    "Scaling",
    "Triangle",
    "assemble",
    "flatten",
]


class Factor(ABC):
    """A square matrix A, known by what it does to rows of shape (N, C)."""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """Return A x."""

    @abstractmethod
    def adjoint(self, g: Tensor) -> Tensor:
        """Return A^T g."""

    @abstractmethod
    def solve(self, y: Tensor) -> Tensor:
        """Return the x with A x = y."""

    @abstractmethod
    def log_abs_det(self) -> Tensor | float:
        """Return log|det A|."""


@dataclass(frozen=True)
class Matrix(Factor):
    """Any square matrix, shape (C, C)."""

    matrix: Tensor

    def apply(self, x: Tensor) -> Tensor:
        return x @ self.matrix.mT

    def adjoint(self, g: Tensor) -> Tensor:
        return g @ self.matrix

    def solve(self, y: Tensor) -> Tensor:
        return solve(self, self.matrix, y.mT).mT

    def log_abs_det(self) -> Tensor | float:
        return torch.linalg.slogdet(self.matrix.mT).logabsdet


@dataclass(frozen=True)
class Triangle(Matrix):
    """A lower or upper triangular matrix."""

    upper: bool

    def solve(self, y: Tensor) -> Tensor:
        return solve_triangular(self, self.matrix, y.mT, upper=self.upper).mT

    def log_abs_det(self) -> Tensor | float:
        return self.matrix.diagonal().abs().log().sum()


@dataclass(frozen=True)
class Orthogonal(Matrix):
    """An orthogonal matrix."""

    def solve(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def log_abs_det(self) -> Tensor | float:
        return 0.0


@dataclass(frozen=True)
class Diagonal(Factor):
    """A diagonal matrix, given by its diagonal, shape (C,)."""

    diagonal: Tensor

    def apply(self, x: Tensor) -> Tensor:
        return x * self.diagonal

    def adjoint(self, g: Tensor) -> Tensor:
        return g * self.diagonal

    def solve(self, y: Tensor) -> Tensor:
        return y / self.diagonal

    def log_abs_det(self) -> Tensor | float:
        return self.diagonal.abs().log().sum()


@dataclass(frozen=True)
class Isometry(Factor):
    """An orthogonal matrix that is only known as two maps, such as reflections and permutations.

    Args:
        there: The map from x to A x.
        back: The inverse map.
    """

    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]

    def apply(self, x: Tensor) -> Tensor:
        return self.there(x)

    def adjoint(self, g: Tensor) -> Tensor:
        return self.back(g)

    def solve(self, y: Tensor) -> Tensor:
        return self.back(y)

    def log_abs_det(self) -> Tensor | float:
        return 0.0


class Product(Factor):
    """Factors one after the other, the first one applied first.

    Args:
        factors: The factors A_1, ..., A_k of the product A_k ... A_1.
    """

    def __init__(self, *factors: Factor) -> None:
        self.factors = factors

    def apply(self, x: Tensor) -> Tensor:
        for factor in self.factors:
            x = factor.apply(x)
        return x

    def adjoint(self, g: Tensor) -> Tensor:
        for factor in reversed(self.factors):
            g = factor.adjoint(g)
        return g

    def solve(self, y: Tensor) -> Tensor:
        for factor in reversed(self.factors):
            y = factor.solve(y)
        return y

    def log_abs_det(self) -> Tensor | float:
        return sum(factor.log_abs_det() for factor in self.factors)


class Affine(ConstantLayer):
    """z = A x + b along the first event axis: a linear layer, or a 1x1 convolution of an image.

    Args:
        theirs: The other library's layer.
        shape: Event shape.
        factor: A function that makes A of their layer, and can be pickled as the layer is. A sweep calls it once, so
            that no matrix is assembled twice.
        bias: A function that makes b of their layer, shape (C,), and can be pickled.
    """

    def __init__(
        self,
        theirs: nn.Module,
        shape: Shape,
        factor: Callable[[Any], Factor],
        bias: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.theirs, self.shape = theirs, tuple(shape)
        self._factor, self._bias = factor, bias

    def linear(self, x: Tensor) -> Tensor:
        return _along_channels(self._factor(self.theirs).apply, x)

    def adjoint(self, g: Tensor) -> Tensor:
        return _along_channels(self._factor(self.theirs).adjoint, g)

    def offset(self) -> Tensor | float:
        if self._bias is None:
            return 0.0
        return self._bias(self.theirs).view(-1, *(1 for _ in self.shape[1:]))

    def linearize(self, x: Tensor) -> tuple[Tensor, Pullback]:
        factor = self._factor(self.theirs)
        y = _along_channels(factor.apply, x) + self.offset()
        return y, lambda score: _along_channels(factor.adjoint, score)

    def linearize_along(self, x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor, CurvedPullback]:
        factor = self._factor(self.theirs)
        y, dy = _along_channels(factor.apply, torch.cat([x, tangent])).chunk(2)
        return y + self.offset(), dy, lambda score: (_along_channels(factor.adjoint, score), score.new_zeros(()))

    def inverse(self, y: Tensor) -> Tensor:
        return _along_channels(self._factor(self.theirs).solve, y - self.offset())

    def log_abs_det(self) -> Tensor:
        return torch.as_tensor(math.prod(self.shape[1:]) * self._factor(self.theirs).log_abs_det())

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, self.shape)
        return shape


class Scaling(ConstantLayer):
    """z = s x + t, each component by itself.

    Args:
        theirs: The other library's layer.
        shape: Event shape.
        scale_and_shift: A function that makes s, without a zero, and t of their layer, and can be pickled; both
            broadcast against a batch.
    """

    def __init__(
        self, theirs: nn.Module, shape: Shape, scale_and_shift: Callable[[Any], tuple[Tensor, Tensor]]
    ) -> None:
        super().__init__()
        self.theirs, self.shape = theirs, tuple(shape)
        self._scale_and_shift = scale_and_shift

    def linear(self, x: Tensor) -> Tensor:
        return x * self._scale_and_shift(self.theirs)[0]

    def adjoint(self, g: Tensor) -> Tensor:
        return g * self._scale_and_shift(self.theirs)[0]

    def offset(self) -> Tensor | float:
        return self._scale_and_shift(self.theirs)[1]

    def inverse(self, y: Tensor) -> Tensor:
        scale, shift = self._scale_and_shift(self.theirs)
        return (y - shift) / scale

    def log_abs_det(self) -> Tensor:
        scale, _ = self._scale_and_shift(self.theirs)
        return scale.abs().log().expand(1, *self.shape).sum()

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, self.shape)
        return shape


def flatten(parts: Iterable[Any], shape: Shape, view: Callable[[Any, Shape], list[Layer]]) -> list[Layer]:
    """Return the layers that the parts of a composite are seen as.

    Args:
        parts: The other library's layers, data to latent.
        shape: Event shape that the first part takes.
        view: A function that makes layers of one part, given the event shape that the part takes.
    """
    layers = []
    for part in parts:
        for layer in view(part, shape):
            layers.append(layer)
            shape = layer.output_shape(shape)
    return layers


def assemble(shape: Shape, layers: Iterable[Layer], base: Shape) -> EBFlow:
    """Return the flow of these layers.

    Raises:
        ValueError: if the layers do not lead to the event shape of the base, N(0, I).
    """
    flow = EBFlow(shape, layers)
    if flow.latent_shape != tuple(base):
        raise ValueError(
            f"samples of shape {tuple(shape)} become latents of shape {flow.latent_shape}, but the base has shape "
            f"{tuple(base)}: give the event shape that the flow itself takes"
        )
    return flow


def _along_channels(rows_to_rows: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a map of rows, (N, C), to the first event axis."""
    if x.dim() == 2:  # rows already
        return rows_to_rows(x)
    last = x.movedim(1, -1)
    return rows_to_rows(last.reshape(-1, last.shape[-1])).view(last.shape).movedim(-1, 1)
