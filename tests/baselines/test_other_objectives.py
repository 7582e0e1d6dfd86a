"""Flows of other libraries by objectives of ebflow: ebflow's loss on equal weights, and the library's own density."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from baselines.other_objectives import METHODS
from harness.methods import Method, Model, Problem
from harness.methods.density import build, log_prob
from harness.methods.registry import registry
from harness.paper.configurations import configuration
from harness.paper.plans import Context, configured_cell

DENSE = [method for method in METHODS if method.linear == "dense"]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
every_dense = pytest.mark.parametrize("method", DENSE, ids=lambda m: m.name)


def problem(**changes: object) -> Problem:
    return Problem(**{"shape": (1, 2, 3), "layers": 3, "dtype": "float64", "noise": 0.4, **changes})


def draw(n: int = 20) -> Tensor:
    return torch.randn(n, 1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def linear_layers(*, triangular_factors: bool = False) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    layers = []
    for _ in range(3):
        weight, bias = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((6, 6), (6,)))
        if triangular_factors:
            lower = torch.eye(6, dtype=torch.float64) + weight.tanh().tril(-1) / 2
            weight = lower @ (weight.triu(1) + torch.diag(0.5 + weight.diag().abs()))
        layers.append((weight, bias))
    return layers


def loss_and_gradients(name: str, build_for: Problem, weights: Callable[[nn.Module], list[Tensor]]) -> list[Tensor]:
    model = build(registry().find(name), build_for)
    model.load_linear_layers(linear_layers())
    loss = model.training_loss(draw(), torch.Generator().manual_seed(3))
    return [loss, *torch.autograd.grad(loss, weights(model.module))]


def matrices_and_biases(module: nn.Module) -> list[Tensor]:
    """Matrices, then biases, in the order data to latent."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [p for p in parameters if p.dim() == 2] + [p for p in parameters if p.dim() == 1]


def in_their_order(method: Method, gradients: list[Tensor]) -> list[Tensor]:
    """As z = W x + b, data to latent: the lists of normflows run the other way, and its matrices are transposed."""
    loss, matrices, biases = gradients[0], gradients[1:4], gradients[4:]
    if method.name.startswith("normflows"):
        matrices, biases = [matrix.mT for matrix in matrices[::-1]], biases[::-1]
    return [loss, *matrices, *biases]


@every_dense
@pytest.mark.parametrize("energy_weight", [0.0, 0.2])
def test_loss_and_gradients_are_ebflows(method: Method, energy_weight: float) -> None:
    same = problem(energy_weight=energy_weight)
    theirs = in_their_order(method, loss_and_gradients(method.name, same, matrices_and_biases))
    ours = loss_and_gradients(f"ebflow-{method.objective}", same, matrices_and_biases)
    torch.testing.assert_close(theirs, ours, rtol=1e-10, atol=1e-10)


@every_method
def test_loss_on_equal_triangular_weights_is_ebflows(method: Method) -> None:
    losses = []
    for name in (method.name, f"ebflow-{method.objective}"):
        model = build(registry().find(name), problem())
        model.load_linear_layers(linear_layers(triangular_factors=True))
        losses.append(model.training_loss(draw(), torch.Generator().manual_seed(3)))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-10, atol=1e-10)


class Decompositions(TorchDispatchMode):
    """Records determinants, solves and inverses, all of which torch calls linalg beneath autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if "linalg" in name and "vector_norm" not in name:
            self.calls.append(name)
        return func(*args, **(kwargs or {}))


def decompositions(model: Model) -> list[str]:
    with Decompositions() as mode:
        model.training_loss(draw(), torch.Generator().manual_seed(0)).backward()
    return mode.calls


@pytest.mark.parametrize("method", [m for m in METHODS if m.objective != "aml"], ids=lambda m: m.name)
def test_score_matching_computes_no_determinant(method: Method) -> None:
    assert decompositions(build(method, problem())) == []


@pytest.mark.parametrize("method", [m for m in METHODS if m.objective == "aml"], ids=lambda m: m.name)
def test_amortised_likelihood_computes_one_now_and_then(method: Method) -> None:
    model = build(method, problem(refresh=3))
    counts = [decompositions(model).count("_linalg_slogdet") for _ in range(7)]
    assert counts == [3, 0, 0, 3, 0, 0, 3]  # one a layer


def test_maximum_likelihood_on_the_same_matrices_does() -> None:
    assert "_linalg_slogdet" in decompositions(build(registry().find("nflows-dense-ml"), problem()))


@every_method
def test_the_density_is_that_of_the_librarys_own_method(method: Method) -> None:
    library, layer, _ = method.name.split("-")
    likelihood = registry().find(f"{library}-{layer}-ml")
    assert (method.linear, method.requires, method.architectures) == (
        likelihood.linear,
        likelihood.requires,
        likelihood.architectures,
    )
    x = draw()
    model, other = build(method, problem(seed=4)), build(likelihood, problem(seed=4))
    assert torch.equal(log_prob(model, x), log_prob(other, x))
    torch.testing.assert_close(model.view.log_prob(x.flatten(1)), log_prob(model, x), rtol=1e-10, atol=1e-10)


@every_method
def test_steps_move_the_librarys_own_parameters(method: Method) -> None:
    model = build(method, problem())
    x, optimizer = draw(200), torch.optim.Adam(model.module.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.training_loss(x, torch.Generator().manual_seed(0))
        loss.backward()
        optimizer.step()
        model.after_step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    with torch.no_grad():
        torch.testing.assert_close(model.view.log_prob(x.flatten(1)), log_prob(model, x), rtol=1e-10, atol=1e-10)


@every_method
@pytest.mark.parametrize("recipe", ["paper", "tuned"])
def test_recipes_are_those_of_the_objective(method: Method, recipe: str) -> None:
    cell = configured_cell("nll", Context("paper"), method, "mnist", "fc", recipe=recipe)
    expected = configuration("mnist", "fc", method.objective, recipe)
    assert cell.problem.noise == expected.problem.noise
    assert cell.problem.start == expected.problem.start
    assert cell.config.learning_rate == expected.training.learning_rate
    assert cell.config.optimizer == expected.training.optimizer
    assert cell.config.epochs == expected.training.epochs
