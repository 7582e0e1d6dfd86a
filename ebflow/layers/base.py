"""The contract that every layer keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = ["ConstantLayer", "FixedLayer", "Layer", "Shape", "VaryingLayer"]

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


class ConstantLayer(Layer):
    """A layer whose Jacobian is the same everywhere; training by score matching never needs its determinant."""

    constant_jacobian = True

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """Map data to latent, shape (B, *event)."""

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
