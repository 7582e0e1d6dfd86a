"""The same cnn trained the plain way, to see what the library's own way is worth.

``toeplitz-ml`` writes every convolution as its dense D x D matrix by lists of indices and takes slogdet of it at every
step; ``autograd-dsm`` differentiates the energy twice. Both compute what ``ebflow-ml`` and ``ebflow-dsm`` compute.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.method import Method, Model
from harness.problem import Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ebflow import EBFlow

__all__ = ["METHODS"]


class PlainModel(Model):
    """An `ebflow.EBFlow` whose loss a subclass writes."""

    def __init__(self, problem: Problem) -> None:
        from ebflow import architectures

        self.module: EBFlow = architectures.cnn(problem.shape, problem.layers, residual=problem.residual)

    def init_batch(self, x: Tensor) -> None:
        self.module.initialize(x)

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, varying = self.module(x)
        return z, varying - self.module.log_normalizer()

    def to_data(self, z: Tensor) -> Tensor:
        return self.module.inverse(z)


class ToeplitzML(PlainModel):
    """Maximum likelihood with the log-determinants of dense matrices, differentiated by autograd."""

    def __init__(self, problem: Problem) -> None:
        from ebflow.layers import Convolution

        super().__init__(problem)
        self.convolutions = [layer for layer in self.module.layers if isinstance(layer, Convolution)]
        for layer in self.convolutions:
            layer.register_buffer("places", _places(layer.shape, layer.weight.shape[-1]), persistent=False)

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        import torch

        loss = self.module.energy(x).mean()
        for layer in self.convolutions:
            row, column, entry = layer.places
            size = math.prod(layer.shape)
            matrix = layer.weight.new_zeros(size, size).index_put((row, column), layer.weight.flatten()[entry])
            loss = loss - torch.linalg.slogdet(matrix).logabsdet
        return loss


class AutogradDSM(PlainModel):
    """Denoising score matching with the score by autograd of the energy, and its gradient by autograd again."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.sigma = problem.noise

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        import torch

        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        noisy = (x + self.sigma * noise).requires_grad_()
        (energy_gradient,) = torch.autograd.grad(self.module.energy(noisy).sum(), noisy, create_graph=True)
        return 0.5 * (noise / self.sigma - energy_gradient).square().sum() / x.numel()


def _places(shape: tuple[int, ...], kernel_size: int) -> Tensor:
    """Row, column and kernel entry of everything that a zero-padded convolution's matrix holds, shape (3, N)."""
    import torch

    channels, height, width = shape
    reach = kernel_size // 2
    sizes = channels, height, width, channels, kernel_size, kernel_size
    axes = [torch.arange(size, device="cpu") for size in sizes]  # values are needed, on the meta device too
    out, y, x, into, down, right = torch.meshgrid(*axes, indexing="ij")
    source_y, source_x = y + down - reach, x + right - reach
    inside = (source_y >= 0) & (source_y < height) & (source_x >= 0) & (source_x < width)
    row, column = (out * height + y) * width + x, (into * height + source_y) * width + source_x
    entry = ((out * channels + into) * kernel_size + down) * kernel_size + right
    return torch.stack([row, column, entry])[:, inside]


METHODS = [
    Method(
        name="toeplitz-ml",
        objective="ml",
        linear="dense",
        build=ToeplitzML,
        architectures=("cnn",),
        summary="reference: ebflow-ml with a dense matrix and slogdet for every convolution",
    ),
    Method(
        name="autograd-dsm",
        objective="dsm",
        linear="dense",
        build=AutogradDSM,
        architectures=("cnn",),
        summary="reference: ebflow-dsm by differentiating the energy twice",
    ),
]
