"""A fixed whitening: a space in which score matching weighs all directions alike."""

from __future__ import annotations

import torch
from torch import Tensor

from ebflow.layers.base import ConstantLayer, Shape, require_shape, solve

__all__ = ["Whitening", "mean_and_covariance", "mean_and_whitening"]


def mean_and_covariance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, shape (D,), and the covariance, shape (D, D), of samples of shape (N, D), in float64."""
    x = x.double()
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.mT @ centred / len(x)


def mean_and_whitening(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, shape (D,), and the symmetric inverse root of the covariance, shape (D, D), in float64.

    Args:
        x: Data of shape (N, D).

    Raises:
        ValueError: if the covariance is singular, from too few samples or a component that depends on others.
    """
    mean, covariance = mean_and_covariance(x)
    variance, axes = torch.linalg.eigh(covariance)
    if not bool(variance[0] > 1e-12 * variance[-1]):
        raise ValueError(
            f"the covariance of {len(x)} samples in {x.shape[1]} dimensions is singular: start from more samples"
        )
    return mean, (axes / variance.sqrt()) @ axes.mT


class Whitening(ConstantLayer):
    """y = A x + c with A the symmetric inverse root of the data's covariance; set from data, never trained.

    The Fisher divergence that score matching minimises depends on the space it is taken in: it weighs a direction by
    the inverse of its variance. Behind this layer all directions weigh the same. It folds into a dense layer behind it
    (`ebflow.initialization.fold`), so a flow with it is no larger. Until `initialize` it is the identity.

    Args:
        dimension: Length D of a sample.

    Raises:
        ValueError: if the dimension is below 1.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        if dimension < 1:
            raise ValueError(f"a whitening needs a dimension of at least 1, not {dimension}")
        self.matrix: Tensor
        self.shift: Tensor
        self.register_buffer("matrix", torch.eye(dimension))
        self.register_buffer("shift", torch.zeros(dimension))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set mean and covariance of the output to 0 and I on these samples, in float64.

        Args:
            x: Data of shape (N, D).

        Raises:
            ValueError: if the covariance is singular, from too few samples or a component that depends on others.
        """
        if x.device.type == "meta":
            return
        mean, matrix = mean_and_whitening(x)
        self.matrix.copy_(matrix)
        self.shift.copy_(-matrix @ mean)

    def linear(self, x: Tensor) -> Tensor:
        return x @ self.matrix.mT

    def adjoint(self, g: Tensor) -> Tensor:
        return g @ self.matrix

    def offset(self) -> Tensor:
        return self.shift

    def transform(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.matrix, self.shift)

    def inverse(self, y: Tensor) -> Tensor:
        return solve(self, self.matrix, (y - self.shift).mT).mT

    def log_abs_det(self) -> Tensor:
        return torch.linalg.slogdet(self.matrix).logabsdet

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, (len(self.shift),))
        return shape
