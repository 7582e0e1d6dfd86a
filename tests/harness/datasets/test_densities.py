"""The synthetic densities: a density, its gradient, and the distribution of the points that are drawn."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from scipy import integrate
from scipy.stats import norm

from harness.datasets.densities import NOISE_STD, Checkerboard, Multimodal, Sine, SmoothedDensity, Swirl

DENSITIES = [Sine(), Swirl(), Checkerboard()]
GRID_STEP = 0.2

smoothed = pytest.mark.parametrize("density", DENSITIES, ids=repr)


def noised(density: SmoothedDensity, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    clean = density.sample_clean(count, generator)
    return clean + NOISE_STD * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)


@functools.cache
def grid_log_prob(density: SmoothedDensity) -> torch.Tensor:
    """Log-density on a grid over [-13, 13]^2, outside which less than 1e-12 of the mass lies.

    For a function smoothed by N(0, s^2) the sum over a grid errs by exp(-2 pi^2 s^2 / step^2), below 1e-30.
    """
    axis = torch.arange(-13, 13 + GRID_STEP / 2, GRID_STEP, dtype=torch.float64)
    return density.log_prob(torch.cartesian_prod(axis, axis))


@smoothed
def test_density_integrates_to_one(density: SmoothedDensity) -> None:
    mass = grid_log_prob(density).exp().sum() * GRID_STEP**2
    assert mass.item() == pytest.approx(1, abs=1e-9)


@smoothed
def test_score_is_the_gradient_of_log_prob(density: SmoothedDensity) -> None:
    near, far = noised(density, 200, seed=1), 4 * noised(density, 200, seed=2)
    x = torch.cat([near, far, torch.zeros(1, 2, dtype=torch.float64)]).requires_grad_()
    (expected,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    torch.testing.assert_close(density.score(x), expected, rtol=1e-8, atol=1e-8)


@smoothed
def test_quadrature_agrees_with_adaptive_integration(density: SmoothedDensity) -> None:
    """The docstrings' formulas, integrated by scipy with scalars, at points inside and outside the data."""
    for point in [(0.3, -0.2), (-4.0, 3.1), (7.9, 5.0), (2.5, 1.5), (-12.0, 9.0)]:
        log_prob = density.log_prob(torch.tensor([point], dtype=torch.float64)).item()
        assert log_prob == pytest.approx(math.log(direct_density(density, *point)), abs=1e-8)


def direct_density(density: SmoothedDensity, x: float, y: float) -> float:
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


@smoothed
def test_density_and_score_are_those_of_the_clean_points_plus_noise(density: SmoothedDensity) -> None:
    """p(x) = E[K(x - c)] and its gradient, K = N(0, s^2 I), over 200,000 clean c; within 5 std errors."""
    clean = density.sample_clean(200_000, torch.Generator().manual_seed(2))
    for x in noised(density, 20, seed=3):
        step = (clean - x) / NOISE_STD**2
        kernel = torch.exp(-0.5 * (step * NOISE_STD).square().sum(1)) / (2 * math.pi * NOISE_STD**2)
        estimates = torch.cat([kernel.unsqueeze(1), kernel.unsqueeze(1) * step], dim=1)
        standard_error = estimates.std(0) / math.sqrt(len(clean))
        p, score = density.log_prob(x[None]).exp(), density.score(x[None])[0]
        assert ((estimates.mean(0) - torch.cat([p, p * score])).abs() < 5 * standard_error).all()


@smoothed
def test_mean_log_density_of_noised_points_is_minus_the_entropy(density: SmoothedDensity) -> None:
    """Over 10,000 points: within 4 standard errors of the integral of p log p on a grid."""
    log_prob = density.log_prob(noised(density, 10_000, seed=4))
    grid = grid_log_prob(density)
    minus_entropy = (grid.exp() * grid).sum() * GRID_STEP**2
    assert abs(log_prob.mean() - minus_entropy) < 4 * log_prob.std() / math.sqrt(len(log_prob))


@smoothed
def test_density_is_finite_far_out_in_the_tails(density: SmoothedDensity) -> None:
    x = torch.tensor([[1e3, -1e3], [-1e3, 0.0], [0.0, 1e3]])
    assert density.log_prob(x).isfinite().all()
    score = density.score(x)
    assert score.isfinite().all()
    assert ((score * x).sum(1) < 0).all(), "the score points back to the data"


@smoothed
@pytest.mark.parametrize("size", [1e5, 1e10, 1e20, 1e30])
def test_far_beyond_the_tails_the_noise_decides(density: SmoothedDensity, size: float) -> None:
    x = size * torch.tensor([[1.0, 0.0], [-1.0, 0.0]])  # along which all three have the noise's own variance
    expected = -0.5 * (size / NOISE_STD) ** 2
    torch.testing.assert_close(density.log_prob(x), torch.full((2,), expected, dtype=torch.float64), rtol=1e-3, atol=0)
    torch.testing.assert_close(density.score(x)[:, 0], -x[:, 0].double() / NOISE_STD**2, rtol=1e-3, atol=0)
    assert density.score(x).isfinite().all()


