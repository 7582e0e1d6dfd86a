"""zuko (https://github.com/probabilists/zuko): layers of ours in its flows."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Transform, constraints
from zuko.lazy import LazyTransform

from ebflow.layers.base import Layer

__all__ = ["LayerTransform", "LazyLayer"]


class LayerTransform(Transform):
    """A layer of ours as a transform, data to latent.

    Args:
        layer: Its Jacobian depends on the input, or its log|det J| is zero.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def _call(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.layer.inverse(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log|det J| in nats, shape (B,)."""
        return self.layer(x)[1]

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and log|det J| in nats, shape (B,), in one pass."""
        return self.layer(x)


class LazyLayer(LazyTransform):
    """A layer of ours as a lazy transform, the kind that zuko's flows are made of.

    Args:
        layer: As for `LayerTransform`.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, c: Tensor | None = None) -> LayerTransform:
        """Return the transform; there is no context."""
        return LayerTransform(self.layer)
