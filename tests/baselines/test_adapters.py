"""Every method keeps every promise of the conformance kit, and what the kit cannot know of ours.

Tests run over whatever `registry()` finds, so a new file under `baselines/` is held to all of this at once.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from baselines._triangular import factors
from harness.conformance.checks import CHECKS, Check, run_check
from harness.conformance.checks.learning import fc_log_prob, shared_layers
from harness.conformance.subject import Subject, draw, jacobians
from harness.methods import Method, Problem
from harness.methods.density import build, count_parameters, log_prob, refusal, sample
from harness.methods.registry import registry, why_unavailable
from harness.training.configuration import TrainingConfig
from harness.training.step import Trainer

ALL = list(registry().methods.values())
METHODS = [method for method in ALL if "fc" in method.architectures]
DENSE = [m for m in METHODS if m.linear == "dense" and m.iterative]
LINEAR_LAYERS = 3


def small(architecture: str = "fc", **changes: object) -> Problem:
    """A small problem of an architecture."""
    sizes = {"fc": ((5,), 3), "cnn": ((1, 4, 4), 3), "glow": ((1, 4, 4), 2), "toy": ((2,), 3), "multimodal": ((4,), 3)}
    shape, layers = sizes[architecture]
    return Problem(**{"architecture": architecture, "shape": shape, "layers": layers, "dtype": "float64", **changes})


@pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
def test_it_keeps_its_promises(method: Method, check: Check) -> None:
    finding = run_check(method, check)
    assert finding.status != "broken", finding.text


@pytest.mark.parametrize("method", [m for m in METHODS if m.iterative], ids=lambda m: m.name)
def test_in_bfloat16_the_gradient_is_near_the_full_one_or_the_method_says_why_not(method: Method) -> None:
    # The furthest are the spline couplings with 0.2; finite differences of energies would be off by several lengths.
    gradients = []
    for dtype in ("float32", "bf16"):
        problem = small(shape=(16,), layers=2, batch=64, dtype=dtype, noise=0.1)
        if reason := refusal(method, problem):
            assert (method.name, dtype) == ("ebflow-fdssm", "bf16"), reason
            assert reason.endswith("lost in the rounding of bf16; choose float32")
            return
        model = build(method, problem)
        trainer = Trainer(model, TrainingConfig(), torch.Generator().manual_seed(0), dtype)
        torch.manual_seed(0)  # for dropout and libraries that draw from the global stream
        trainer.gradient(torch.randn(64, 16, generator=torch.Generator().manual_seed(1)))
        gradients.append(torch.cat([p.grad.flatten() for p in model.module.parameters() if p.grad is not None]))
    full, lowered = gradients
    assert (full - lowered).norm() < 0.5 * full.norm()


def test_every_competitor_of_this_repository_is_there() -> None:
    # A library that is missing would take its methods out of all the tests below, silently.
    assert registry().broken_modules == {}
    available = {m.name for m in METHODS if why_unavailable(m) is None}
    assert available >= {
        *("ebflow-ml", "ebflow-sml", "ebflow-ssm", "ebflow-tssm", "ebflow-dsm", "ebflow-fdssm", "gaussian"),
        *("ebflow-snl", "ebflow-lcss", "circulant-ml"),
        *(f"nflows-{name}-ml" for name in ("dense", "lu", "qr", "svd", "nsf", "maf", "made")),
        *(f"normflows-{name}-ml" for name in ("dense", "lu", "luperm", "nsf", "residual")),
        *(f"zuko-{name}-ml" for name in ("dense", "lu", "nsf", "maf")),
        *("relative-gradient-ml", "self-normalizing-ml", "free-form-ml", "plain-lu-ml", "tarflow-ml"),
        *("zuko-cnf-fm", "zuko-nsf-reg"),
    }


@pytest.mark.parametrize("method", [m for m in METHODS if m.iterative], ids=lambda m: m.name)
@pytest.mark.parametrize(
    "changes", [{"residual": True}, {"raw_pixel_alpha": 0.5, "levels": 17}], ids=["bend", "pixels"]
)
def test_weights_of_other_constants_are_refused_or_give_the_same_density(
    method: Method, changes: dict[str, Any]
) -> None:
    before: dict[str, Any] = {"raw_pixel_alpha": 0.5, "levels": 256} if "levels" in changes else {}
    if before and not method.raw_pixels:
        return
    saved, own = (build(method, small(**constants)) for constants in (before, changes))
    x = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    refused = ""
    try:
        own.module.load_state_dict(saved.module.state_dict())
    except RuntimeError as error:
        refused = str(error)
    assert "the weights were made with" in refused or torch.allclose(log_prob(own, x), log_prob(saved, x))


@pytest.mark.parametrize("method", [m for m in METHODS if not m.exact_log_prob], ids=lambda m: m.name)
def test_gradients_of_estimates_have_no_bias(method: Method) -> None:
    problem = small(shape=(3,), layers=1)
    model, x = Subject(method).model(problem), draw(problem, 4)
    parameters = [p for p in model.module.parameters() if p.requires_grad]

    def gradient(loss: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])

    points = x.clone().requires_grad_()
    z = model.to_latent(points)[0]
    rows = [torch.autograd.grad(component.sum(), points, create_graph=True)[0] for component in z.unbind(1)]
    log_det = torch.linalg.slogdet(torch.stack(rows, 1)).logabsdet
    truth = gradient((0.5 * z.square().sum(1) - log_det).mean())
    noise = torch.Generator().manual_seed(0)
    found = torch.stack([gradient(model.training_loss(x, noise)) for _ in range(200)])
    error = (found.mean(0) - truth).abs() / (found.std(0) / math.sqrt(200) + 1e-12)
    assert error.max() < 6  # of tens of thousands


@pytest.mark.parametrize(
    "name", ["nflows-nsf-ml", "nflows-maf-ml", "normflows-nsf-ml", "zuko-nsf-ml", "zuko-maf-ml", "tarflow-ml"]
)
def test_blocks_start_behind_a_standardisation(name: str) -> None:
    problem = small()
    model, x = build(registry().find(name), problem), 100 + 20 * draw(problem, 500)
    model.init_batch(x)
    far, near = (log_prob(model, values).mean() for values in (x, (x - x.mean(0)) / x.std(0)))
    model.init_batch((x - x.mean(0)) / x.std(0))
    again = log_prob(model, (x - x.mean(0)) / x.std(0)).mean()
    torch.testing.assert_close(far, again - x.std(0).log().sum(), rtol=1e-5, atol=1e-5)
    assert near < far  # the start is that of the batch it was given
    state = [parameter.detach().clone() for parameter in model.module.parameters()]
    model.init_batch(x[:1])  # a single sample has no scale
    assert all(torch.equal(*pair) for pair in zip(state, model.module.parameters(), strict=True))


@pytest.mark.parametrize("name", ["nflows-lu-ml", "normflows-luperm-ml"])
@pytest.mark.parametrize("flaw", ["row exchange", "negative diagonal"])
def test_weights_beyond_a_triangular_layer_are_refused(name: str, flaw: str) -> None:
    layers = shared_layers(registry().find(name))
    weight, bias = layers[1]
    layers[1] = (weight.flip(0), bias) if flaw == "row exchange" else (-weight, bias)
    model = build(registry().find(name), small())
    with pytest.raises(ValueError, match="factor without row exchanges, with a positive diagonal"):
        model.load_linear_layers(layers)


@pytest.mark.parametrize("name", ["zuko-lu-ml", "plain-lu-ml"])
def test_row_exchanges_are_refused_where_signs_are_free(name: str) -> None:
    layers = shared_layers(registry().find(name))
    problem = small()
    model, x = build(registry().find(name), problem), draw(problem)
    weight, bias = layers[1]
    layers[1] = (-weight, bias)
    model.load_linear_layers(layers)
    torch.testing.assert_close(log_prob(model, x), fc_log_prob(layers, x), rtol=1e-10, atol=1e-10)
    for other in (torch.eye(5, dtype=torch.float64).flip(0), weight * torch.tensor([[0.0], [1], [1], [1], [1]])):
        layers[1] = (other, bias)
        with pytest.raises(ValueError, match="factor without row exchanges"):
            model.load_linear_layers(layers)


@pytest.mark.parametrize("size", [1, 16, 17, 70])
def test_triangular_factors_are_those_of_the_matrix(size: int) -> None:
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix += size * torch.eye(size, dtype=torch.float64)
    lower, upper = factors(matrix)
    torch.testing.assert_close(lower @ upper, matrix, rtol=1e-12, atol=1e-12)
    assert torch.equal(lower.tril(), lower)
    assert torch.equal(upper.triu(), upper)
    assert bool((lower.diag() == 1).all())


def test_an_lu_method_with_row_exchanges_takes_any_matrix() -> None:
    layers = shared_layers(registry().find("ebflow-ml"))
    problem = small()
    model, x = build(registry().find("normflows-lu-ml"), problem), draw(problem)
    model.load_linear_layers(layers)
    torch.testing.assert_close(log_prob(model, x), fc_log_prob(layers, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["ebflow-ml", "nflows-dense-ml", "zuko-dense-ml"])
def test_sampling_factors_every_matrix_once(name: str) -> None:
    class Factorisations(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += func.name() in (
                "aten::linalg_lu_factor_ex",
                "aten::_linalg_solve_ex",
                "aten::_linalg_slogdet",
            )
            return func(*args, **(kwargs or {}))

    model = build(registry().find(name), small())
    with torch.no_grad(), Factorisations() as factorisations:
        sample(model, small().shape, 4, torch.Generator().manual_seed(0))
    assert factorisations.count == LINEAR_LAYERS


@pytest.mark.parametrize("residual", [False, True])
def test_dense_methods_start_alike(residual: bool) -> None:
    problem = small(residual=residual)
    x = draw(problem)
    start = {m.name: log_prob(build(m, problem), x) for m in DENSE}
    first = start["ebflow-ml"]
    for name, value in start.items():
        torch.testing.assert_close(value, first, rtol=1e-12, atol=1e-12, msg=name)


def test_dense_densities_are_of_one_size() -> None:
    # What else a method trains, such as learned inverses, is no part of its density.
    problem = small()
    sizes = {}
    for method in DENSE:
        model = build(method, problem)
        parameters = list(model.module.parameters())
        gradients = torch.autograd.grad(log_prob(model, draw(problem)).sum(), parameters, allow_unused=True)
        sizes[method.name] = sum(gradient.numel() for gradient in gradients if gradient is not None)
    assert sizes == {m.name: LINEAR_LAYERS * (5 * 5 + 5) for m in DENSE}


def test_raw_pixels_go_in_front() -> None:
    problem = small(shape=(1, 2, 2), raw_pixel_alpha=0.5, levels=17)
    model = build(registry().find("ebflow-ml"), problem)
    pixels = 17 * torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = torch.linalg.slogdet(jacobians(model, pixels)).logabsdet
    torch.testing.assert_close(model.to_latent(pixels)[1], truth, rtol=1e-9, atol=1e-9)


def test_a_frozen_actnorm_is_not_trained() -> None:
    for architecture in ("toy", "glow"):
        method = registry().find("ebflow-ml")
        model = build(method, small(architecture, frozen_actnorm=True))
        free = {name.rsplit(".", 1)[-1] for name, p in model.module.named_parameters() if not p.requires_grad}
        assert {"shift", "log_scale"} >= free
        assert count_parameters(model) < count_parameters(build(method, small(architecture)))


def test_the_low_energy_term_is_in_score_matching_losses_alone() -> None:
    matching, likelihood = ("dsm", "ssm", "fdssm", "lcss"), ("ml", "snl")
    for name, differs in [*((name, True) for name in matching), *((name, False) for name in likelihood)]:
        losses = []
        for weight in (0.0, 0.5):
            problem = small(energy_weight=weight)
            model = build(registry().find(f"ebflow-{name}"), problem)
            losses.append(model.training_loss(draw(problem), torch.Generator().manual_seed(0)).item())
        assert (losses[0] != losses[1]) == differs
