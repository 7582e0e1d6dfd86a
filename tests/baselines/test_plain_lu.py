"""The plain LU layers: their products by panels, against the same with masks and autograd, and against their peers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import baselines.plain_lu
from baselines._triangular_panels import affine
from harness.methods import Problem
from harness.methods.density import build, log_prob, sample
from harness.methods.registry import registry
from harness.training.configuration import TrainingConfig
from harness.training.step import Trainer

SIZE = 7
PROBLEM = Problem(shape=(SIZE,), layers=3, batch=6, dtype="float64")


@pytest.fixture(params=[SIZE, 3, 1], ids=["one panel", "three panels", "panels of one row"])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The most rows of a panel, also of those in the models."""
    monkeypatch.setattr(baselines.plain_lu, "_PANEL", request.param)
    return request.param


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layers() -> list[tuple[Tensor, Tensor]]:
    """Products of triangular factors, some with det < 0, and their biases."""
    found = []
    for seed in range(PROBLEM.layers):
        factors = draw(SIZE, SIZE, seed=seed).tanh() / 2 + 2 * torch.diag(draw(SIZE, seed=seed + 10).sign())
        lower = factors.tril(-1) + torch.eye(SIZE, dtype=torch.float64)
        found.append((lower @ factors.triu(), draw(SIZE, seed=seed + 20)))
    return found


def masked(x: Tensor, factors: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    y = x @ factors.triu().mT
    return y + y @ factors.tril(-1).mT + bias, factors.diagonal().abs().log().sum()


@pytest.mark.parametrize("of_data", [False, True])
def test_panels_are_masked_products(rows: int, of_data: bool) -> None:
    arguments = [draw(5, SIZE).requires_grad_(of_data), draw(SIZE, SIZE).requires_grad_(), draw(SIZE).requires_grad_()]
    wanted = arguments if of_data else arguments[1:]
    results = []
    for function in (affine(SIZE, rows), masked):
        z, log_det = function(*arguments)
        results.append([z, log_det, *torch.autograd.grad(z.square().sum() - 3 * log_det, wanted)])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("peer", ["ebflow-ml", "zuko-lu-ml", "normflows-lu-ml"])
def test_one_function_on_one_set_of_weights(peer: str) -> None:
    x = draw(6, SIZE, seed=1)
    densities, samples = [], []
    for name in ("plain-lu-ml", peer):
        model = build(registry().find(name), PROBLEM)
        model.load_linear_layers(layers())
        densities.append(log_prob(model, x))
        samples.append(sample(model, PROBLEM.shape, 6, torch.Generator().manual_seed(2)))
    torch.testing.assert_close(*densities, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(*samples, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("rows")
def test_bfloat16_takes_a_step_near_the_full_one() -> None:
    gradients = []
    for dtype in ("float32", "bf16"):
        model = build(registry().find("plain-lu-ml"), replace(PROBLEM, dtype=dtype))
        model.load_linear_layers([(weight.float(), bias.float()) for weight, bias in layers()])
        Trainer(model, TrainingConfig(), torch.Generator(), dtype).gradient(draw(64, SIZE, seed=1).float())
        assert {p.grad.dtype for p in model.module.parameters()} == {torch.float32}
        gradients.append(torch.cat([p.grad.flatten() for p in model.module.parameters()]))
    full, lowered = gradients
    assert 0 < (full - lowered).norm() < 0.05 * full.norm()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_derivatives_of_all_kinds() -> None:
    x, factors, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 4), (4, 4), (4,)))
    function = affine(4, 2)
    inputs = [tensor.clone().requires_grad_() for tensor in (x, factors, bias)]
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, inputs, check_fwd_over_rev=True)

    def by_masks(sample: Tensor) -> Tensor:
        y = sample @ factors.triu().mT
        return (y + y @ factors.tril(-1).mT + bias).exp().sum()

    def by_panels(sample: Tensor) -> Tensor:
        return function(sample[None], factors, bias)[0].exp().sum()

    hessians = [torch.func.vmap(torch.func.hessian(each))(x) for each in (by_panels, by_masks)]
    torch.testing.assert_close(*hessians)
