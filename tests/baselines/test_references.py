"""The plain way and the library's own way are one computation: equal losses, equal gradients."""

from __future__ import annotations

import pytest
import torch

from harness.methods import Problem
from harness.methods.density import build, log_prob
from harness.methods.registry import registry

PROBLEM = Problem(architecture="cnn", shape=(1, 16, 8), layers=3, batch=4, dtype="float64", noise=0.5, residual=True)


@pytest.mark.parametrize(("reference", "own"), [("toeplitz-ml", "ebflow-ml"), ("autograd-dsm", "ebflow-dsm")])
def test_loss_and_gradient_are_the_same(reference: str, own: str) -> None:
    generator = torch.Generator().manual_seed(0)
    models = [build(registry().find(name), PROBLEM) for name in (reference, own)]
    with torch.no_grad():
        for pair in zip(*(model.module.parameters() for model in models), strict=True):
            change = 0.02 * torch.randn(pair[0].shape, generator=generator, dtype=torch.float64)
            for parameter in pair:
                parameter += change
    x = torch.randn(4, *PROBLEM.shape, generator=generator, dtype=torch.float64)
    losses = [model.training_loss(x, torch.Generator().manual_seed(1)) for model in models]
    torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-10)
    for loss in losses:
        loss.backward()
    for pair in zip(*(model.module.parameters() for model in models), strict=True):
        torch.testing.assert_close(pair[0].grad, pair[1].grad, rtol=1e-8, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(*(log_prob(model, x) for model in models), rtol=1e-12, atol=1e-10)
        torch.testing.assert_close(models[0].to_data(models[0].to_latent(x)[0]), x, rtol=1e-8, atol=1e-8)
