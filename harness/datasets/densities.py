r"""The paper's synthetic distributions: clean samples, and the exact density of what the methods see.

The 2-D ones are smoothed: adding $N(0, s^2 I)$ to a clean point makes its distribution smooth. Their densities
are then mixtures of products of one-dimensional densities, $p(x) = \sum_k w_k f_{k1}(x_1) f_{k2}(x_2)$: a finite
one for the checkerboard; for the two curves an integral along the curve, whose integrand is entire, so that
Gauss-Legendre nodes serve as components and the error falls geometrically in their number. Everything is
computed in float64 and in log space, so log-density and score stay exact far out in the tails.

The 10-D one is an invertible function of a Gaussian, with a density as it is.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NOISE_STD = 0.375
"""Standard deviation s of the noise that the densities account for."""

# On [-30, 30]^2, three times the data's extent, 640 nodes leave an error of 1e-10 nats (measured against 128
# panels of 32 nodes); 512 nodes leave 5e-8 on the swirl.
_NODES = 640
_SMALLEST_GAP = 2.0**-54  # half of the distance from 1 to the float64 below it
_FAR = 1e4  # standard deviations of the noise
_BLOCK_ROWS = 2048  # bounds the memory of the (rows, nodes, 2) intermediates to about 20 MB each


class Density(ABC):
    """A distribution that can be sampled, and whose density can be evaluated as the methods see it."""

    @abstractmethod
    def sample_clean(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw points without noise, `(count, D)` in float64, by a generator on the CPU."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Compute the exact log-densities of points, `(B, D)` of any floating dtype; outside of the support, -inf.

        The log-densities are in nats, float64, `(B,)`.
        """

    def score(self, x: Tensor) -> Tensor | None:
        """Compute the exact gradients of `log_prob` at points, `(B, D)` of any floating dtype.

        The scores are in nats per unit of length, float64, `(B, D)`; None for a density whose scores are of no use.
        """
        return None


