"""A fixed whitening: a space in which score matching weighs all directions alike."""

from __future__ import annotations

import torch
from torch import Tensor

from ebflow.layers.base import ConstantLayer, Shape, require_finite, require_shape, solve

__all__ = ["Whitening", "mean_and_covariance", "mean_and_whitening", "why_singular"]

_DEPENDENT = 1e-12  # of a variance: what rounding leaves of it


def mean_and_covariance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, shape (D,), and the covariance, shape (D, D), of samples of shape (N, D), in float64.

    Raises:
        ValueError: if there is no sample, or one holds a number that is not finite.
    """
    if not len(x):
        raise ValueError("no samples have no covariance")
    require_finite(x)
    x = x.double()
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.mT @ centred / len(x)


def why_singular(n: int, mean: Tensor, covariance: Tensor) -> str:
    """Return in words why the covariance of n samples is singular, naming a component, or nothing if it is not.

    Args:
        n: Number of samples.
        mean: Mean of the samples, float64, shape (D,).
        covariance: Covariance of the samples, float64, shape (D, D).
    """
    size = len(mean)
    if n <= size:
        return f"{n} samples are too few in {size} dimensions: use more than {size}"
    variance = covariance.diagonal()
    constant = variance <= 1e-28 * mean.square()  # what rounding leaves of it in float64
    if bool(constant.any()):
        first = int(constant.nonzero()[0])
        return f"component {first} is {float(mean[first]):g} in all {n} samples: leave it out, or add noise"
    factor, failed = torch.linalg.cholesky_ex(covariance)
    share = factor.diagonal().square() / variance  # of the variance that the components before leave unexplained
    dependent = ~(share > _DEPENDENT) if not failed else torch.arange(size, device=mean.device) >= int(failed) - 1
    if not bool(dependent.any()):
        return ""
    first = int(dependent.nonzero()[0])
    weights = torch.linalg.lstsq(covariance[:first, :first], covariance[:first, first:][:, :1]).solution[:, 0]
    part = weights.abs() * (variance[:first] / variance[first]).sqrt()
    others = ", ".join(str(int(index)) for index in (part > 1e-3 * part.max()).nonzero()[:4])
    return f"component {first} depends linearly on others ({others}): leave it out, or add noise"


def mean_and_whitening(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, shape (D,), and the symmetric inverse root of the covariance, shape (D, D), in float64.

    Args:
        x: Data of shape (N, D).

    Raises:
        ValueError: if a number is not finite, or the covariance is singular: the message names the component.
    """
    mean, covariance = mean_and_covariance(x)
    variance, axes = torch.linalg.eigh(covariance)
    if not bool(variance[0] > _DEPENDENT * variance[-1]):
        reason = why_singular(len(x), mean, covariance) or "its variances are too far apart: scale the components"
        raise ValueError(f"the covariance is singular: {reason}")
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
            ValueError: if a number is not finite, or the covariance is singular: the message names the component.
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
