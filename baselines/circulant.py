"""Layers of circulant and diagonal matrices (CDFlow, 2025), trained by maximum likelihood; written from the paper.

The network is the paper's fc whose linear layers are z = D_m C_(m-1) D_(m-1) ... C_1 D_1 x + b, with diagonal matrices
D and circulant matrices C. A circulant matrix is a convolution around the ring of the D components: the Fourier
transform turns it into a product with the eigenvalues. A layer takes O(m D log D) for a sample, and so does its
inverse. Its log-determinant is a sum over the eigenvalues and the diagonals, O(m D log D) for a whole batch.

CDFlow has such matrices in the 1 x 1 convolutions of Glow, where they mix channels. Here they mix all components, as
EBFlow's dense layers do, and have 2 m D numbers in place of D^2 + D.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.methods import Method, Model, Problem, Rate

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["METHODS"]

_DIAGONALS = 16  # m: see docs/newer-methods.md
_SPREAD = 0.16  # of the eigenvalues about 1 at the start; without it all factors of a layer learn alike


class CirculantModel(Model):
    """L layers of m diagonal and m - 1 circulant matrices with a smooth leaky ReLU between them.

    Args:
        problem: The problem to build for.
        diagonals: Number m of diagonal matrices of a layer.
    """

    def __init__(self, problem: Problem, diagonals: int = _DIAGONALS) -> None:
        import torch

        from ebflow.layers import SmoothLeakyReLU

        size, layers = problem.dimension, range(problem.layers)
        self.shape = problem.shape
        self.activation = SmoothLeakyReLU(residual=problem.residual)
        self.diagonals = torch.nn.ParameterList(torch.ones(diagonals, size) for _ in layers)
        identity = torch.eye(1, size).expand(diagonals - 1, size)  # its first column, once a matrix
        noise = _SPREAD / math.sqrt(size)
        self.kernels = torch.nn.ParameterList(identity + noise * torch.randn(diagonals - 1, size) for _ in layers)
        self.biases = torch.nn.ParameterList(torch.zeros(size) for _ in layers)
        # The activation's constants belong to the state, so that weights never end up in another density.
        self.module = torch.nn.ModuleList([self.diagonals, self.kernels, self.biases, self.activation])

    def init_batch(self, x: Tensor) -> None:
        """Start with unit variance behind every layer, component by component."""
        import torch

        if len(x) == 1:
            return  # one sample has no scale
        x = x.flatten(1)
        with torch.no_grad():
            for index in range(len(self.biases)):
                std, mean = torch.std_mean(self._linear(x, index)[0], 0)
                self.diagonals[index][-1] /= std + 1e-6
                self.biases[index].sub_(mean).div_(std + 1e-6)
                x = self.activation.value(self._linear(x, index)[0])

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        z, log_det = self.to_latent(x)
        return (0.5 * z.square().sum(1) - log_det).mean()

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = x.flatten(1), x.new_zeros(len(x))
        for index in range(len(self.biases)):
            if index:
                x, term = self.activation(x)
                log_det = log_det + term
            x, constant = self._linear(x, index)
            log_det = log_det + constant
        return x, log_det

    def to_data(self, z: Tensor) -> Tensor:
        import torch

        for index in reversed(range(len(self.biases))):
            diagonals, eigenvalues = self.diagonals[index].flip(0), torch.fft.rfft(self.kernels[index]).flip(0)
            z = (z - self.biases[index]) / diagonals[0]
            for diagonal, values in zip(diagonals[1:], 1 / eigenvalues, strict=True):
                z = _convolved(z, values) / diagonal
            z = self.activation.inverse(z) if index else z
        return z.view(-1, *self.shape)

    def _linear(self, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return W x + b for a layer's W and b, and log|det W|, a scalar."""
        import torch

        diagonals, eigenvalues = self.diagonals[index], torch.fft.rfft(self.kernels[index])
        x = x * diagonals[0]
        for diagonal, values in zip(diagonals[1:], eigenvalues, strict=True):
            x = _convolved(x, values) * diagonal
        # rfft leaves out the conjugates of all eigenvalues but the first and, of an even number, the middle one.
        logs = eigenvalues.abs().log()
        log_det = 2 * logs.sum() - logs[:, 0].sum() - (logs[:, -1].sum() if x.shape[1] % 2 == 0 else 0)
        return x + self.biases[index], log_det + diagonals.abs().log().sum()


def _convolved(x: Tensor, eigenvalues: Tensor) -> Tensor:
    """Multiply samples, shape (B, D), by the circulant matrix of these D // 2 + 1 eigenvalues."""
    import torch

    # Some Fourier transforms refuse an empty batch.
    return torch.fft.irfft(torch.fft.rfft(x) * eigenvalues, n=x.shape[1]) if len(x) else x


METHODS = [
    Method(
        name="circulant-ml",
        objective="ml",
        linear="circulant",
        build=CirculantModel,
        rate=Rate(3.0, "a layer is a product of 31 factors that start near the identity and have to leave it"),
        own_start="it starts from the data's means and variances alone, because its layers cannot whiten",
        summary="products of 16 diagonal and 15 circulant matrices by Fourier transforms, O(D log D) a layer",
    )
]