@smoothed
def test_results_are_float64_and_follow_the_generator(density: SmoothedDensity) -> None:
    first = density.sample_clean(5, torch.Generator().manual_seed(7))
    assert torch.equal(first, density.sample_clean(5, torch.Generator().manual_seed(7)))
    assert not torch.equal(first, density.sample_clean(5, torch.Generator().manual_seed(8)))
    assert first.dtype == torch.float64
    assert density.log_prob(first.float()).dtype == torch.float64
    assert density.score(first.float()).shape == (5, 2)


class TestMultimodal:
    """In terms of the latents x that `torch.randn` draws first from the generator that `sample_clean` is given."""

    @staticmethod
    def points(x: torch.Tensor) -> torch.Tensor:
        y = [x[..., 0]]
        for i in range(1, x.shape[-1]):
            y.append(torch.tanh(5 * x[..., i]) * (y[i - 1] + 2 * 2**i))
        return torch.stack(y, dim=-1)

    @staticmethod
    def exact_log_prob(x: torch.Tensor) -> torch.Tensor:
        """Log-density of the point that x goes to, (B,), from x itself: no digit is lost to saturation."""
        y, u = TestMultimodal.points(x), 5 * x[:, 1:].abs()
        log_sech = math.log(2) - u - torch.log1p(torch.exp(-2 * u))
        reach = (y[:, :-1] + 2.0 ** torch.arange(2, x.shape[1] + 1)).abs()
        normal = -0.5 * (x.square() + math.log(2 * math.pi)).sum(1)
        return normal - (math.log(5) + 2 * log_sech + torch.log(reach)).sum(1)

    def test_samples_are_the_map_of_the_paper(self) -> None:
        found = Multimodal().sample_clean(1000, torch.Generator().manual_seed(3))
        x = torch.randn(1000, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        torch.testing.assert_close(found, self.points(x), rtol=0, atol=0)

    @pytest.mark.parametrize("dimension", [2, 10])
    def test_log_prob_is_the_change_of_variables(self, dimension: int) -> None:
        x = torch.randn(200, dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x[0, 0] = -4.5  # where y_0 + 4 is negative
        x[:, 1:] = x[:, 1:].clamp(-1.5, 1.5)  # 1 - |tanh 5x| keeps ten digits
        jacobian = torch.func.vmap(torch.func.jacrev(self.points))(x)
        normal = -0.5 * (x.square() + math.log(2 * math.pi)).sum(1)
        expected = normal - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(Multimodal(dimension).log_prob(self.points(x)), expected, rtol=0, atol=1e-7)
        torch.testing.assert_close(self.exact_log_prob(x), expected, rtol=0, atol=1e-7)

    def test_mass_in_two_dimensions(self) -> None:
        """y_1 = (y_0 + 4) tanh w with |w| < 15, which is |x_1| < 3, on a grid; smooth, so that a coarse one serves."""
        y0 = torch.arange(-8, 8.01, 0.05, dtype=torch.float64)
        w = torch.linspace(-15, 15, 3001, dtype=torch.float64)
        first, second = torch.meshgrid(y0, w, indexing="ij")
        reach = first + 4
        y = torch.stack([first, reach * torch.tanh(second)], dim=-1).reshape(-1, 2)
        area = 0.05 * 0.01 * reach.abs() / torch.cosh(second).square()
        mass = (Multimodal(2).log_prob(y).exp().reshape(area.shape) * area).nansum()  # no mass where y_0 + 4 = 0
        assert mass.item() == pytest.approx(norm.cdf(3) - norm.cdf(-3), abs=1e-4)

    def test_gradient_is_finite_and_follows_differences(self) -> None:
        x = torch.randn(50, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64).clamp(-1, 1)
        y, density, step = self.points(x).requires_grad_(), Multimodal(), 1e-7
        (gradient,) = torch.autograd.grad(density.log_prob(y).sum(), y)
        for i in range(10):
            shift = torch.zeros(10, dtype=torch.float64)
            shift[i] = step
            difference = (density.log_prob(y + shift) - density.log_prob(y - shift)) / (2 * step)
            torch.testing.assert_close(gradient[:, i], difference, rtol=1e-3, atol=1e-3)

    def test_rounding_costs_what_the_docstring_says(self) -> None:
        x = torch.randn(400_000, 10, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        y = self.points(x)
        error = Multimodal().log_prob(y) - self.exact_log_prob(x)
        rounded = (torch.tanh(5 * x[:, 1:]).abs() == 1).any(1).double().mean().item()
        # Five standard errors: sqrt(p / 400,000) of a share p, 0.07 / sqrt(400,000) of the mean.
        assert abs(rounded - 1 / 800) < 3e-4
        assert abs((error.abs() > 1e-3).double().mean().item() - 0.0124) < 9e-4
        assert abs(error.mean().item() + 0.0020) < 6e-4
        assert error.abs().max() < 15

    def test_points_on_and_beyond_the_edge(self) -> None:
        y = torch.tensor([[0.5, 4.5], [0.5, -4.5], [0.5, 4.6], [-7.0, 3.0], [-7.0, 3.1]])
        log_prob = Multimodal(2).log_prob(y)
        assert log_prob.dtype == torch.float64
        assert log_prob.isfinite().tolist() == [True, True, False, True, False]
        assert log_prob[2].item() == -math.inf
        assert Multimodal(2).score(y) is None
