"""Smooth leaky ReLU, the paper's only nonlinearity in its fc and cnn flows."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ebflow.layers.base import ElementwiseLayer, WithConstants

__all__ = ["SmoothLeakyReLU"]


class SmoothLeakyReLU(WithConstants, ElementwiseLayer):
    """f(x) = alpha x + (1 - alpha) softplus(x), elementwise, plus x itself in the residual form.

    Args:
        alpha: Slope far to the left, in (0, 1).
        residual: Whether x is added, which doubles the slopes' floor (the paper's CNN and CIFAR-10 settings).

    Raises:
        ValueError: if alpha is not between 0 and 1.
    """

    constants = ("alpha", "residual")

    def __init__(self, alpha: float = 0.3, residual: bool = False) -> None:
        super().__init__()
        if not 0 < alpha < 1:
            raise ValueError(f"the smooth leaky ReLU needs alpha between 0 and 1, not {alpha}")
        self.alpha, self.residual = alpha, residual
        self.rise = 1 - alpha
        self.lowest_slope = alpha + residual
        self.highest_slope = 1.0 + residual
        # Halley's method descends a bend as sharp as exp(x) / alpha by two units of x a step.
        self.halley_steps = 2 + math.ceil(max(0.0, math.log(0.03 / alpha)) / 2)

    def value(self, x: Tensor) -> Tensor:
        return self.lowest_slope * x + self.rise * softplus(x, threshold=40)  # torch's default, 20, is off by 2e-9

    def slope(self, x: Tensor) -> Tensor:
        return self.lowest_slope + self.rise * torch.sigmoid(x)

    def slope_and_bend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sigmoid = torch.sigmoid(x)
        slope = self.lowest_slope + self.rise * sigmoid
        return slope, self.rise * sigmoid * (1 - sigmoid) / slope

    def slope_bend_and_change(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sigmoid = torch.sigmoid(x)
        slope = self.lowest_slope + self.rise * sigmoid
        bend = self.rise * sigmoid * (1 - sigmoid) / slope
        return slope, bend, bend * (1 - 2 * sigmoid - bend)

    def inverse(self, y: Tensor) -> Tensor:
        """Solve f(x) = y to rounding with a few Halley steps and two Newton steps.

        f is convex and lies above both of its asymptotes and above its tangent at zero, so the smallest of their three
        roots bounds x from above and is never far from it. The Newton steps alone carry the derivatives: the first
        makes dx/dy = 1 / f'(x) exact, the second the second derivative.
        """
        with torch.no_grad():
            at_zero, slope_at_zero = self.rise * math.log(2), self.lowest_slope + self.rise / 2
            x = torch.minimum(y / self.lowest_slope, y / self.highest_slope)
            x = torch.minimum(x, (y - at_zero) / slope_at_zero)
            for _ in range(self.halley_steps):
                slope, bend = self.slope_and_bend(x)
                excess = self.value(x) - y
                x = x - 2 * excess / (2 * slope - excess * bend)
        for _ in range(2):
            x = x - (self.value(x) - y) / self.slope(x)
        return x
