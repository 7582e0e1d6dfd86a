"""Scaling and logit, for models that start at raw pixel values (the paper's setting without MaP)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ebflow.layers.base import ElementwiseLayer, FixedLayer, Shape, WithConstants, require_shape

__all__ = ["Logit", "Scale"]


class Scale(WithConstants, FixedLayer):
    """y = (x - shift) / divisor with fixed numbers.

    Args:
        shape: Event shape.
        shift: Number that is subtracted first.
        divisor: Number to divide by, not zero.

    Raises:
        ValueError: if the divisor is zero or not a number.
    """

    constants = ("shift", "divisor")

    def __init__(self, shape: Shape, shift: float, divisor: float) -> None:
        if not abs(divisor) > 0:
            raise ValueError(f"a scale needs a divisor other than zero, not {divisor}")
        super().__init__(-math.prod(shape) * math.log(abs(divisor)))
        self.shape = tuple(shape)
        self.shift, self.divisor = shift, divisor

    def linear(self, x: Tensor) -> Tensor:
        return x / self.divisor

    def adjoint(self, g: Tensor) -> Tensor:
        return g / self.divisor

    def offset(self) -> float:
        return -self.shift / self.divisor

    def inverse(self, y: Tensor) -> Tensor:
        return y * self.divisor + self.shift

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, self.shape)
        return shape


class Logit(WithConstants, ElementwiseLayer):
    """y = (log x - log(1 - x)) / alpha; NaN outside (0, 1), so that a value out of range never passes unseen.

    Args:
        alpha: Divisor of the logit, above zero.

    Raises:
        ValueError: if alpha is not above zero.
    """

    constants = ("alpha",)

    def __init__(self, alpha: float) -> None:
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"the logit's alpha must be positive, not {alpha}")
        self.alpha = alpha

    def value(self, x: Tensor) -> Tensor:
        return (torch.log(x) - torch.log1p(-x)) / self.alpha

    def slope(self, x: Tensor) -> Tensor:
        return 1 / (self.alpha * x * (1 - x))

    def slope_and_bend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.slope(x), 1 / (1 - x) - 1 / x

    def slope_bend_and_change(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slope, bend = self.slope_and_bend(x)
        return slope, bend, 1 / (1 - x).square() + 1 / x.square()

    def inverse(self, y: Tensor) -> Tensor:
        return torch.sigmoid(self.alpha * y)
