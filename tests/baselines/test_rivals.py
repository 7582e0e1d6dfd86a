"""The gradients of the methods without determinants, against autograd on the objective that each stands for."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from baselines.free_form import BETA
from harness.methods import Model, Problem
from harness.methods.density import build, log_prob
from harness.methods.registry import registry
from harness.paper.configurations import configuration
from harness.training.configuration import TrainingConfig
from harness.training.step import Trainer

NAMES = ["relative-gradient-ml", "self-normalizing-ml", "free-form-ml"]
PROBLEM = Problem(shape=(4,), layers=3, batch=6, dtype="float64")

every_rival = pytest.mark.parametrize("name", NAMES)


def weights(dimension: int = 4) -> list[tuple[Tensor, Tensor]]:
    """Layers well away from the start, some with det < 0."""
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(dimension, dimension, generator=generator, dtype=torch.float64),
            torch.randn(dimension, generator=generator, dtype=torch.float64),
        )
        for _ in range(PROBLEM.layers)
    ]


def loaded(name: str) -> Model:
    """A model with these layers, its learned inverses exact."""
    model = build(registry().find(name), PROBLEM)
    model.load_linear_layers(weights())
    return model


def draw(n: int = 6) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def exact_gradients(model: Model, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of the mean NLL, with determinants, by autograd: one pair of W's and b's for every layer."""
    parameters = [p for layer in model.dense_layers for p in (layer.weight, layer.bias)]
    found = torch.autograd.grad(-log_prob(model, x).mean(), parameters)
    return list(zip(found[::2], found[1::2], strict=True))


def trained_gradients(model: Model, loss: Tensor) -> list[tuple[Tensor, Tensor]]:
    model.module.zero_grad()
    loss.backward()
    return [(layer.weight.grad.clone(), layer.bias.grad.clone()) for layer in model.dense_layers]


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_the_relative_gradient_is_the_exact_one_times_the_metric() -> None:
    model, x = loaded("relative-gradient-ml"), draw()
    found = trained_gradients(model, model.training_loss(x))
    for (of_weight, of_bias), (weight, bias), layer in zip(
        found, exact_gradients(model, x), model.dense_layers, strict=True
    ):
        assert_equal(of_weight, weight @ layer.weight.T @ layer.weight)
        assert_equal(of_bias, bias)


def test_a_self_normalizing_layer_has_half_the_exact_gradient_where_its_inverse_is_exact() -> None:
    model, x = loaded("self-normalizing-ml"), draw()
    found = trained_gradients(model, model.training_loss(x))
    for (of_weight, of_bias), (weight, bias) in zip(found, exact_gradients(model, x), strict=True):
        assert_equal(of_weight, weight / 2)
        assert_equal(of_bias, bias)  # the same in both halves


def inverse_model_nll(inverses: list[Tensor], biases: list[Tensor], x: Tensor) -> Tensor:
    """Of the model whose layers are x = R (y - b), given S = R^T: its latents need the inverse of R."""
    log_det = torch.zeros((), dtype=x.dtype)
    for index, (inverse, bias) in enumerate(zip(inverses, biases, strict=True)):
        if index:
            log_det = log_det + torch.log(0.3 + 0.7 * torch.sigmoid(x)).sum(1)
            x = 0.3 * x + 0.7 * torch.log(1 + torch.exp(x))
        x = torch.linalg.solve(inverse.T, x.T).T + bias
        log_det = log_det - torch.linalg.slogdet(inverse).logabsdet
    return (0.5 * x.square().sum(1) - log_det).mean()


def test_a_learned_inverse_has_half_the_exact_gradient_of_the_inverse_model() -> None:
    model, x = loaded("self-normalizing-ml"), draw()
    model.training_loss(x).backward()
    inverses = list(model.module.inverses)
    biases = [layer.bias for layer in model.dense_layers]
    exact = torch.autograd.grad(inverse_model_nll(inverses, biases, x), [*inverses, *biases])
    for inverse, expected in zip(inverses, exact[: len(inverses)], strict=True):
        assert_equal(inverse.grad, expected / 2)
    for bias, expected in zip(biases, exact[len(inverses) :], strict=True):
        assert_equal(bias.grad, expected)


