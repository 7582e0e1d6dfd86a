"""Every method keeps the contract of `harness.method`, and all that fit the same function agree on it.

Tests run over whatever `registry()` finds, so a new file under `baselines/` is held to all of this at once.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.density import build, count_parameters, log_prob, sample, score
from harness.errors import InputError
from harness.method import Calibrated, ClosedForm, Method, Model, SharedWeights
from harness.problem import Problem
from harness.registry import registry, why_unavailable
from harness.training import Trainer, TrainingConfig

METHODS = [method for method in registry().methods.values() if "fc" in method.architectures]
DENSE = [m for m in METHODS if m.linear == "dense" and m.iterative]
SHARING = [m for m in METHODS if isinstance(build(m, Problem(shape=(2,))), SharedWeights)]
LINEAR_LAYERS = 3
WITHOUT_NOISE = ("ml", "relative-gradient", "self-normalizing")

every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
every_exact = pytest.mark.parametrize("method", [m for m in METHODS if m.exact_log_prob], ids=lambda m: m.name)
every_estimating = pytest.mark.parametrize("method", [m for m in METHODS if not m.exact_log_prob], ids=lambda m: m.name)
every_sampling = pytest.mark.parametrize("method", [m for m in METHODS if m.samples], ids=lambda m: m.name)
every_trained = pytest.mark.parametrize("method", [m for m in METHODS if m.iterative], ids=lambda m: m.name)
in_both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
at_small_dimensions = pytest.mark.parametrize("dimension", [2, 3, 5])

ARCHITECTURES = [(m, a) for m in registry().methods.values() for a in m.architectures]


def in_architectures(pairs: list[tuple[Method, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("method", "architecture"), pairs, ids=[f"{m.name}-{a}" for m, a in pairs])


every_architecture = in_architectures(ARCHITECTURES)
every_exact_architecture = in_architectures([(m, a) for m, a in ARCHITECTURES if m.exact_log_prob])
every_sampling_architecture = in_architectures([(m, a) for m, a in ARCHITECTURES if m.samples])
every_meta_architecture = in_architectures([(m, a) for m, a in ARCHITECTURES if m.meta_device])


def small(architecture: str = "fc", **changes: object) -> Problem:
    """A small problem of an architecture."""
    sizes = {
        "fc": ((5,), 3),
        "cnn": ((1, 4, 4), 3),
        "glow": ((1, 4, 4), 2),
        "toy": ((2,), 3),
        "multimodal": ((4,), 3),
    }
    shape, layers = sizes[architecture]
    return Problem(**{"architecture": architecture, "shape": shape, "layers": layers, "dtype": "float64", **changes})


def draw(problem: Problem, n: int = 7, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *problem.shape, generator=generator, dtype=getattr(torch, problem.dtype))


def randomised(method: Method, problem: Problem, seed: int = 0, scale: float | None = None) -> Model:
    """Build, start from data, and move every trained number, far enough to leave every special start."""
    # Couplings exponentiate what hidden layers make of the noise.
    usual = 0.05 if method.linear == "none" else 0.3
    scale = scale or {"toy": 0.05, "glow": 0.01}.get(problem.architecture, usual)
    model = build(method, problem)
    model.init_batch(draw(problem, 50, seed=2))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
    model.after_step()
    model.module.eval()
    return model


def jacobians(model: Model, x: Tensor) -> Tensor:
    """The full Jacobian of to_latent at every sample, (B, D, D); that samples do not meet is a test of its own."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        z = model.to_latent(x)[0].flatten(1)
        rows = [torch.autograd.grad(component.sum(), x, retain_graph=True)[0] for component in z.unbind(1)]
    return torch.stack([row.flatten(1) for row in rows], 1)


