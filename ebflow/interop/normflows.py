"""normflows (https://github.com/VincentStimper/normalizing-flows): layers of ours in its flows.

Its `forward` maps latent to data, so a layer's data-to-latent map is `inverse` there.
"""

from __future__ import annotations

from normflows.flows import Flow
from torch import Tensor

from ebflow.layers.base import Layer

__all__ = ["LayerFlow"]


class LayerFlow(Flow):
    """A varying layer of ours as a layer of a normflows flow.

    Args:
        layer: Its Jacobian depends on the input, or its log|det J| is zero.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the data side, and log|det| of the way there in nats, shape (B,)."""
        x = self.layer.inverse(z)
        return x, -self.layer(x)[1]

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent side, and log|det J| in nats, shape (B,)."""
        return self.layer(z)
