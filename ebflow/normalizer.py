"""Monte Carlo estimates of log Z, the integral of exp(-E): what a flow's exact `EBFlow.log_normalizer` spares.

All of them compare exp(-E) with a Gaussian, by its draws alone or by the model's own samples too. Weights stay in log
space, so that no energy overflows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ebflow.flow import EBFlow
from ebflow.layers.base import Shape
from ebflow.layers.whitening import mean_and_covariance, why_singular
from ebflow.noise import normal

__all__ = ["Gaussian", "NormalizerEstimate", "bridge_sampling", "importance_sampling"]

_BISECTIONS = 100  # halves any interval of float64 numbers down to neighbours, or nearly


@dataclass(frozen=True)
class NormalizerEstimate:
    """An estimate of log Z.

    Args:
        log_normalizer: The estimate of log Z, in nats.
        standard_error: Standard error of the estimate in nats, to first order in the relative variance of the weights.
            Draws that miss where exp(-E) lies cannot show it: with few effective samples it is far too small. NaN if
            there is a single draw, or an energy that is not a number.
        effective_samples: (sum w)^2 / sum w^2, the number of equally weighted draws that would be worth the weighted
            ones; where there are two sets of draws, that of the worse set.
    """

    log_normalizer: float
    standard_error: float
    effective_samples: float


class Gaussian:
    """N(mean, L L^T) over events of a flow's shape.

    Args:
        shape: Event shape, D components in all.
        mean: Mean of the Gaussian, shape (D,).
        factor: The factor L of the covariance, lower triangular with a positive diagonal, shape (D, D).
    """

    def __init__(self, shape: Shape, mean: Tensor, factor: Tensor) -> None:
        self.shape = tuple(shape)
        self.mean = mean
        self.factor = factor

    @classmethod
    def isotropic(cls, shape: Shape, scale: float = 1.0, *, like: Tensor) -> Gaussian:
        """Return N(0, scale^2 I), in the dtype and on the device of `like`; the paper's proposal.

        Raises:
            ValueError: if the scale is not above 0, or is infinite.
        """
        if not 0 < scale < math.inf:
            raise ValueError(f"a Gaussian needs a finite scale above 0, not {scale}")
        dimension = math.prod(shape)
        return cls(shape, like.new_zeros(dimension), scale * torch.eye(dimension, dtype=like.dtype, device=like.device))

    @classmethod
    def fitted(cls, x: Tensor) -> Gaussian:
        """Return the Gaussian with mean and covariance of samples of shape (B, *event).

        Raises:
            ValueError: if a number is not finite, or the covariance is singular: the message names the component.
        """
        mean, covariance = mean_and_covariance(x.flatten(1))
        if reason := why_singular(len(x), mean, covariance):
            raise ValueError(f"the covariance is singular: {reason}")
        factor = torch.linalg.cholesky(covariance)
        return cls(tuple(x.shape[1:]), mean.to(x.dtype), factor.to(x.dtype))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n samples, shape (n, *shape)."""
        noise = normal((n, len(self.mean)), generator, self.mean)
        return (self.mean + noise @ self.factor.mT).view(n, *self.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log-densities in nats, shape (B,), of x of shape (B, *shape)."""
        z = torch.linalg.solve_triangular(self.factor, (x.flatten(1) - self.mean).mT, upper=False)
        log_det = self.factor.diagonal().log().sum()
        return -0.5 * z.square().sum(0) - log_det - 0.5 * len(self.mean) * math.log(2 * math.pi)


@torch.no_grad()
def importance_sampling(
    flow: EBFlow, proposal: Gaussian, n: int, generator: torch.Generator | None = None
) -> NormalizerEstimate:
    """Estimate log Z as the log of the mean of w = exp(-E(x)) / q(x) over n draws from the proposal q.

    The exponential of the estimate is unbiased.

    Raises:
        ValueError: if n is not at least 1.
    """
    _require_draws(n)
    x = proposal.sample(n, generator)
    log_weights = _log_ratio(flow, proposal, x)
    effective = _effective_samples(log_weights)
    return NormalizerEstimate(
        log_normalizer=float(log_weights.logsumexp(0)) - math.log(n),
        standard_error=_standard_error(effective, n),
        effective_samples=effective,
    )


@torch.no_grad()
def bridge_sampling(
    flow: EBFlow, proposal: Gaussian, n: int, generator: torch.Generator | None = None
) -> NormalizerEstimate:
    """Estimate log Z from n draws of the proposal q and n exact samples of the model, by the optimal bridge.

    Meng and Wong (1996, https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n43/j6n43.htm): with l = exp(-E) / q, the
    estimate r solves sum over q of l / (l + r) = sum over the model of r / (l + r). The difference of the two sides
    rises with r, so that bisection finds its only root.

    Raises:
        ValueError: if n is not at least 1.
    """
    _require_draws(n)
    of_proposal = _log_ratio(flow, proposal, proposal.sample(n, generator))
    of_model = _log_ratio(flow, proposal, flow.sample(n, generator))
    both = torch.cat([of_proposal, of_model])
    low, high = float(both.min()), float(both.max())
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if logsigmoid(middle - of_model).logsumexp(0) < logsigmoid(of_proposal - middle).logsumexp(0):
            low = middle
        else:
            high = middle
    log_normalizer = 0.5 * (low + high)
    effective = [
        _effective_samples(log_weights)
        for log_weights in (logsigmoid(of_proposal - log_normalizer), logsigmoid(log_normalizer - of_model))
    ]
    return NormalizerEstimate(
        log_normalizer=log_normalizer,
        standard_error=math.hypot(*(_standard_error(each, n) for each in effective)),
        effective_samples=min(effective),
    )


def _require_draws(n: int) -> None:
    if n < 1:
        raise ValueError(f"an estimate needs at least one draw, not {n}")


def _log_ratio(flow: EBFlow, proposal: Gaussian, x: Tensor) -> Tensor:
    """Return the log of exp(-E) / q, shape (B,), float64."""
    return -flow.energy(x).double() - proposal.log_prob(x).double()


def _effective_samples(log_weights: Tensor) -> float:
    return float((2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp())


def _standard_error(effective: float, n: int) -> float:
    """Return the standard error of the log of a mean of n weights: their relative deviation over the root of n.

    It is NaN where there is none: of a single weight, and of weights that are not numbers.
    """
    variance = 1 / effective - 1 / n
    if math.isnan(variance) or n == 1:
        return math.nan
    return math.sqrt(max(0.0, variance))  # equal weights differ by rounding