def formula(layers: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """log p of the paper's fc flow, written out: z = W x + b, f(x) = 0.3 x + 0.7 log(1 + e^x), base N(0, I)."""
    total = torch.zeros(len(x), dtype=x.dtype)
    for index, (weight, bias) in enumerate(layers):
        if index:
            total = total + torch.log(0.3 + 0.7 / (1 + torch.exp(-x))).sum(1)
            x = 0.3 * x + 0.7 * torch.log(1 + torch.exp(x))
        total = total + torch.log(torch.abs(torch.det(weight)))
        x = x @ weight.T + bias
    return total - 0.5 * (x**2).sum(1) - 0.5 * x.shape[1] * math.log(2 * math.pi)


def shared_layers(*, triangular_factors: bool, dimension: int = 5) -> list[tuple[Tensor, Tensor]]:
    """One weight set: any matrices with an overall det < 0, or such that factor as L U with a positive diagonal."""
    generator = torch.Generator().manual_seed(5)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    layers = []
    for index in range(LINEAR_LAYERS):
        if triangular_factors:
            # |entries of L| < 1, or a pivoting factorisation would exchange rows.
            lower = torch.eye(dimension, dtype=torch.float64) + (0.2 * noise(dimension, dimension)).tanh().tril(-1)
            weight = lower @ (0.4 * noise(dimension, dimension).triu(1) + torch.diag(0.5 + noise(dimension).abs()))
        else:
            weight = noise(dimension, dimension)
            weight = weight if (torch.det(weight) < 0) == (index == 0) else weight[[1, 0, *range(2, dimension)]]
        layers.append((weight, noise(dimension)))
    return layers


def test_every_competitor_of_this_repository_is_there() -> None:
    # A library that is missing would take its methods out of all the tests below, silently.
    assert registry().broken_modules == {}
    available = {m.name for m in METHODS if why_unavailable(m) is None}
    assert available >= {
        *("ebflow-ml", "ebflow-sml", "ebflow-ssm", "ebflow-tssm", "ebflow-dsm", "ebflow-fdssm", "gaussian"),
        *(f"nflows-{name}-ml" for name in ("dense", "lu", "qr", "svd", "nsf", "maf")),
        *(f"normflows-{name}-ml" for name in ("dense", "lu", "luperm", "nsf", "residual")),
        *(f"zuko-{name}-ml" for name in ("dense", "lu", "nsf", "maf")),
        *("relative-gradient-ml", "self-normalizing-ml", "free-form-ml"),
    }


def test_whoever_trains_a_dense_or_lu_stack_shares_weights() -> None:
    claiming = [m for m in METHODS if m.iterative and m.linear in ("dense", "lu", "luperm")]
    assert claiming == SHARING


@every_architecture
@in_both_dtypes
def test_shapes_and_dtype(method: Method, architecture: str, dtype: str) -> None:
    problem = small(architecture, dtype=dtype)
    model = randomised(method, problem)
    x = draw(problem)
    z, log_det = model.to_latent(x)
    assert z.flatten(1).shape == (7, problem.dimension)
    assert log_det.shape == (7,)
    assert {z.dtype, log_det.dtype} == {x.dtype}
    assert {p.dtype for p in model.module.parameters()} == {x.dtype}
    if method.samples:
        assert model.to_data(z).shape == x.shape
        assert model.to_data(z).dtype == x.dtype


@every_exact
@at_small_dimensions
def test_log_det_is_that_of_the_jacobian(method: Method, dimension: int) -> None:
    problem = small(shape=(dimension,))
    x = draw(problem)
    signs = set()
    for seed in range(8):
        model = randomised(method, problem, seed, scale=None if method.linear == "none" else 1.0)
        truth = torch.linalg.slogdet(jacobians(model, x))
        torch.testing.assert_close(model.to_latent(x)[1], truth.logabsdet, rtol=1e-10, atol=1e-10)
        signs |= set(truth.sign.tolist())
    if method.linear == "dense":
        # Any matrix means that both signs occur: a layer that loses them is not dense.
        assert signs == {-1.0, 1.0}


@every_exact_architecture
def test_log_det_of_every_architecture(method: Method, architecture: str) -> None:
    problem = small(architecture, residual=True)
    model, x = randomised(method, problem), draw(problem, 2)
    truth = torch.linalg.slogdet(jacobians(model, x)).logabsdet
    torch.testing.assert_close(model.to_latent(x)[1], truth, rtol=1e-9, atol=1e-9)


@every_sampling_architecture
def test_round_trip(method: Method, architecture: str) -> None:
    problem = small(architecture)
    model, x = randomised(method, problem), draw(problem)
    z, _ = model.to_latent(x)
    torch.testing.assert_close(model.to_data(z), x, rtol=1e-7, atol=1e-7)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(3), dtype=z.dtype)
    torch.testing.assert_close(model.to_latent(model.to_data(noise))[0], noise, rtol=1e-7, atol=1e-7)


