"""nflows (https://github.com/bayesiains/nflows): layers of ours in its flows."""

from __future__ import annotations

from nflows.transforms import Transform
from torch import Tensor

from ebflow.layers.base import Layer

__all__ = ["LayerTransform"]


class LayerTransform(Transform):
    """A varying layer of ours as a transform of an nflows flow, data to latent in `forward` as there.

    Args:
        layer: Its Jacobian depends on the input, or its log|det J| is zero.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor, context: None = None) -> tuple[Tensor, Tensor]:
        """Return the latent side, and log|det J| in nats, shape (B,)."""
        return self.layer(inputs)

    def inverse(self, inputs: Tensor, context: None = None) -> tuple[Tensor, Tensor]:
        """Return the data side, and log|det| of the inverse in nats, shape (B,)."""
        x = self.layer.inverse(inputs)
        return x, -self.layer(x)[1]
