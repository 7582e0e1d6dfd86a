"""Circulant-diagonal layers against dense matrices and autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from baselines.circulant import CirculantModel
from harness.methods import Problem
from harness.methods.density import count_parameters

every_size = pytest.mark.parametrize("size", [1, 2, 3, 8, 13])


def model_of(size: int, dtype: torch.dtype = torch.float64, layers: int = 3, diagonals: int = 4) -> CirculantModel:
    """A model far from its start, whose diagonals and eigenvalues have either sign and are not small."""
    torch.manual_seed(size)
    model = CirculantModel(Problem(shape=(size,), layers=layers), diagonals)
    generator = torch.Generator().manual_seed(size)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
        model.diagonals[0][0, 0] *= -1
    model.module.to(dtype)
    return model


def draw(size: int, n: int = 6) -> Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@every_size
def test_a_layer_is_the_product_of_its_matrices(size: int) -> None:
    model, x = model_of(size, layers=1), draw(size)
    diagonals, kernels = model.diagonals[0], model.kernels[0]
    matrix = torch.diag(diagonals[0])
    for diagonal, kernel in zip(diagonals[1:], kernels, strict=True):
        circulant = torch.stack([kernel.roll(shift) for shift in range(size)], 1)  # its columns
        matrix = torch.diag(diagonal) @ circulant @ matrix
    z, log_det = model.to_latent(x)
    torch.testing.assert_close(z, x @ matrix.mT + model.biases[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix).logabsdet.expand(6), rtol=1e-10, atol=1e-10)


@every_size
def test_the_log_determinant_is_that_of_the_jacobian(size: int) -> None:
    model, x = model_of(size), draw(size)
    jacobian = torch.stack([torch.func.jacrev(lambda one: model.to_latent(one[None])[0][0])(one) for one in x])
    truth = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(model.to_latent(x)[1], truth, rtol=1e-9, atol=1e-9)
    single = model_of(size, torch.float32)
    torch.testing.assert_close(single.to_latent(x.float())[1].double(), truth, rtol=1e-4, atol=1e-4)


@every_size
def test_the_inverse_is_exact(size: int) -> None:
    model, x = model_of(size), draw(size)
    torch.testing.assert_close(model.to_data(model.to_latent(x)[0]), x, rtol=1e-9, atol=1e-9)


@every_size
def test_gradients_of_the_loss(size: int) -> None:
    model, x = model_of(size, layers=2), draw(size)
    parameters = tuple(model.module.parameters())
    assert torch.autograd.gradcheck(lambda *_: model.training_loss(x), parameters, fast_mode=True)


def test_a_layer_has_2_m_d_numbers() -> None:
    assert count_parameters(model_of(13, layers=3, diagonals=4)) == 3 * 2 * 4 * 13


def test_it_starts_with_unit_variance_behind_every_layer() -> None:
    model, x = CirculantModel(Problem(shape=(5,), layers=2)), 100 + 20 * draw(5, 500).float()
    model.init_batch(x)
    z, _ = model.to_latent(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(5), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.std(0), torch.ones(5), rtol=0, atol=1e-4)
    before = [parameter.detach().clone() for parameter in model.module.parameters()]
    model.init_batch(x[:1])  # a single sample has no scale
    assert all(torch.equal(*pair) for pair in zip(before, model.module.parameters(), strict=True))
