"""The cnn of `baselines.ebflow` trained the plain way, to see what the library's own way is worth.

``toeplitz-ml`` writes every convolution as its dense D x D matrix by lists of indices and takes slogdet of it at every
step; ``autograd-dsm`` differentiates the energy twice. Both compute what ``ebflow-ml`` and ``ebflow-dsm`` compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from baselines._ebflow_network import network
from baselines._energy_model import EnergyModel
from harness.methods import Method, Model, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ebflow import EBFlow
    from ebflow.layers import Convolution

__all__ = ["METHODS"]


class PlainModel(EnergyModel):
    """The network of `baselines.ebflow` with a loss that is no objective of the library.

    Args:
        flow: The network.
        loss: A function from the network, a batch and a generator to a scalar.
    """

    def __init__(self, flow: EBFlow, loss: Callable[[EBFlow, Tensor, torch.Generator | None], Tensor]) -> None:
        super().__init__(flow)
        self.loss = loss

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.loss(self.module, x, generator)


def _toeplitz_ml(problem: Problem) -> Model:
    flow = network(problem)
    for layer in _convolutions(flow):
        layer.register_buffer("places", _places(layer.shape, layer.weight.shape[-1]), persistent=False)
    return PlainModel(flow, _toeplitz_loss)


def _autograd_dsm(problem: Problem) -> Model:
    return PlainModel(network(problem), partial(_autograd_loss, problem.noise))


def _toeplitz_loss(flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return the maximum-likelihood loss with log-determinants of dense matrices, differentiated by autograd."""
    import torch

    loss = flow.energy(x).mean()
    for layer in _convolutions(flow):
        row, column, entry = layer.get_buffer("places")
        size = math.prod(layer.shape)
        matrix = layer.weight.new_zeros(size, size).index_put((row, column), layer.weight.flatten()[entry])
        loss = loss - torch.linalg.slogdet(matrix).logabsdet
    return loss


def _autograd_loss(sigma: float, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return the denoising loss with the score by autograd of the energy, to be differentiated by autograd again."""
    import torch

    from ebflow.noise import normal

    noise = normal(x.shape, generator, x)
    noisy = (x + sigma * noise).requires_grad_()
    (energy_gradient,) = torch.autograd.grad(flow.energy(noisy).sum(), noisy, create_graph=True)
    return 0.5 * (noise / sigma - energy_gradient).square().sum() / x.numel()


def _convolutions(flow: EBFlow) -> list[Convolution]:
    from ebflow.layers import Convolution

    return [layer for layer in flow.layers if isinstance(layer, Convolution)]


def _places(shape: tuple[int, ...], kernel_size: int) -> Tensor:
    """Return row, column and kernel entry of all that a zero-padded convolution's matrix holds, shape (3, N)."""
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
        build=_toeplitz_ml,
        architectures=("cnn",),
        summary="reference: ebflow-ml with a dense matrix and slogdet for every convolution",
    ),
    Method(
        name="autograd-dsm",
        objective="dsm",
        linear="dense",
        build=_autograd_dsm,
        architectures=("cnn",),
        summary="reference: ebflow-dsm by differentiating the energy twice",
    ),
]