def test_away_from_the_inverse_the_self_normalizing_gradient_is_that_of_the_formulas() -> None:
    model, x = loaded("self-normalizing-ml"), draw()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for inverse in model.module.inverses:
            inverse += 0.3 * torch.randn(inverse.shape, generator=generator, dtype=torch.float64)
    loss = model.training_loss(x)
    loss.backward()

    # The same by autograd alone: every layer's x, and the gradient of the likelihood at its y and at its x.
    inputs, outputs, hidden, log_det = [], [], x.clone().requires_grad_(), torch.zeros((), dtype=x.dtype)
    for layer in model.module.layers:
        if layer in model.dense_layers:
            inputs.append(hidden)
            hidden, _ = layer(hidden)
            outputs.append(hidden)
        else:
            hidden, term = layer(hidden)
            log_det = log_det + term
    likelihood = (0.5 * hidden.square().sum(1) - log_det).mean()
    deltas = torch.autograd.grad(likelihood, outputs, retain_graph=True)
    of_inputs = torch.autograd.grad(likelihood, inputs)
    errors = torch.zeros((), dtype=x.dtype)
    for layer, inverse, before, delta, of_input in zip(
        model.dense_layers, model.module.inverses, inputs, deltas, of_inputs, strict=True
    ):
        before = before.detach()
        error = ((before @ layer.weight.T @ inverse - before) ** 2).sum(1).mean()
        of_weight, of_inverse = torch.autograd.grad(error, (layer.weight, inverse))
        product = before @ layer.weight.detach().T
        assert_equal(layer.weight.grad, delta.T @ before / 2 - inverse.detach() / 2 + of_weight)
        assert_equal(inverse.grad, -product.T @ of_input / 2 + layer.weight.detach() / 2 + of_inverse)
        errors = errors + error.detach()
    assert_equal(loss.detach(), likelihood.detach() + errors)


def test_the_free_form_gradient_is_exact_in_expectation_where_the_decoder_is() -> None:
    model, x = loaded("free-form-ml"), draw()
    # The mean of v v^T over these directions is the identity.
    directions = math.sqrt(4) * torch.eye(4, dtype=torch.float64)
    loss = torch.stack([model.loss_along(x, v.expand_as(x)) for v in directions]).mean()
    found = trained_gradients(model, loss)
    for (of_weight, of_bias), (weight, bias) in zip(found, exact_gradients(model, x), strict=True):
        assert_equal(of_weight, weight)
        assert_equal(of_bias, bias)
    for parameter in model.module.decoder.parameters():
        assert_equal(parameter.grad, torch.zeros_like(parameter))


def test_the_free_form_loss_is_the_papers_with_any_decoder() -> None:
    model, x = loaded("free-form-ml"), draw()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.module.decoder.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    activation = model.module.layers[1]

    def decode(z: Tensor) -> Tensor:
        *inner, last = model.module.decoder
        for dense in inner:
            z = activation.inverse(dense(z)[0])
        return last(z)[0]

    def encode(x: Tensor) -> Tensor:
        return model.module(x)[0]

    v = 2 * torch.nn.functional.normalize(torch.randn(6, 4, generator=generator, dtype=torch.float64))
    z, pulled = torch.autograd.functional.vjp(encode, x, v, create_graph=True)
    pushed = torch.autograd.functional.jvp(decode, z.detach(), v)[1]
    per_sample = 0.5 * z.square().sum(1) - (pulled * pushed).sum(1) + BETA * (x - decode(z)).square().sum(1)
    parameters = list(model.module.parameters())
    theirs = torch.autograd.grad(per_sample.mean(), parameters)
    loss = model.loss_along(x, v)
    ours = torch.autograd.grad(loss, parameters)
    assert_equal(loss, per_sample.mean())
    for found, expected in zip(ours, theirs, strict=True):
        assert_equal(found, expected)


def test_free_form_directions_lie_on_the_sphere() -> None:
    model, seen = loaded("free-form-ml"), []
    model.loss_along = lambda x, v: seen.append(v) or x.sum()
    model.training_loss(draw(50), torch.Generator().manual_seed(0))
    assert_equal(seen[0].norm(dim=1), torch.full((50,), 2.0, dtype=torch.float64))
    assert seen[0].unique(dim=0).shape == (50, 4)