class SmoothedDensity(Density):
    """A 2-D distribution that is sampled without noise, and whose density is that of samples with noise."""

    def log_prob(self, x: Tensor) -> Tensor:
        blocks = x.to(torch.float64).split(_BLOCK_ROWS)
        return torch.cat([torch.logsumexp(self._log_components(block)[0], dim=1) for block in blocks])

    def score(self, x: Tensor) -> Tensor:
        blocks = []
        for block in x.to(torch.float64).split(_BLOCK_ROWS):
            logs, scores = self._log_components(block)
            blocks.append((torch.softmax(logs, dim=1).unsqueeze(2) * scores).sum(1))
        return torch.cat(blocks)

    @abstractmethod
    def _log_components(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log w_k + log f_k(x), `(B, K)`, and the gradient of log f_k at x, `(B, K, 2)`."""


@dataclass(frozen=True)
class Sine(SmoothedDensity):
    r"""A sine wave with vertical noise.

    Clean points are $(4x, 4(\sin 3x + n/4))$ with $x \sim U(-2, 2)$, $n \sim N(0, 1)$. With $t = 4x$,

    $$p(x, y) = \tfrac{1}{16} \int_{-8}^{8} N(x; t, s^2)\, N(y; 4 \sin(3t/4), 1 + s^2)\, dt.$$
    """

    def sample_clean(self, count: int, generator: torch.Generator) -> Tensor:
        x = 4 * _uniform(count, generator) - 2
        n = torch.randn(count, generator=generator, dtype=torch.float64)
        return torch.stack([4 * x, 4 * (torch.sin(3 * x) + n / 4)], dim=1)

    def _log_components(self, x: Tensor) -> tuple[Tensor, Tensor]:
        t, weight = _gauss_legendre(-8.0, 8.0, x.device)
        mean = torch.stack([t, 4 * torch.sin(0.75 * t)], dim=1)
        variance = torch.tensor([NOISE_STD**2, 1 + NOISE_STD**2], dtype=torch.float64, device=x.device)
        score = (mean - x.unsqueeze(1)) / variance
        log_density = -0.5 * (score.square() * variance + torch.log(2 * torch.pi * variance))
        return torch.log(weight / 16) + log_density.sum(2), score


@dataclass(frozen=True)
class Swirl(SmoothedDensity):
    r"""A spiral of $1\tfrac12$ turns, thickened by a small square.

    Clean points are $-r (d_1, d_2)$ with $r = 2.5/3$, $m = 3\pi\sqrt{u_0}$, $d_1 = -m \cos m + u_1/2 - 1$,
    $d_2 = m \sin m + u_2/2 - 2$ and independent $u_i \sim U(0, 1)$. So $m$ has density $2m/(3\pi)^2$ and,
    given $m$, a point is uniform on a square of side $r/2$. With $b(x; l, h)$ the density of
    $U(l, h) + N(0, s^2)$,

    $$p(x, y) = \int_0^{3\pi} \tfrac{2m}{(3\pi)^2}\, b(x; r(m \cos m + \tfrac12), r(m \cos m + 1))\,
    b(y; r(\tfrac32 - m \sin m), r(2 - m \sin m))\, dm.$$
    """

    def sample_clean(self, count: int, generator: torch.Generator) -> Tensor:
        m = 3 * math.pi * _uniform(count, generator).sqrt()
        d1 = -m * torch.cos(m) + _uniform(count, generator) / 2 - 1
        d2 = m * torch.sin(m) + _uniform(count, generator) / 2 - 2
        return torch.stack([d1, d2], dim=1) * (-2.5 / 3)

    def _log_components(self, x: Tensor) -> tuple[Tensor, Tensor]:
        m, weight = _gauss_legendre(0.0, 3 * math.pi, x.device)
        low = (2.5 / 3) * torch.stack([m * torch.cos(m) + 0.5, 1.5 - m * torch.sin(m)], dim=1)
        log_density, score = _smoothed_boxes(x, low, side=1.25 / 3)
        return torch.log(weight * 2 * m / (3 * math.pi) ** 2) + log_density, score


@dataclass(frozen=True)
class Checkerboard(SmoothedDensity):
    r"""The eight dark squares, of side 3, of a 4 x 4 board.

    Clean points are $3 (x_1, x_2)$ with $x_1 \sim U(-2, 2)$ and
    $x_2 = u - 2k + (\lfloor x_1 \rfloor \bmod 2)$, $u \sim U(0, 1)$, $k \sim \mathrm{Bernoulli}(1/2)$:
    uniform over the squares. With $b(x; l, h)$ the density of $U(l, h) + N(0, s^2)$,

    $$p(x, y) = \tfrac18 \sum_{i + j\ \text{even}} b(x; 3i, 3i + 3)\, b(y; 3j, 3j + 3), \qquad
    i, j \in \{-2, \dots, 1\}.$$
    """

    def sample_clean(self, count: int, generator: torch.Generator) -> Tensor:
        x1 = 4 * _uniform(count, generator) - 2
        lower_half = torch.randint(2, (count,), generator=generator)
        x2 = _uniform(count, generator) - 2 * lower_half + torch.floor(x1) % 2
        return 3 * torch.stack([x1, x2], dim=1)

    def _log_components(self, x: Tensor) -> tuple[Tensor, Tensor]:
        corners = [[3.0 * i, 3.0 * j] for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0]
        low = torch.tensor(corners, dtype=torch.float64, device=x.device)
        log_density, score = _smoothed_boxes(x, low, side=3.0)
        return log_density - math.log(len(corners)), score


@dataclass(frozen=True)
class Multimodal(Density):
    r"""Many modes on two sides of every coordinate (paper, appendix on linear layers).

    With $x \sim N(0, I)$, points are $y_0 = x_0$ and $y_i = t_i s_i$, where $t_i = \tanh 5 x_i$ and
    $s_i = y_{i-1} + 2^{i+1}$. The map is triangular, so with $g_i = 1 - |t_i| = 1 - |y_i| / |s_i|$,

    $$p(y) = N(y_0; 0, 1) \prod_{i \ge 1} \frac{N(x_i; 0, 1)}{5\, g_i (2 - g_i)\, |s_i|}, \qquad
    |x_i| = \tfrac{1}{10} \log\frac{2 - g_i}{g_i},$$

    and zero where an $|y_i| > |s_i|$. Near that edge $p$ grows like $e^{10 |x_i| - x_i^2 / 2}$, until $|x_i| = 10$ and
    $g_i = 2 e^{-100}$. This has two consequences. The components of the score have a second moment of about $e^{200}$,
    so no estimate of the Fisher divergence means anything, and `score` is None. And float64 holds $g$ to about
    $10^{-16}$, which is coarse from $|x_i| = 3$ on. From 3.8 on $t$ rounds to one, at $D = 10$ at one point in 800;
    such points are evaluated at $g = 2^{-54}$. The error of the log-density is below 1e-3 nats at 98.8 % of the points,
    seldom more than 10 nats, and -0.0020 nats on average, which is what it adds to a KL divergence. (In float32, $t$
    rounds to one at 47 % of the points: the set would lie on hyperplanes.)

    Attributes:
        dimension: Dimension D of a sample.
    """

    dimension: int = 10

    def sample_clean(self, count: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(count, self.dimension, generator=generator, dtype=torch.float64)
        points = [x[:, 0]]
        for index in range(1, self.dimension):
            points.append(torch.tanh(5 * x[:, index]) * (points[-1] + 2.0 ** (index + 1)))
        return torch.stack(points, dim=1)

    def log_prob(self, x: Tensor) -> Tensor:
        y = x.to(torch.float64)
        shift = 2.0 ** torch.arange(2, self.dimension + 1, dtype=torch.float64, device=y.device)
        size, reach = y[:, 1:].abs(), (y[:, :-1] + shift).abs()
        gap = ((reach - size) / reach).clamp(min=_SMALLEST_GAP)  # the difference is exact where the two are close
        latent = torch.cat([y[:, :1], 0.1 * torch.log((2 - gap) / gap)], dim=1)
        log_slopes = torch.log(5 * gap * (2 - gap) * reach).sum(1)
        log_prob = -0.5 * latent.square().sum(1) - 0.5 * math.log(2 * math.pi) * self.dimension - log_slopes
        return torch.where((size <= reach).all(1), log_prob, -math.inf)


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, dtype=torch.float64)


# Cached as arrays: a tensor made under inference_mode could not be used in autograd later.
_legendre_rule = functools.cache(np.polynomial.legendre.leggauss)


def _gauss_legendre(low: float, high: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of an integral over [low, high], `(K,)` each."""
    nodes, weights = (torch.from_numpy(array).to(device) for array in _legendre_rule(_NODES))
    half = (high - low) / 2
    return low + half * (nodes + 1), half * weights


def _smoothed_boxes(x: Tensor, low: Tensor, side: float) -> tuple[Tensor, Tensor]:
    r"""Compute log-densities, `(B, K)`, and scores, `(B, K, 2)`, of points uniform on squares, plus N(0, s^2 I).

    One coordinate has density $b(x; l, l + a) = [\Phi(c + h) - \Phi(c - h)] / a$ with $h = a / 2s$ and
    $c = (l + a/2 - x)/s$, which is even in $c$. The squares have lower left corners `low`, `(K, 2)`, and side a.
    """
    half = side / (2 * NOISE_STD)
    centre = (low + side / 2 - x.unsqueeze(1)) / NOISE_STD
    # Both arguments on the negative side, where log Phi keeps its relative precision however far out.
    log_upper = torch.special.log_ndtr(half - centre.abs())
    log_lower = torch.special.log_ndtr(-half - centre.abs())
    # Far out the exponents no longer show their difference: all is the nearer edge's, Phi(-z) = phi(z) / z to 1 / z^2.
    edge = centre.abs() - half
    far = edge > _FAR
    log_mass = torch.where(far, log_upper, log_upper + torch.log1p(-torch.exp(log_lower - log_upper)))
    slope = _ratio(centre - half, log_mass) - _ratio(centre + half, log_mass)
    score = torch.where(far, centre.sign() * edge, slope) / NOISE_STD
    return (log_mass - math.log(side)).sum(2), score


def _ratio(z: Tensor, log_mass: Tensor) -> Tensor:
    """Return the standard normal density at z, divided by the mass."""
    return torch.exp(-0.5 * z.square() - 0.5 * math.log(2 * math.pi) - log_mass)


DENSITIES: dict[str, Density] = {
    "sine": Sine(),
    "swirl": Swirl(),
    "checkerboard": Checkerboard(),
    "multimodal10": Multimodal(),
}
"""The densities of the synthetic sets, by the name of the set."""
