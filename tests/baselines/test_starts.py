"""One start from data and one refit for every method that trains the paper's fc, whatever its library."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ebflow import Behind, architectures
from ebflow.initialization import calibrate, from_data
from ebflow.layers import Dense
from harness import datasets
from harness.errors import InputError, UnavailableError
from harness.methods import Method, Model, Problem, SharedWeights
from harness.methods.density import build, count_parameters, folded, log_prob
from harness.methods.registry import registry
from harness.methods.whitened import Whitened, refit
from harness.paper.plans import Context, configured_cell, overridden
from harness.training.configuration import TrainingConfig
from harness.training.step import Trainer

DIGITS = Problem(shape=(1, 8, 8), start="whitened", dtype="float64", noise=0.3)
METHODS = [method for method in registry().methods.values() if method.is_papers_fc]
DENSE = [method for method in METHODS if method.linear == "dense"]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """The training digits in model space."""
    data = datasets.load("digits")
    return data.preprocessing.draw(data.train, torch.Generator().manual_seed(0), torch.float64)


def started(method: Method | str, x: Tensor, **changes: object) -> Whitened:
    found = registry().find(method) if isinstance(method, str) else method
    model = build(found, DIGITS.replace(**changes))
    assert isinstance(model, Whitened)
    model.init_batch(x)
    return model


def nll(model: Model, x: Tensor) -> float:
    with torch.no_grad():
        return -log_prob(model, x).mean().item()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_start_is_that_of_ebflows_initialization(dtype: str, layers: int, digits: Tensor) -> None:
    x = digits.to(getattr(torch, dtype))
    flow = architectures.whitened_fc((1, 8, 8), layers).to(x)
    from_data(flow, x)
    expected = [(layer.weight, layer.bias) for layer in flow.layers if isinstance(layer, Dense)]
    model = started("ebflow-ml", x, dtype=dtype, layers=layers)
    tolerance = 1e-11 if dtype == "float64" else 1e-5
    torch.testing.assert_close(model.linear_layers(), expected, rtol=0, atol=tolerance)
    with torch.no_grad():
        torch.testing.assert_close(log_prob(model, x), flow.log_prob(x), rtol=1e-6, atol=0)
    for tensor in (*model.module.parameters(), *flow.parameters()):
        tensor.data.mul_(1.1)
    refit(model, x)
    calibrate(flow, x)
    torch.testing.assert_close(model.linear_layers(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["ml", "sml", "ssm", "tssm", "dsm", "fdssm", "lcss"])
@pytest.mark.parametrize("start", ["whitened", "whitened-start"])
def test_losses_are_those_of_a_flow_with_a_whitening_layer(name: str, start: str, digits: Tensor) -> None:
    model = started(f"ebflow-{name}", digits, start=start)
    flow = architectures.whitened_fc((1, 8, 8)).double()
    from_data(flow, digits)
    objective = model.model.objective
    whole = Behind(objective, 2) if start == "whitened" else objective
    expected = whole(flow, digits[:50], torch.Generator().manual_seed(0))
    loss = model.training_loss(digits[:50], torch.Generator().manual_seed(0))
    ours = torch.autograd.grad(loss, list(model.module.parameters()))
    theirs = torch.autograd.grad(expected, list(flow.parameters()))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    if name != "ml" and name != "sml":  # whose losses in front of the whitening differ by a constant
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)


@every_method
def test_a_method_starts_as_all_others_do_or_says_how_it_differs(method: Method, digits: Tensor) -> None:
    common, model = started("ebflow-ml", digits), started(method, digits)
    with torch.no_grad():
        same = torch.allclose(log_prob(model, digits), log_prob(common, digits), rtol=1e-9, atol=1e-7)
    assert same == (not method.own_start)
    if not same:  # all units rise: a little worse, and far better than no start
        assert 0 < nll(model, digits) - nll(common, digits) < 1
        assert "above zero" in method.own_start
    assert count_parameters(model) == count_parameters(build(method, DIGITS.replace(start="published")))


@every_method
def test_the_last_layer_is_refitted_to_its_optimum(method: Method, digits: Tensor) -> None:
    model = started(method, digits)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    moved, (*others, _) = nll(model, digits), model.linear_layers()
    others = [(weight.clone(), bias.clone()) for weight, bias in others]
    refit(model, digits)
    assert nll(model, digits) < moved - 0.05
    with torch.no_grad():
        z = model.to_latent(digits)[0].flatten(1)
    torch.testing.assert_close(z.mean(0), torch.zeros(64, dtype=z.dtype), rtol=0, atol=1e-7)
    torch.testing.assert_close(torch.cov(z.mT, correction=0), torch.eye(64, dtype=z.dtype), rtol=0, atol=1e-6)
    torch.testing.assert_close(model.linear_layers()[:-1], others, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["normflows-lu-ml", "normflows-luperm-ml", "self-normalizing-ml", "zuko-lu-ml"])
def test_training_goes_on_from_what_a_refit_has_not_touched(name: str, digits: Tensor) -> None:
    """Also where it changes buffers, such as row exchanges."""
    model = started(name, digits)
    trainer = Trainer(model, TrainingConfig(), torch.Generator().manual_seed(0), "float64")
    for _ in range(3):
        trainer.step(digits[:100])
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    with trainer.evaluated_weights():
        refit(model, digits)
        if name == "normflows-lu-ml":
            model.load_linear_layers([(weight.flip(1), bias) for weight, bias in model.linear_layers()])
            inside = model.module.state_dict()
            assert [key for key in before if key.endswith(".P") and not torch.equal(before[key], inside[key])] != []
    after = model.module.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == []


def curve(method: Method) -> list[float]:
    cell = configured_cell("x", Context("custom"), method, "digits", "fc", recipe="tuned", draws=1)
    cell = overridden(cell, {"epochs": 3, "evaluate_every": 1}, {"dtype": "float64"})
    rows = cell.run().rows
    assert {row.status for row in rows} == {"ok"}
    return [row.value for row in rows if row.metric == "validation_curve"]


@pytest.mark.parametrize("objective", ["ml", "aml", "ssm", "dsm"])
def test_methods_of_one_function_one_objective_and_one_start_have_one_curve(objective: str) -> None:
    """To rounding: all dense layers hold W and b as they are, or W transposed, which no optimiser minds.

    LU layers hold other numbers, of which Adam's steps are other steps; only their start is the same.
    """
    methods = [method for method in DENSE if method.objective == objective]
    assert {name.split("-")[0] for name in (method.name for method in methods)} == {
        "ebflow",
        "nflows",
        "normflows",
        "zuko",
    }
    curves = {method.name: curve(method) for method in methods}
    expected = curves[f"ebflow-{objective}"]
    assert len(expected) == 4
    assert abs(expected[-1] - expected[0]) > 1e-3  # which the bar can tell
    for values in curves.values():
        assert values == pytest.approx(expected, abs=1e-5, rel=0)


@pytest.mark.parametrize("objective", ["ssm", "dsm"])
def test_scores_are_matched_in_one_space(objective: str, digits: Tensor) -> None:
    names = [method.name for method in DENSE if method.objective == objective]
    for start in ("whitened", "whitened-start"):
        losses = [
            started(name, digits, start=start).training_loss(digits[:50], torch.Generator().manual_seed(3)).item()
            for name in names
        ]
        assert losses == pytest.approx([losses[0]] * 4, rel=1e-9)


def test_the_space_of_the_match_matters_to_score_matching_alone(digits: Tensor) -> None:
    def gradient(name: str, start: str) -> Tensor:
        model = started(name, digits, start=start)
        model.training_loss(digits[:50], torch.Generator().manual_seed(0)).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.module.parameters()])

    for name in ("ebflow-dsm", "nflows-dense-ssm"):
        assert not torch.allclose(gradient(name, "whitened"), gradient(name, "whitened-start"))
    for name in ("ebflow-ml", "zuko-dense-ml", "relative-gradient-ml"):
        torch.testing.assert_close(gradient(name, "whitened"), gradient(name, "whitened-start"))


class Plain(Model):
    """The least that takes a start: one dense layer, with a loss of its own."""

    def __init__(self, problem: Problem) -> None:
        self.module = torch.nn.Linear(problem.dimension, problem.dimension)

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.to_latent(x)[0].square().mean()

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.module(x.flatten(1)), torch.linalg.slogdet(self.module.weight).logabsdet.expand(len(x))

    def to_data(self, z: Tensor) -> Tensor:
        return torch.linalg.solve(self.module.weight, (z - self.module.bias).mT).mT

    def linear_layers(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.module.weight.detach(), self.module.bias.detach())]

    def load_linear_layers(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        ((weight, bias),) = layers
        self.module.load_state_dict({"weight": weight, "bias": bias})


class Stubborn(Plain):
    def load_linear_layers(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        raise ValueError("it takes no other weights")


def test_an_adapter_gets_start_and_refit_without_a_line_of_its_own(digits: Tensor) -> None:
    method = Method("plain-ml", "ml", "dense", Plain)
    model = started(method, digits, layers=1)
    covariance = torch.cov(digits.flatten(1).mT, correction=0)
    gaussian = torch.distributions.MultivariateNormal(digits.flatten(1).mean(0), covariance)
    assert nll(model, digits) == pytest.approx(-gaussian.log_prob(digits.flatten(1)).mean().item(), rel=1e-9)
    x = digits[:5]
    with torch.no_grad():
        torch.testing.assert_close(model.to_data(model.to_latent(x)[0]), x, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(log_prob(folded(model), digits), log_prob(model, digits), rtol=1e-9, atol=1e-9)
    assert isinstance(model, SharedWeights)


@pytest.mark.parametrize("start", ["identity", "orthogonal"])
@pytest.mark.parametrize("method", DENSE, ids=lambda m: m.name)
def test_every_dense_method_starts_from_the_same_drawn_weights(method: Method, start: str, digits: Tensor) -> None:
    problem = DIGITS.replace(start=start, layers=3)
    model, reference = build(method, problem), build(registry().find("ebflow-ml"), problem)
    x = digits[:200].reshape(200, 1, 8, 8)
    torch.testing.assert_close(log_prob(model, x), log_prob(reference, x), rtol=1e-10, atol=0)
    weights = torch.stack([weight.detach() for weight, _ in model.linear_layers()])
    biases = torch.stack([bias.detach() for _, bias in model.linear_layers()])
    identity = torch.eye(64, dtype=torch.float64)
    torch.testing.assert_close(weights @ weights.mT, identity.expand(3, 64, 64), rtol=0, atol=1e-5)
    assert bool((weights == identity).all()) == (start == "identity")
    # 192 draws of N(0, 1/64): their standard deviation lies within a fifth of 1/8 but for one seed in ten thousand.
    assert float(biases.std()) == pytest.approx(1 / 8, rel=0.2)
    other = build(method, problem.replace(seed=1))
    assert not torch.equal(other.linear_layers()[0][1], biases[0])


def test_what_cannot_start_from_given_weights_says_so() -> None:
    for name, start, reason in [
        ("nflows-lu-ml", "orthogonal", "cannot start from given weights"),
        ("nflows-nsf-ml", "identity", "has no identity start: only the paper's fc has"),
    ]:
        with pytest.raises(InputError, match=reason):
            build(registry().find(name), DIGITS.replace(start=start))


def test_what_cannot_start_from_data_says_why(digits: Tensor) -> None:
    with pytest.raises(UnavailableError, match="cannot take a start from data: it takes no other weights"):
        started(Method("stubborn-ml", "ml", "dense", Stubborn), digits)
    scores = Method("plain-lcss", "lcss", "dense", Plain, family="score-matching")
    lcss = started(scores, digits, start="whitened-start", layers=1)
    with pytest.raises(UnavailableError, match="plain-lcss matches scores behind the whitening alone"):
        lcss.training_loss(digits)
    with pytest.raises(ValueError, match="the covariance is singular: 50 samples are too few in 64 dimensions"):
        started("ebflow-ml", digits[:50])
    for name, changes in [("gaussian", {}), ("nflows-qr-ml", {}), ("ebflow-dsm", {"raw_pixel_alpha": 0.5})]:
        with pytest.raises(InputError, match=f"{name} has no whitened start: only the paper's fc has"):
            build(registry().find(name), DIGITS.replace(**changes))
    with pytest.raises(InputError, match="ebflow-dsm has no whitened start"):
        build(registry().find("ebflow-dsm"), DIGITS.replace(architecture="cnn", layers=3))
