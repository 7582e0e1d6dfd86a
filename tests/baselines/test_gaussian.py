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
    x[:, 2] = 2 * x[:, 0] - x[:, 1]
    with pytest.raises(ValueError, match=r"is singular: component 2 depends linearly on others \(0, 1\): leave it out"):
        gaussian(3).fit([x])
    x[:, 2] = 0.1
    with pytest.raises(ValueError, match=r"is singular: component 2 is 0.1 in all 100 samples: leave it out"):
        gaussian(3).fit([x])
    with pytest.raises(ValueError, match="is singular: 3 samples are too few in 3 dimensions: use more than 3"):
        gaussian(3).fit([x[:3]])
    x[70, 2] = float("nan")
    with pytest.raises(ValueError, match="the data hold nan at component 2"):
        gaussian(3).fit(x.split(40))


def test_the_gaussian_takes_columns_of_any_scale() -> None:
    scales = torch.tensor([1e-9, 1.0, 1e9], dtype=torch.float64)
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model, scaled = gaussian(3), gaussian(3)
    model.fit([x])
    scaled.fit([x * scales])
    torch.testing.assert_close(log_prob(scaled, x * scales), log_prob(model, x))  # the scales multiply to one


def test_the_gaussian_has_no_training_step() -> None:
    with pytest.raises(NotImplementedError, match="closed form"):
        gaussian(3).training_loss(torch.zeros(1, 3))
