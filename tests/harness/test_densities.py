"""The 2-D densities: a density, its gradient, and the distribution of the points that are drawn."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from scipy import integrate
from scipy.stats import norm

from harness.datasets import Checkerboard, Density, Sine, Swirl
from harness.datasets.densities import NOISE_STD

DENSITIES = [Sine(), Swirl(), Checkerboard()]
GRID_STEP = 0.2

pytestmark = pytest.mark.parametrize("density", DENSITIES, ids=repr)


def noised(density: Density, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    clean = density.sample_clean(count, generator)
    return clean + NOISE_STD * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)


@functools.cache
def grid_log_prob(density: Density) -> torch.Tensor:
    """Log-density on a grid over [-13, 13]^2, outside which less than 1e-12 of the mass lies.

    For a function smoothed by N(0, s^2) the sum over a grid errs by exp(-2 pi^2 s^2 / step^2), below 1e-30.
    """
    axis = torch.arange(-13, 13 + GRID_STEP / 2, GRID_STEP, dtype=torch.float64)
    return density.log_prob(torch.cartesian_prod(axis, axis))


def test_density_integrates_to_one(density: Density) -> None:
    mass = grid_log_prob(density).exp().sum() * GRID_STEP**2
    assert mass.item() == pytest.approx(1, abs=1e-9)


def test_score_is_the_gradient_of_log_prob(density: Density) -> None:
    near, far = noised(density, 200, seed=1), 4 * noised(density, 200, seed=2)
    x = torch.cat([near, far, torch.zeros(1, 2, dtype=torch.float64)]).requires_grad_()
    (expected,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    torch.testing.assert_close(density.score(x), expected, rtol=1e-8, atol=1e-8)


def test_quadrature_agrees_with_adaptive_integration(density: Density) -> None:
    """The docstrings' formulas, integrated by scipy with scalars, at points inside and outside the data."""
    for point in [(0.3, -0.2), (-4.0, 3.1), (7.9, 5.0), (2.5, 1.5), (-12.0, 9.0)]:
        log_prob = density.log_prob(torch.tensor([point], dtype=torch.float64)).item()
        assert log_prob == pytest.approx(math.log(direct_density(density, *point)), abs=1e-8)


def direct_density(density: Density, x: float, y: float) -> float:
    def box(value: float, low: float, high: float) -> float:
        # sf keeps the precision of the upper tail, cdf that of the lower one.
        tail = norm.sf if value < low else norm.cdf
        return abs(tail((high - value) / NOISE_STD) - tail((low - value) / NOISE_STD)) / (high - low)

    def sine(t: float) -> float:
        return norm.pdf(x, t, NOISE_STD) * norm.pdf(y, 4 * math.sin(0.75 * t), math.hypot(1, NOISE_STD)) / 16

    def swirl(m: float) -> float:
        r, c, s = 2.5 / 3, m * math.cos(m), m * math.sin(m)
        across, up = box(x, r * (c + 0.5), r * (c + 1)), box(y, r * (1.5 - s), r * (2 - s))
        return 2 * m / (3 * math.pi) ** 2 * across * up

    if isinstance(density, Checkerboard):
        squares = [(3 * i, 3 * j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0]
        return sum(box(x, a, a + 3) * box(y, b, b + 3) for a, b in squares) / 8
    integrand, low, high = (sine, -8, 8) if isinstance(density, Sine) else (swirl, 0, 3 * math.pi)
    pieces = torch.linspace(low, high, 13, dtype=torch.float64).tolist()
    return sum(integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-11)[0] for a, b in itertools.pairwise(pieces))


def test_density_and_score_are_those_of_the_clean_points_plus_noise(density: Density) -> None:
    """p(x) = E[K(x - c)] and its gradient, K = N(0, s^2 I), over 200,000 clean c; within 5 std errors."""
    clean = density.sample_clean(200_000, torch.Generator().manual_seed(2))
    for x in noised(density, 20, seed=3):
        step = (clean - x) / NOISE_STD**2
        kernel = torch.exp(-0.5 * (step * NOISE_STD).square().sum(1)) / (2 * math.pi * NOISE_STD**2)
        estimates = torch.cat([kernel.unsqueeze(1), kernel.unsqueeze(1) * step], dim=1)
        standard_error = estimates.std(0) / math.sqrt(len(clean))
        p, score = density.log_prob(x[None]).exp(), density.score(x[None])[0]
        assert ((estimates.mean(0) - torch.cat([p, p * score])).abs() < 5 * standard_error).all()


def test_mean_log_density_of_noised_points_is_minus_the_entropy(density: Density) -> None:
    """Over 10,000 points: within 4 standard errors of the integral of p log p on a grid."""
    log_prob = density.log_prob(noised(density, 10_000, seed=4))
    grid = grid_log_prob(density)
    minus_entropy = (grid.exp() * grid).sum() * GRID_STEP**2
    assert abs(log_prob.mean() - minus_entropy) < 4 * log_prob.std() / math.sqrt(len(log_prob))


def test_density_is_finite_far_out_in_the_tails(density: Density) -> None:
    x = torch.tensor([[1e3, -1e3], [-1e3, 0.0], [0.0, 1e3]])
    assert density.log_prob(x).isfinite().all()
    score = density.score(x)
    assert score.isfinite().all()
    assert ((score * x).sum(1) < 0).all(), "the score points back to the data"


def test_results_are_float64_and_follow_the_generator(density: Density) -> None:
    first = density.sample_clean(5, torch.Generator().manual_seed(7))
    assert torch.equal(first, density.sample_clean(5, torch.Generator().manual_seed(7)))
    assert not torch.equal(first, density.sample_clean(5, torch.Generator().manual_seed(8)))
    assert first.dtype == torch.float64
    assert density.log_prob(first.float()).dtype == torch.float64
    assert density.score(first.float()).shape == (5, 2)
