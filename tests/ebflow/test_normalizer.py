"""Monte Carlo estimates of log Z against the exact one."""

from __future__ import annotations

import math

import pytest
import torch

from ebflow import EBFlow, architectures
from ebflow.layers import Dense, Reshape
from ebflow.normalizer import Gaussian, bridge_sampling, importance_sampling

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_flow(dimension: int, seed: int = 1) -> EBFlow:
    """Two dense layers with singular values between 0.8 and 1.25."""
    flow = architectures.fc((dimension,), layers=2).double()
    source = generator(seed)
    with torch.no_grad():
        for dense in (flow.layers[0], flow.layers[2]):
            left, right = (
                torch.linalg.qr(torch.randn(dimension, dimension, generator=source).double()).Q for _ in "ab"
            )
            dense.weight.copy_(left * torch.linspace(0.8, 1.25, dimension) @ right)
            dense.bias.copy_(0.5 * torch.randn(dimension, generator=source))
    return flow


def isotropic(dimension: int, scale: float) -> Gaussian:
    return Gaussian.isotropic((dimension,), scale, like=torch.zeros((), dtype=DOUBLE))


def fitted(flow: EBFlow) -> Gaussian:
    """A little wider than its fit: the model's tails are longer than a Gaussian's, and weights need a variance."""
    return Gaussian.fitted(1.3 * flow.sample(4000, generator(9)))


def exact(flow: EBFlow) -> float:
    with torch.no_grad():
        return float(flow.log_normalizer())


@pytest.mark.parametrize(
    ("estimate", "fit"),
    [(importance_sampling, False), (importance_sampling, True), (bridge_sampling, True)],
    ids=["isotropic", "fitted", "bridge"],
)
def test_the_error_is_what_the_standard_error_says(estimate, fit: bool) -> None:
    flow = random_flow(2)
    proposal = fitted(flow) if fit else isotropic(2, 4.0)
    found = [estimate(flow, proposal, 400, generator(seed)) for seed in range(100)]
    errors = torch.tensor([each.log_normalizer - exact(flow) for each in found])
    # The log of an unbiased estimate is low by half its variance, far less than the error of the mean of 100.
    assert errors.mean().abs() < 4 * errors.std() / 10
    claimed = math.sqrt(sum(each.standard_error**2 for each in found) / len(found))
    assert errors.std().item() == pytest.approx(claimed, rel=0.3)


def test_few_draws_are_unbiased_too() -> None:
    flow = random_flow(2)
    proposal = fitted(flow)
    ratios = torch.tensor(
        [importance_sampling(flow, proposal, 3, generator(seed)).log_normalizer for seed in range(300)]
    ).sub(exact(flow))
    errors = ratios.exp() - 1
    assert errors.mean().abs() < 4 * errors.std() / math.sqrt(300)
    assert ratios.mean() < -2 * ratios.std() / math.sqrt(300)  # the log is not: Jensen


def test_the_naive_error_grows_with_the_dimension_and_the_bridge_s_does_not() -> None:
    naive, bridged = [], []
    for dimension in (2, 16, 64):
        flow = random_flow(dimension)
        naive.append(importance_sampling(flow, isotropic(dimension, 2.0), 2000, generator()))
        bridged.append(bridge_sampling(flow, fitted(flow), 2000, generator()).log_normalizer - exact(flow))
        naive_error = abs(naive[-1].log_normalizer - exact(flow))
        assert naive_error < (0.1 if dimension == 2 else math.inf)
    assert naive_error > 5
    assert [each.effective_samples for each in naive] == sorted((e.effective_samples for e in naive), reverse=True)
    assert max(map(abs, bridged)) < 0.3


@pytest.mark.parametrize("bridged", [False, True])
def test_equal_weights_leave_no_error(bridged: bool) -> None:
    flow = EBFlow((2, 3), [Reshape((2, 3), (6,)), Dense(6)]).double()
    flow.layers[1].weight.data.mul_(0.5)
    flow.layers[1].bias.data.fill_(1.0)
    proposal = Gaussian((2, 3), torch.full((6,), -2.0).double(), 2 * torch.eye(6).double())
    found = (bridge_sampling if bridged else importance_sampling)(flow, proposal, 50, generator())
    assert found.log_normalizer == pytest.approx(6 * math.log(2), rel=1e-12)
    assert found.effective_samples == pytest.approx(50, rel=1e-9)
    assert found.standard_error == pytest.approx(0, abs=1e-6)


