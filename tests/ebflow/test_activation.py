"""The smooth leaky ReLU to rounding, from the smallest to the largest numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ebflow.layers import SmoothLeakyReLU

DOUBLE = torch.float64
ALPHAS = [1e-6, 1e-3, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 0.999]
EVERY_FORM = pytest.mark.parametrize(
    ("alpha", "residual"), [(alpha, residual) for alpha in ALPHAS for residual in (False, True)]
)


def parts(alpha: float, residual: bool, x: Tensor) -> tuple[Tensor, Tensor]:
    """The linear and the curved part of f(x), written independently of the layer, in float64."""
    x = x.to(DOUBLE)
    return (alpha + residual) * x, (1 - alpha) * torch.logaddexp(x, torch.zeros_like(x))


def sweep(dtype: torch.dtype) -> Tensor:
    """Both signs over (nearly) all magnitudes, and densely around the bend, where softplus implementations switch."""
    low, high = (-300, 295) if dtype == DOUBLE else (-37, 30)
    magnitudes = torch.logspace(low, high, 4001, dtype=DOUBLE)
    return torch.cat([magnitudes, -magnitudes, torch.linspace(-120, 120, 20001, dtype=DOUBLE)]).to(dtype)


@EVERY_FORM
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_value_to_rounding(alpha: float, residual: bool, dtype: torch.dtype) -> None:
    x = sweep(dtype)
    linear, curved = parts(alpha, residual, x)
    error = (SmoothLeakyReLU(alpha, residual).value(x).to(DOUBLE) - linear - curved).abs()
    assert (error / (linear.abs() + curved)).max() < 4 * torch.finfo(dtype).eps


@EVERY_FORM
def test_value_never_falls(alpha: float, residual: bool) -> None:
    # An approximation that starts beyond a threshold, as torch's softplus does at 20, would step down there.
    for threshold in (-40.0, 0.0, 20.0, 40.0):
        x = threshold + torch.linspace(-1e-6, 1e-6, 2001, dtype=DOUBLE)
        assert (SmoothLeakyReLU(alpha, residual).value(x).diff() >= 0).all()


@EVERY_FORM
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_inverse_solves_to_rounding(alpha: float, residual: bool, dtype: torch.dtype) -> None:
    y = sweep(dtype)
    x = SmoothLeakyReLU(alpha, residual).inverse(y)
    assert x.dtype == dtype
    linear, curved = parts(alpha, residual, x)
    # Rounding f's two parts, which cancel near y = 0, moves f by eps times either; rounding x by eps |x| f'(x).
    slope = alpha + residual + (1 - alpha) * torch.sigmoid(x.to(DOUBLE))
    error = (linear + curved - y.to(DOUBLE)).abs() / (linear.abs() + curved + x.to(DOUBLE).abs() * slope)
    assert error.max() < 2 * torch.finfo(dtype).eps


@EVERY_FORM
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_gradient_of_the_inverse_is_one_over_the_slope(alpha: float, residual: bool, dtype: torch.dtype) -> None:
    y = sweep(dtype).requires_grad_()
    x = SmoothLeakyReLU(alpha, residual).inverse(y)
    (gradient,) = torch.autograd.grad(x.sum(), y)
    slope = alpha + residual + (1 - alpha) * torch.sigmoid(x.detach().to(DOUBLE))
    # 1 / f' may change by as much as x's rounding, |x| eps, times |f'' / f'| <= 1.
    bound = 8 * torch.finfo(dtype).eps * (1 + x.detach().to(DOUBLE).abs().clamp(max=100))
    assert ((gradient.to(DOUBLE) * slope - 1).abs() / bound).max() < 1


@EVERY_FORM
def test_first_and_second_derivatives_of_the_inverse(alpha: float, residual: bool) -> None:
    layer = SmoothLeakyReLU(alpha, residual)
    # Where the curvature is: below x = -4 a small alpha makes finite differences meaningless.
    y = layer.value(torch.linspace(-4, 8, 25, dtype=DOUBLE)).requires_grad_()
    assert torch.autograd.gradcheck(layer.inverse, (y,), rtol=1e-5)
    assert torch.autograd.gradgradcheck(layer.inverse, (y,), rtol=1e-4)


@EVERY_FORM
def test_slope_is_the_derivative_with_the_stated_limits(alpha: float, residual: bool) -> None:
    layer = SmoothLeakyReLU(alpha, residual)
    x = torch.linspace(-60, 60, 2001, dtype=DOUBLE).requires_grad_()
    (gradient,) = torch.autograd.grad(layer.value(x).sum(), x)
    torch.testing.assert_close(layer.slope(x), gradient, rtol=1e-14, atol=0)
    ends = layer.slope(torch.tensor([-1e300, 1e300], dtype=DOUBLE))
    torch.testing.assert_close(ends, torch.tensor([alpha + residual, 1.0 + residual], dtype=DOUBLE), rtol=1e-15, atol=0)


def test_log_det_adds_the_log_slopes_of_a_sample() -> None:
    layer = SmoothLeakyReLU(0.3)
    x = torch.randn(4, 2, 3, dtype=DOUBLE)
    torch.testing.assert_close(layer(x)[1], (0.3 + 0.7 * torch.sigmoid(x)).log().sum(dim=(1, 2)))


def test_non_finite_numbers_are_never_hidden() -> None:
    layer = SmoothLeakyReLU(0.3)
    for value in (math.nan, math.inf, -math.inf):
        x = torch.tensor([[value]], dtype=DOUBLE)
        assert not layer(x)[0].isfinite().any()
        assert not layer.inverse(x).isfinite().any()


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_alpha_must_lie_between_zero_and_one(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        SmoothLeakyReLU(alpha)
