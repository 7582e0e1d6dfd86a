"""The contract that every layer keeps.

Beside its map and its log-determinant a layer offers the chain rule, one method for each sweep that `ebflow.flow` makes
over the layers. All of it is ordinary differentiable code: a loss built on derivatives of log p needs a single backward
pass. A layer that brings no closed form leaves these methods to torch.func.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = ["ConstantLayer", "ElementwiseLayer", "FixedLayer", "Layer", "Shape", "VaryingLayer"]

Shape = tuple[int, ...]


class Layer(nn.Module, ABC):
    """An invertible map of a batch, from the data's side to the latent's side.

    Shapes are those of one sample (the *event*): ``(D,)`` or ``(C, H, W)``; the batch axis comes first.
    """

    constant_jacobian: ClassVar[bool]
    """Whether J does not depend on the input, so that log|det J| belongs to log Z and not to the energy."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to latent.

        Args:
            x: Shape (B, *event).

        Returns:
            The output, and the part of log|det J| (nats) that depends on x: shape (B,), or a scalar zero where the
            Jacobian is constant.
        """

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Map latent to data; the exact inverse of `forward`, shape (B, *event)."""

    def transform(self, x: Tensor) -> Tensor:
        """Return the output alone, shape (B, *event)."""
        return self(x)[0]

    def pullback(self, x: Tensor, score: Tensor) -> Tensor:
        """Carry the score from output to input: J^T score + grad log|det J|(x).

        Args:
            x: The layer's input, shape (B, *event).
            score: Gradient of log p with respect to the layer's output.

        Returns:
            The gradient of log p with respect to x.
        """
        (_, log_det), back = torch.func.vjp(self.forward, x)
        return back((score, torch.ones_like(log_det)))[0]

    def pushforward(self, x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and J tangent, both of the output's shape."""
        (y, _), (dy, _) = torch.func.jvp(self.forward, (x,), (tangent,))
        return y, dy

    def curvature(self, x: Tensor, tangent: Tensor, score: Tensor) -> Tensor:
        """Second derivative of score . y(x) + log|det J|(x) along the tangent, the score held fixed; shape (B,).

        Added up over all layers, less |J tangent|^2 at the latent, it is tangent^T (Hessian of log p) tangent.
        """
        _, _, ddy, _, ddlog = self.taylor(x, tangent, torch.zeros_like(x))
        return (score * ddy).flatten(1).sum(1) + ddlog

    def taylor(self, x: Tensor, dx: Tensor, ddx: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Carry a curve through the layer, given by its point, first and second derivative.

        Returns:
            The same three of the output, and the first and second derivative of log|det J|, shape (B,), or a scalar
            zero where it is constant.
        """

        def first(x: Tensor, dx: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
            return torch.func.jvp(self.forward, (x,), (dx,))

        ((y, _), (dy, dlog)), (_, (ddy, ddlog)) = torch.func.jvp(first, (x, dx), (dx, ddx))
        return y, dy, ddy, dlog, ddlog

    def output_shape(self, shape: Shape) -> Shape:
        """Return the event shape after this layer.

        Raises:
            ValueError: An input of this event shape does not fit.
        """
        return shape

    def initialize(self, x: Tensor) -> None:
        """Set the parameters that start from data, given this layer's input; most layers have none."""


class VaryingLayer(Layer):
    """A layer whose Jacobian depends on the input; its log-determinant is a part of the energy."""

    constant_jacobian = False


class ElementwiseLayer(VaryingLayer):
    """y = f(x), each component by itself, with f increasing.

    With r = (log f')', the chain rule is f'' = r f' and (log f')'' = r'.
    """

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """f(x)."""

    @abstractmethod
    def slope(self, x: Tensor) -> Tensor:
        """f'(x)."""

    @abstractmethod
    def slope_and_bend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f'(x) and r(x)."""

    @abstractmethod
    def slope_bend_and_change(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f'(x), r(x) and r'(x)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102 - see Layer.forward
        return self.transform(x), self.slope(x).log().flatten(1).sum(1)

    def pullback(self, x: Tensor, score: Tensor) -> Tensor:  # noqa: D102
        slope, bend = self.slope_and_bend(x)
        return score * slope + bend

    def pushforward(self, x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return self.transform(x), self.slope(x) * tangent

    def curvature(self, x: Tensor, tangent: Tensor, score: Tensor) -> Tensor:  # noqa: D102
        slope, bend, change = self.slope_bend_and_change(x)
        return ((score * slope * bend + change) * tangent.square()).flatten(1).sum(1)

    def taylor(self, x: Tensor, dx: Tensor, ddx: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # noqa: D102
        slope, bend, change = self.slope_bend_and_change(x)
        squared = dx.square()
        dlog = (bend * dx).flatten(1).sum(1)
        ddlog = (change * squared + bend * ddx).flatten(1).sum(1)
        return self.transform(x), slope * dx, slope * (bend * squared + ddx), dlog, ddlog


class ConstantLayer(Layer):
    """A layer whose Jacobian is the same everywhere; training by score matching never needs its determinant."""

    constant_jacobian = True

    @abstractmethod
    def linear(self, x: Tensor) -> Tensor:
        """J x, which is the map without its offset, shape (B, *event)."""

    @abstractmethod
    def adjoint(self, g: Tensor) -> Tensor:
        """J^T g, from output to input, shape (B, *event)."""

    def offset(self) -> Tensor | float:
        """What the map adds to J x; broadcasts against a batch."""
        return 0.0

    def transform(self, x: Tensor) -> Tensor:
        """Map data to latent, shape (B, *event)."""
        return self.linear(x) + self.offset()

    def pullback(self, x: Tensor, score: Tensor) -> Tensor:  # noqa: D102
        return self.adjoint(score)

    def pushforward(self, x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        y, dy = self.linear(torch.cat([x, tangent])).chunk(2)  # one product of 2 B rows, not two of B
        return y + self.offset(), dy

    def curvature(self, x: Tensor, tangent: Tensor, score: Tensor) -> Tensor:  # noqa: D102
        return x.new_zeros(())

    def taylor(self, x: Tensor, dx: Tensor, ddx: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # noqa: D102
        y, dy, ddy = self.linear(torch.cat([x, dx, ddx])).chunk(3)
        return y + self.offset(), dy, ddy, x.new_zeros(()), x.new_zeros(())

    @abstractmethod
    def log_abs_det(self) -> Tensor:
        """Return log|det J| in nats: a scalar, exact, differentiable; -inf where the layer is singular."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102 - see Layer.forward
        return self.transform(x), x.new_zeros(())


class FixedLayer(ConstantLayer):
    """A constant layer with nothing to train, whose log|det J| is a known number.

    Args:
        log_abs_det: That number, in nats.
    """

    def __init__(self, log_abs_det: float = 0.0) -> None:
        super().__init__()
        self._value = log_abs_det
        # Follows the module's dtype and device; what it holds is never read.
        self._like: Tensor
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    def log_abs_det(self) -> Tensor:  # noqa: D102 - see ConstantLayer.log_abs_det
        return torch.full_like(self._like, self._value)


def require_shape(layer: nn.Module, shape: Shape, expected: Shape) -> None:
    """Raise the one error that a layer of fixed event shape gives for any other."""
    if tuple(shape) != tuple(expected):
        raise ValueError(f"{type(layer).__name__} takes samples of shape {tuple(expected)}, not {tuple(shape)}")