@every_sampling
def test_round_trip_far_out(method: Method) -> None:
    problem = small()
    model = randomised(method, problem)
    x = 5 * draw(problem, 50)
    assert x.abs().max() > 10
    torch.testing.assert_close(model.to_data(model.to_latent(x)[0]), x, rtol=1e-6, atol=1e-6)


@every_exact
def test_one_component_works_or_is_refused(method: Method) -> None:
    problem = small(shape=(1,))
    try:
        model = randomised(method, problem)
    except InputError as error:
        assert "at least two components; use --dims 2 or more" in str(error)  # noqa: PT017
        return
    x = draw(problem)
    truth = torch.linalg.slogdet(jacobians(model, x)).logabsdet
    torch.testing.assert_close(model.to_latent(x)[1], truth, rtol=1e-9, atol=1e-9)


@every_estimating
def test_estimates_have_no_bias(method: Method) -> None:
    problem, calls, rows = small(shape=(3,), layers=1), 200, 50
    model, x = randomised(method, problem), draw(problem, 4)
    truth = torch.linalg.slogdet(jacobians(model, x)).logabsdet
    with torch.no_grad():
        estimates = torch.stack([model.to_latent(x.repeat(rows, 1))[1].view(rows, 4) for _ in range(calls)])
    assert bool((estimates.std(1) > 1e-3).all())
    of_calls = estimates.mean(1)
    assert bool(((of_calls.mean(0) - truth).abs() < 5 * of_calls.std(0) / math.sqrt(calls)).all())


@every_estimating
def test_gradients_of_estimates_have_no_bias(method: Method) -> None:
    problem = small(shape=(3,), layers=1)
    model, x = randomised(method, problem), draw(problem, 4)
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


@every_trained
def test_nothing_but_init_batch_starts_from_data(method: Method) -> None:
    for architecture in method.architectures:
        problem = small(architecture)
        model, x = build(method, problem), 3 + 2 * draw(problem)
        before = [parameter.detach().clone() for parameter in model.module.parameters()]
        for mode in (True, False):
            model.module.train(mode)
            model.training_loss(x, torch.Generator().manual_seed(0))
            z, _ = model.to_latent(x)
            if method.samples:
                model.to_data(z)
        assert all(torch.equal(*pair) for pair in zip(before, model.module.parameters(), strict=True))


@pytest.mark.parametrize("name", ["nflows-nsf-ml", "nflows-maf-ml", "normflows-nsf-ml", "zuko-nsf-ml", "zuko-maf-ml"])
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


@every_sampling
def test_samples_follow_the_generator_alone(method: Method) -> None:
    problem = small()
    model = randomised(method, problem)
    before = torch.random.get_rng_state()
    first, again, other = (sample(model, problem.shape, 9, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5))
    assert first.shape == (9, 5)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