def test_effective_samples_are_those_of_the_weights() -> None:
    # N(0, 1) weighed on draws from N(0, s^2): (E w)^2 / E w^2 is sqrt(2 s^2 - 1) / s^2 a dimension.
    flow = EBFlow((3,), [Dense(3)]).double()
    wide = isotropic(3, 1.5)
    found = importance_sampling(flow, wide, 20_000, generator())
    share = (math.sqrt(2 * 1.5**2 - 1) / 1.5**2) ** 3
    assert found.effective_samples == pytest.approx(20_000 * share, rel=0.03)
    assert found.standard_error == pytest.approx(math.sqrt((1 / share - 1) / 20_000), rel=0.03)
    assert importance_sampling(flow, wide, 1, generator()).effective_samples == pytest.approx(1)


@pytest.mark.parametrize("bridged", [False, True])
def test_far_energies_do_not_overflow(bridged: bool) -> None:
    flow = EBFlow((2,), [Dense(2)]).double()
    flow.layers[0].bias.data.fill_(1e3)  # the model lies at -1000, half a million nats away
    found = (bridge_sampling if bridged else importance_sampling)(flow, isotropic(2, 1.0), 50, generator())
    assert math.isfinite(found.log_normalizer)
    assert found.effective_samples >= 1 - 1e-9


class TestGaussian:
    def test_it_is_a_multivariate_normal(self) -> None:
        factor = torch.tensor([[1.0, 0, 0], [2.0, 0.5, 0], [-1.0, 1.0, 3.0]], dtype=DOUBLE)
        mean = torch.tensor([3.0, 0.0, -1.0], dtype=DOUBLE)
        x = torch.randn(5, 3, generator=generator(), dtype=DOUBLE)
        expected = torch.distributions.MultivariateNormal(mean, scale_tril=factor).log_prob(x)
        torch.testing.assert_close(Gaussian((3,), mean, factor).log_prob(x), expected)

    def test_it_is_fitted_to_its_own_draws(self) -> None:
        factor = torch.tensor([[1.0, 0], [2.0, 0.5]], dtype=DOUBLE)
        x = Gaussian((1, 2), torch.tensor([3.0, 0.0], dtype=DOUBLE), factor).sample(20_000, generator())
        assert x.shape == (20_000, 1, 2)
        found = Gaussian.fitted(x)
        assert found.shape == (1, 2)
        torch.testing.assert_close(found.mean, torch.tensor([3.0, 0.0], dtype=DOUBLE), atol=0.06, rtol=0)
        torch.testing.assert_close(found.factor, factor, atol=0.05, rtol=0)

    def test_too_few_samples_are_refused(self) -> None:
        with pytest.raises(ValueError, match="covariance is singular: 3 samples are too few in 4 dimensions"):
            Gaussian.fitted(torch.randn(3, 4))

    def test_what_has_no_density_is_named(self) -> None:
        x = torch.randn(50, 3, generator=generator())
        x[:, 2] = x[:, 0]
        with pytest.raises(ValueError, match=r"covariance is singular: component 2 depends linearly on others \(0\)"):
            Gaussian.fitted(x)
        x[4, 1] = math.nan
        with pytest.raises(ValueError, match="the data hold nan at component 1 of sample 4"):
            Gaussian.fitted(x)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=f"finite scale above 0, not {scale}"):
        isotropic(2, scale)


@pytest.mark.parametrize("estimate", [importance_sampling, bridge_sampling])
def test_no_draws_are_refused(estimate) -> None:
    with pytest.raises(ValueError, match="at least one draw, not 0"):
        estimate(random_flow(2), isotropic(2, 1.0), 0)


@pytest.mark.parametrize("estimate", [importance_sampling, bridge_sampling])
def test_what_has_no_standard_error_shows_none(estimate) -> None:
    flow = random_flow(3)
    assert math.isnan(estimate(flow, isotropic(3, 1.0), 1, generator()).standard_error)
    with torch.no_grad():
        next(flow.parameters())[0, 0] = math.nan
    told = importance_sampling(flow, isotropic(3, 1.0), 50, generator())
    assert all(map(math.isnan, (told.log_normalizer, told.standard_error, told.effective_samples)))
