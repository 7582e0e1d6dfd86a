"""The velocity network's exact divergence, and densities that do not depend on the solver's tolerance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from baselines import flow_matching
from baselines._straight_paths import pairs, path_loss, solve, whitening
from baselines._velocity_network import dynamics, network, velocity
from harness.datasets import load
from harness.methods import Model, Problem
from harness.methods.density import build, log_prob, score
from harness.methods.families import LIKELIHOOD, family
from harness.methods.registry import registry
from harness.training.configuration import TrainingConfig
from harness.training.step import Trainer

METHODS = ["zuko-cnf-fm", "zuko-nsf-reg"]


def moved(dimension: int = 5, width: int = 16) -> torch.nn.ModuleList:
    """A velocity network in float64 whose every weight was drawn at random."""
    layers = network(dimension, width).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layers


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("time", [0.0, 0.3, 1.0])
def test_the_divergence_is_that_of_autograd(time: float) -> None:
    layers, x, t = moved(), draw(4, 5), torch.tensor(time, dtype=torch.float64)
    derivatives, _ = dynamics(layers, torch.float64)
    both = derivatives(t, torch.cat([x, x.new_zeros(4, 1)], 1))
    torch.testing.assert_close(both[:, :-1], velocity(layers, x, t.view(1)), rtol=1e-12, atol=1e-12)
    for point, divergence in zip(x, both[:, -1], strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda p: velocity(layers, p[None], t.view(1))[0], point)
        torch.testing.assert_close(divergence, jacobian.trace(), rtol=1e-12, atol=1e-12)


def test_a_network_at_its_start_moves_nothing_in_the_end() -> None:
    x = draw(6, 5)
    z, log_det = solve(network(5, 8).double(), x, 1.0, 0.0, 1e-10)
    torch.testing.assert_close(z, x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(log_det, torch.zeros(6, dtype=torch.float64), rtol=1e-8, atol=1e-8)


def test_gradients_of_the_density_reach_points_and_weights() -> None:
    layers, x, direction = moved(3), draw(2, 3), draw(3)

    def total(points: Tensor) -> Tensor:
        z, log_det = solve(layers, points, 1.0, 0.0, 1e-10)
        return (log_det - 0.5 * z.square().sum(1)).sum()

    points = x.clone().requires_grad_()
    gradient, of_weight = torch.autograd.grad(total(points), [points, layers[0].weight])
    with torch.no_grad():
        along = (total(x + 1e-5 * direction) - total(x - 1e-5 * direction)) / 2e-5
        layers[0].weight[1] += 1e-5 * direction
        above = total(x)
        layers[0].weight[1] -= 2e-5 * direction
        by_weight = (above - total(x)) / 2e-5
    torch.testing.assert_close((gradient @ direction).sum(), along, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(of_weight[1] @ direction, by_weight, rtol=1e-6, atol=1e-6)


def test_the_loss_is_least_where_the_velocity_is_the_mean_of_its_targets() -> None:
    # Of white data the fixed part is that mean: along it the target's variance is left, 1 / (t^2 + (1 - t)^2) a
    # component, whose integral over the times is pi / 2.
    generator = torch.Generator().manual_seed(0)
    loss = path_loss(network(4, 8), torch.randn(50_000, 4, generator=generator), generator, 1)
    assert float(loss.detach()) == pytest.approx(torch.pi / 2, abs=0.02)


def test_data_are_whitened_and_few_samples_standardised() -> None:
    x = draw(400, 3) @ torch.tensor([[2.0, 1, 0], [0, 1, 1], [0, 0, 3]], dtype=torch.float64) + 5
    mean, matrix = whitening(x)
    white = (x - mean) @ matrix.mT
    torch.testing.assert_close(white.mT.cov(correction=0), torch.eye(3, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    mean, matrix = whitening(x[:20])
    assert torch.equal(matrix, matrix.diag().diag())
    torch.testing.assert_close(((x[:20] - mean) @ matrix).std(0, correction=0), torch.ones(3, dtype=torch.float64))
    assert bool(whitening(x[:1])[1].isfinite().all())  # one sample has no spread


def test_pairs_follow_the_solution() -> None:
    layers, z = moved(3), draw(6, 3)
    exact, _ = solve(layers, z, 0.0, 1.0, 1e-9)
    torch.testing.assert_close(pairs(layers, z, 40), exact.detach(), rtol=1e-5, atol=1e-5)


def test_weights_that_are_not_finite_give_nan_and_no_endless_steps() -> None:
    layers = moved()
    with torch.no_grad():
        layers[2].weight[0, 0] = torch.nan
    z, log_det = solve(layers, draw(3, 5), 1.0, 0.0, 1e-5)
    assert bool(z.isnan().all())
    assert bool(log_det.isnan().all())


def trained(name: str, data: str, steps: int) -> tuple[Model, Tensor]:
    """A model after so many steps on a data set, and 20 test points in the space that it sees."""
    dataset, generator = load(data), torch.Generator().manual_seed(0)
    dtype = "float64" if len(dataset.shape) == 1 else "float32"
    model = build(registry().find(name), Problem(shape=dataset.shape, dtype=dtype))
    raw = dataset.train[:1200]
    x = dataset.preprocessing.draw(raw, generator, getattr(torch, dtype))
    model.init_batch(x)
    trainer = Trainer(model, TrainingConfig(optimizer="adam", learning_rate=3e-3, ema_decay=None), generator)
    for step in range(steps):
        trainer.step(x[step % 12 :: 12])
    return model, dataset.preprocessing.draw(dataset.test[:20], generator, getattr(torch, dtype))


@pytest.mark.parametrize(("data", "steps"), [("digits", 60), ("swirl", 300)])
def test_the_nll_is_that_of_another_tolerance_to_a_thousandth(
    data: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = trained("zuko-cnf-fm", data, steps)
    values = []
    for tolerance in (1e-5, 1e-7):
        monkeypatch.setattr(flow_matching, "TOLERANCES", dict.fromkeys(("float32", "float64"), tolerance))
        with torch.no_grad():
            values.append(log_prob(model, x))
    assert abs(float((values[0] - values[1]).mean())) < 1e-3
    assert not torch.equal(*values)  # the tolerance is heard
    with torch.no_grad():
        start = log_prob(trained("zuko-cnf-fm", data, 0)[0], x)
        torch.testing.assert_close(model.to_data(model.to_latent(x)[0]), x, rtol=1e-3, atol=1e-3)
    assert float((values[1] - start).abs().max()) > 0.1  # the steps have bent the flow
    assert bool(score(model, x[:3]).isfinite().all())


def test_no_table_counts_a_regression_as_maximum_likelihood() -> None:
    for name in METHODS:
        method = registry().find(name)
        assert not method.matches_scores
        assert family(method.objective, method.linear, method.family) not in LIKELIHOOD


def test_the_likelihood_rises() -> None:
    (model, x), (start, _) = trained("zuko-cnf-fm", "swirl", 300), trained("zuko-cnf-fm", "swirl", 0)
    with torch.no_grad():
        assert float((log_prob(model, x) - log_prob(start, x)).mean()) > 0.05


def test_the_couplings_come_near_the_velocitys_pairs() -> None:
    errors, z = [], draw(100, 2)
    for steps in (0, 40):
        model, _ = trained("zuko-nsf-reg", "swirl", steps)
        with torch.no_grad():
            errors.append(float((model.flow().inv(z) - pairs(model.layers, z, 10)).square().mean()))
    assert errors[1] < 0.5 * errors[0]