@every_sampling
def test_samples_are_inverted_latents(method: Method) -> None:
    problem = small()
    model = randomised(method, problem)
    drawn = sample(model, problem.shape, 9, torch.Generator().manual_seed(4))
    latent = torch.randn(9, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torch.testing.assert_close(model.to_latent(drawn)[0], latent, rtol=1e-7, atol=1e-7)


@every_method
def test_building_follows_the_seed_and_leaves_the_global_one(method: Method) -> None:
    def numbers(seed: int) -> dict[str, list[float]]:
        state = build(method, small(method.architectures[-1], seed=seed)).module.state_dict()
        return {name: value.tolist() for name, value in state.items()}

    before = torch.random.get_rng_state()
    first = numbers(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(1)  # elsewhere in the global stream, the same model all the same
    assert numbers(3) == first
    if "toy" in method.architectures and method.iterative:
        assert numbers(4) != first


@every_trained
def test_every_parameter_is_trained(method: Method) -> None:
    for architecture in method.architectures:
        problem = small(architecture, noise=0.5)
        model = randomised(method, problem)
        loss = model.training_loss(draw(problem), torch.Generator().manual_seed(0))
        assert loss.shape == ()
        assert torch.isfinite(loss)
        loss.backward()
        for name, parameter in model.module.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert bool(parameter.grad.isfinite().all()), name
                assert bool((parameter.grad != 0).any()), name


@every_trained
def test_all_noise_comes_from_the_generator(method: Method) -> None:
    problem = small(noise=0.5)
    model, x = randomised(method, problem), draw(problem)
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    first, again, other = (model.training_loss(x, torch.Generator().manual_seed(seed)).detach() for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (method.objective in WITHOUT_NOISE and method.exact_log_prob)
    assert torch.equal(model.to_latent(x)[1], model.to_latent(x)[1]) == method.exact_log_prob
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numpy_before


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.objective == "ml" and m.exact_log_prob], ids=lambda m: m.name
)
def test_maximum_likelihood_minimises_the_nll(method: Method) -> None:
    # Up to a constant: whether the base's log(2 pi) D / 2 is counted is the library's choice.
    problem = small()
    model, x = randomised(method, problem), draw(problem)
    parameters = [p for p in model.module.parameters() if p.requires_grad]
    ours = torch.autograd.grad(-log_prob(model, x).mean(), parameters)
    theirs = torch.autograd.grad(model.training_loss(x), parameters)
    torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=1e-10)