@every_rival
def test_a_weighted_loss_has_a_weighted_gradient(name: str) -> None:
    model, x = loaded(name), draw()
    once, thrice = (
        trained_gradients(model, weight * model.training_loss(x, torch.Generator().manual_seed(0)))
        for weight in (1.0, 3.0)
    )
    for pair, tripled in zip(once, thrice, strict=True):
        for gradient, other in zip(pair, tripled, strict=True):
            assert_equal(3 * gradient, other)


@pytest.mark.parametrize(
    ("name", "more"), [("relative-gradient-ml", 0), ("self-normalizing-ml", 3 * 16), ("free-form-ml", 3 * 20)]
)
def test_what_is_learned_beside_the_density_is_trained_averaged_and_kept(name: str, more: int) -> None:
    model = loaded(name)
    assert len(list(model.module.constant_layers())) == 3
    assert sum(p.numel() for p in model.module.parameters()) == 3 * 20 + more
    other = build(registry().find(name), PROBLEM)
    other.module.load_state_dict(copy.deepcopy(model.module).state_dict())
    trainer = Trainer(model, TrainingConfig(learning_rate=0.01, ema_decay=0.9), torch.Generator().manual_seed(0))
    before = [p.detach().clone() for p in model.module.parameters()]
    trainer.step(draw())
    assert all(bool((p != old).any()) for p, old in zip(model.module.parameters(), before, strict=True))
    assert len(trainer.average) == len(before)
    for parameter, old in zip(other.module.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


@every_rival
def test_bfloat16_takes_a_step_near_the_full_one(name: str) -> None:
    gradients = []
    for dtype in ("float32", "bf16"):
        problem = replace(PROBLEM, shape=(16,), batch=64, dtype=dtype)
        model = build(registry().find(name), problem)
        model.load_linear_layers(
            [(torch.eye(16) + 0.1 * w, b) for w, b in ((w.float(), b.float()) for w, b in weights(16))]
        )
        x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
        Trainer(model, TrainingConfig(), torch.Generator().manual_seed(0), dtype).gradient(x)
        assert {p.grad.dtype for p in model.module.parameters()} == {torch.float32}
        gradients.append(torch.cat([p.grad.flatten() for layer in model.dense_layers for p in layer.parameters()]))
    full, lowered = gradients
    assert (full - lowered).norm() < 0.05 * full.norm()


@every_rival
def test_it_learns_a_gaussian(name: str) -> None:
    # One layer can be the density exactly. No variance is small: below 1 / 8 along some direction, the maximum of the
    # likelihood is an unstable point of self-normalizing flows with a reconstruction of weight 1.
    generator = torch.Generator().manual_seed(0)
    factor = torch.tensor([[1.5, 0, 0], [0.5, 0.8, 0], [-0.5, 0.3, 1]], dtype=torch.float64)
    problem = Problem(shape=(3,), layers=1, dtype="float64")

    def sample(n: int) -> Tensor:
        return torch.randn(n, 3, generator=generator, dtype=torch.float64) @ factor.T + 1

    model = build(registry().find(name), problem)
    trainer = Trainer(model, TrainingConfig(optimizer="adam", learning_rate=0.01, ema_decay=0.99), generator)
    for _ in range(800):
        trainer.step(sample(200))
    truth = torch.distributions.MultivariateNormal(torch.ones(3, dtype=torch.float64), factor @ factor.T)
    x = sample(5000)
    with torch.no_grad(), trainer.evaluated_weights():
        gap = (truth.log_prob(x) - log_prob(model, x)).mean()
    assert abs(gap) < 0.02


@pytest.mark.parametrize("recipe", ["paper", "tuned"])
def test_the_likelihoods_recipe_is_theirs(recipe: str) -> None:
    def chosen(objective: str) -> object:
        return configuration("mnist", "fc", objective, recipe)

    for name in NAMES:
        assert chosen(registry().find(name).objective) == chosen("ml")
    assert (chosen("dsm") == chosen("ml")) == (recipe == "paper")
