"""The closed-form Gaussian."""

from __future__ import annotations

import pytest
import torch

from harness.methods import ClosedForm, Model, Problem
from harness.methods.density import build, log_prob
from harness.methods.registry import registry


def gaussian(dimension: int, dtype: str = "float64") -> Model:
    model = build(registry().find("gaussian"), Problem(shape=(dimension,), dtype=dtype))
    assert isinstance(model, ClosedForm)
    return model


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_the_gaussian_is_the_closed_form(offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    x = torch.randn(500, 4, generator=generator, dtype=torch.float64) @ mix + offset
    model = gaussian(4)
    model.fit(x.split(130))
    truth = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov(correction=0))
    torch.testing.assert_close(log_prob(model, x[:20]), truth.log_prob(x[:20]), rtol=1e-8, atol=1e-8)


def test_a_gaussian_without_a_density_says_so() -> None:
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 2] = 2 * x[:, 0]
    with pytest.raises(ValueError, match="the covariance of 100 samples in 3 dimensions is singular: use more data"):
        gaussian(3).fit([x])


def test_the_gaussian_has_no_training_step() -> None:
    with pytest.raises(NotImplementedError, match="closed form"):
        gaussian(3).training_loss(torch.zeros(1, 3))