@every_exact_architecture
def test_samples_of_a_batch_do_not_meet(method: Method, architecture: str) -> None:
    problem = small(architecture)
    model, x = randomised(method, problem), draw(problem)
    together = log_prob(model, x)
    apart = torch.cat([log_prob(model, x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-10)


@every_trained
def test_inputs_stay_as_they_are(method: Method) -> None:
    problem = small()
    model, x = randomised(method, problem), draw(problem)
    before = x.clone()
    model.init_batch(x)
    model.training_loss(x, torch.Generator().manual_seed(0)).backward()
    z, _ = model.to_latent(x)
    latent = z.detach().clone()
    if method.samples:
        model.to_data(z)
    assert torch.equal(x, before)
    assert torch.equal(z, latent)
    assert not x.requires_grad
    assert x.grad is None


@every_exact
@pytest.mark.parametrize("recording", [False, True], ids=["no_grad", "grad"])
def test_log_prob_follows_every_edit(method: Method, recording: bool) -> None:
    problem = small()
    model, other = randomised(method, problem, seed=0), randomised(method, problem, seed=1)
    x = draw(problem)
    with torch.set_grad_enabled(recording):
        first, aim = log_prob(model, x), log_prob(other, x)
        assert not torch.allclose(first, aim)
        model.module.load_state_dict(other.module.state_dict())
        torch.testing.assert_close(log_prob(model, x), aim)
        assert torch.equal(log_prob(model, x), log_prob(model, x))
        for parameter in model.module.parameters():
            parameter.data.mul_(1.5)
        truth = torch.linalg.slogdet(jacobians(model, x)).logabsdet
        torch.testing.assert_close(model.to_latent(x)[1], truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", [m for m in METHODS if m.iterative and m.exact_log_prob], ids=lambda m: m.name)
def test_log_prob_follows_training(method: Method) -> None:
    problem = small(noise=0.5)
    model, x = build(method, problem), draw(problem, 50)
    model.init_batch(x)
    rate = 0.001 if method.linear == "none" else 0.05  # networks move their outputs by far more than a matrix does
    trainer = Trainer(model, TrainingConfig(learning_rate=rate), torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = log_prob(model, x[:2])
    for _ in range(3):
        trainer.step(x)
    with torch.no_grad():
        after = log_prob(model, x[:2])
        log_det = model.to_latent(x[:2])[1]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobians(model, x[:2])).logabsdet)


@every_exact
def test_score_is_the_gradient(method: Method) -> None:
    problem = small()
    model, x = randomised(method, problem), draw(problem)
    step = 1e-6
    sides = [log_prob(model, x + sign * step * torch.eye(5, dtype=x.dtype)[0]) for sign in (1, -1)]
    torch.testing.assert_close(score(model, x)[:, 0], (sides[0] - sides[1]) / (2 * step), rtol=1e-6, atol=1e-6)


@every_exact
def test_images_are_vectors_to_fc(method: Method) -> None:
    image, vector = small(shape=(1, 2, 4)), small(shape=(8,))
    on_images, on_vectors = randomised(method, image), randomised(method, vector)
    x = draw(image)
    torch.testing.assert_close(log_prob(on_images, x), log_prob(on_vectors, x.flatten(1)))
    if method.samples:
        assert on_images.to_data(on_images.to_latent(x)[0]).shape == x.shape


@every_meta_architecture
def test_shapes_are_right_without_any_numbers(method: Method, architecture: str) -> None:
    problem = small(architecture, device="meta")
    model = build(method, problem)
    x = torch.empty(7, *problem.shape, dtype=torch.float64, device="meta")
    z, log_det = model.to_latent(x)
    assert {z.device.type, log_det.device.type} == {"meta"}
    assert log_det.shape == (7,)
    if method.samples:
        assert model.to_data(z).shape == x.shape
    if method.iterative:
        loss = model.training_loss(x)
        loss.backward()
        assert loss.shape == ()


@pytest.mark.parametrize("method", [m for m in SHARING if m.linear == "dense"], ids=lambda m: m.name)
def test_equal_weights_are_equal_densities(method: Method) -> None:
    layers = shared_layers(triangular_factors=False)
    assert math.prod(torch.det(weight).sign().item() for weight, _ in layers) < 0
    problem = small()
    model, x = build(method, problem), draw(problem, 20)
    model.load_linear_layers(layers)
    torch.testing.assert_close(log_prob(model, x), formula(layers, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", SHARING, ids=lambda m: m.name)
def test_equal_triangular_weights_are_equal_densities(method: Method) -> None:
    layers = shared_layers(triangular_factors=True)
    problem = small()
    model, x = randomised(method, problem), draw(problem, 20)
    model.load_linear_layers(layers)
    torch.testing.assert_close(log_prob(model, x), formula(layers, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["nflows-lu-ml", "normflows-luperm-ml"])
@pytest.mark.parametrize("flaw", ["row exchange", "negative diagonal"])
def test_weights_beyond_a_triangular_layer_are_refused(name: str, flaw: str) -> None:
    layers = shared_layers(triangular_factors=True)
    weight, bias = layers[1]
    layers[1] = (weight.flip(0), bias) if flaw == "row exchange" else (-weight, bias)
    model = build(registry().find(name), small())
    with pytest.raises(ValueError, match="factor without row exchanges, with a positive diagonal"):
        model.load_linear_layers(layers)


def test_row_exchanges_are_refused_where_signs_are_free() -> None:
    layers = shared_layers(triangular_factors=True)
    problem = small()
    model, x = build(registry().find("zuko-lu-ml"), problem), draw(problem)
    weight, bias = layers[1]
    layers[1] = (-weight, bias)
    model.load_linear_layers(layers)
    torch.testing.assert_close(log_prob(model, x), formula(layers, x), rtol=1e-10, atol=1e-10)
    layers[1] = (weight.flip(0), bias)
    with pytest.raises(ValueError, match="factor without row exchanges"):
        model.load_linear_layers(layers)


def test_an_lu_method_with_row_exchanges_takes_any_matrix() -> None:
    layers = shared_layers(triangular_factors=False)
    problem = small()
    model, x = build(registry().find("normflows-lu-ml"), problem), draw(problem)
    model.load_linear_layers(layers)
    torch.testing.assert_close(log_prob(model, x), formula(layers, x), rtol=1e-10, atol=1e-10)


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
    x[:, 2] = 2 * x[:, 0]
    with pytest.raises(ValueError, match="the covariance of 100 samples in 3 dimensions is singular: use more data"):
        gaussian(3).fit([x])


def test_the_gaussian_has_no_training_step() -> None:
    with pytest.raises(NotImplementedError, match="closed form"):
        gaussian(3).training_loss(torch.zeros(1, 3))


def test_raw_pixels_go_in_front() -> None:
    problem = small(shape=(1, 2, 2), raw_pixel_alpha=0.5, levels=17)
    model = build(registry().find("ebflow-ml"), problem)
    pixels = 17 * torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = torch.linalg.slogdet(jacobians(model, pixels)).logabsdet
    torch.testing.assert_close(model.to_latent(pixels)[1], truth, rtol=1e-9, atol=1e-9)


@every_method
def test_what_is_declared(method: Method) -> None:
    assert method.summary
    assert method.iterative != isinstance(build(method, small()), ClosedForm)
    # Built by keyword of the one argument; the library is imported inside.
    assert len(inspect.signature(method.build).parameters) == 1


OWN = [m for m in METHODS if "whitened" in m.starts]


@pytest.mark.parametrize("start", ["whitened", "whitened-start"])
@pytest.mark.parametrize("method", OWN, ids=lambda m: m.name)
def test_a_start_from_data_is_calibrated_and_of_the_published_size(method: Method, start: str) -> None:
    problem = small(start=start)
    model = build(method, problem)
    x = draw(problem, 200) @ torch.randn(5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    model.init_batch(x)
    assert isinstance(model, Calibrated)
    assert count_parameters(model) == count_parameters(build(method, problem.replace(start="published")))
    z, _ = model.to_latent(x)
    torch.testing.assert_close(torch.cov(z.mT, correction=0), torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-8)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.mul_(1.3)
    off = -log_prob(model, x).mean()
    model.calibrate(x)
    assert -log_prob(model, x).mean() < off


@pytest.mark.parametrize("name", ["ebflow-dsm", "ebflow-ssm"])
def test_the_space_of_the_match_matters_to_score_matching_alone(name: str) -> None:
    def gradient(method: str, start: str) -> Tensor:
        problem = small(start=start)
        model = build(registry().find(method), problem)
        x = draw(problem, 200) @ torch.diag(torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64))
        model.init_batch(x)
        model.training_loss(x, torch.Generator().manual_seed(0)).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.module.parameters()])

    assert not torch.allclose(gradient(name, "whitened"), gradient(name, "whitened-start"))
    torch.testing.assert_close(gradient("ebflow-ml", "whitened"), gradient("ebflow-ml", "whitened-start"))


def test_starts_that_a_method_has_not_are_refused() -> None:
    with pytest.raises(InputError, match="gaussian has no whitened start, only published"):
        build(registry().find("gaussian"), small(start="whitened"))
    for changes in ({"architecture": "cnn"}, {"architecture": "toy"}):
        with pytest.raises(InputError, match="only fc starts from whitened data"):
            build(registry().find("ebflow-dsm"), small(**changes, start="whitened"))


def test_a_frozen_actnorm_is_not_trained() -> None:
    for architecture in ("toy", "glow"):
        method = registry().find("ebflow-ml")
        model = build(method, small(architecture, frozen_actnorm=True))
        free = {name.rsplit(".", 1)[-1] for name, p in model.module.named_parameters() if not p.requires_grad}
        assert {"shift", "log_scale"} >= free
        assert count_parameters(model) < count_parameters(build(method, small(architecture)))


def test_the_low_energy_term_is_in_score_matching_losses_alone() -> None:
    for name, differs in [("ebflow-dsm", True), ("ebflow-ssm", True), ("ebflow-fdssm", True), ("ebflow-ml", False)]:
        losses = []
        for weight in (0.0, 0.5):
            problem = small(energy_weight=weight)
            model = build(registry().find(name), problem)
            losses.append(model.training_loss(draw(problem), torch.Generator().manual_seed(0)).item())
        assert (losses[0] != losses[1]) == differs
