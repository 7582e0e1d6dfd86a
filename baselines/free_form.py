"""Free-form flows (Draxler et al. 2024, https://arxiv.org/abs/2310.16624), written from the paper.

The encoder f is the network of all dense methods here. The decoder g has its own weights and mirrors it: dense layers
with the inverse of the smooth leaky ReLU between them, so that it can be f's exact inverse, and starts there. A sample
costs, with v drawn from the sphere of radius sqrt(D),

    |f(x)|^2 / 2 - v^T J_f(x) stop_gradient(J_g(f(x)) v) + beta |x - g(f(x))|^2.

Where g is f's inverse, the expected gradient of the middle term is that of log|det J_f|. Optimisers that rescale
gradients train the decoder as fast with any beta, while the encoder is held back by a large one: of 0.001 to 1000 in
powers of ten, 0.01 did best on digits, and on MNIST it beat 0.1 (the authors take 10 to 25, for other data and
networks). The density is exact, f's own with its determinants, and samples come from the exact inverse of f, where the
paper draws them by g.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from baselines._energy_model import DenseModel
from harness.methods import LayerCost, Method, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["BETA", "METHODS"]

BETA = 0.01


class FreeFormModel(DenseModel):
    """An fc; its module also holds ``decoder``, dense layers from latent to data, which start as the exact inverse."""

    def __init__(self, problem: Problem) -> None:
        import torch

        from ebflow import architectures
        from ebflow.layers import Dense, SmoothLeakyReLU

        super().__init__(architectures.fc(problem.shape, problem.layers, residual=problem.residual))
        self.activation = SmoothLeakyReLU(residual=problem.residual)
        self.decoder = [Dense(problem.dimension) for _ in range(problem.layers)]
        self.module.register_module("decoder", torch.nn.ModuleList(self.decoder))
        self._mirror()

    def _mirror(self) -> None:
        import torch

        with torch.no_grad():
            for decoder, encoder in zip(self.decoder, reversed(self.dense_layers), strict=True):
                decoder.weight.copy_(torch.linalg.inv(encoder.weight))
                decoder.get_parameter("bias").copy_(-decoder.linear(encoder.get_parameter("bias")))

    def load_linear_layers(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().load_linear_layers(layers)
        self._mirror()

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        import torch

        from ebflow.noise import normal

        x = x.flatten(1)
        v = normal(x.shape, generator, x)
        return self.loss_along(x, math.sqrt(x.shape[1]) * torch.nn.functional.normalize(v))

    def loss_along(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the loss, a scalar in nats a sample up to constants, for samples x and directions v, both (B, D)."""
        import torch

        first, *others = self.dense_layers
        z, slopes = first.transform(x), []
        for dense in others:
            slopes.append(self.activation.slope(z))
            z = dense.transform(self.activation.value(z))

        decoded, tangent = z, v
        *inner, outermost = self.decoder
        for dense in inner:
            y = dense.transform(decoded)
            with torch.no_grad():
                inverse = self.activation.inverse(y)
                slope = self.activation.slope(inverse)
                tangent = dense.linear(tangent) / slope
            decoded = inverse + (y - y.detach()) / slope  # the derivative alone, not that of the iteration
        decoded = outermost.transform(decoded)
        with torch.no_grad():
            tangent = outermost.linear(tangent)

        # J_f is pushed forward from the data and, through its last layer, pulled back from v: neither end needs a
        # gradient, and with both of them constant each saves a product.
        *before, last = self.dense_layers
        for dense, slope in zip(before, slopes, strict=True):
            tangent = slope * dense.linear(tangent)
        surrogate = (last.adjoint(v) * tangent).sum(1)
        return (0.5 * z.square().sum(1) - surrogate + BETA * (x - decoded).square().sum(1)).mean()


METHODS = [
    Method(
        name="free-form-ml",
        objective="free-form",
        linear="dense",
        build=FreeFormModel,
        paper="https://arxiv.org/abs/2310.16624",
        # Forward: encoder, decoder, one tangent each; backward: two products of all but the decoder's tangent. The
        # data, the tangent that comes from the decoder and v need no gradient.
        fc_cost=LayerCost(10, saved=3),
        own_gradient="the decoder's tangent counts as constant, so that the surrogate has the gradient of log|det|",
        summary="maximum likelihood with log|det| estimated by a decoder: no determinant, twice the weights",
    )
]
