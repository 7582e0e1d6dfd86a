"""One NLL for all: in the data's own space, all log-determinants counted, wherever the preprocessing happens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness import datasets
from harness.cells.likelihood import LikelihoodCell, fit_and_score
from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import GaussianNoise, Identity
from harness.errors import InputError
from harness.methods import Method, Model, Problem
from harness.methods.density import build
from harness.methods.registry import registry
from harness.methods.seeds import generator, stream
from harness.paper.plans import Context, configured_cell
from harness.training import scoring as likelihood
from harness.training.configuration import TrainingConfig
from harness.training.loop import Divergence
from harness.training.scoring import nll, validation_loss, without_map

DIGITS = Problem(shape=(1, 8, 8), layers=1, dtype="float64")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return datasets.load("digits")


class KnownNormal:
    """The exact density of N(0, I) data to which noise of a given scale was added."""

    def __init__(self, noise: float) -> None:
        self.variance = 1 + noise**2

    def log_prob(self, x: Tensor) -> Tensor:
        return -0.5 * (x.square() / self.variance + math.log(2 * math.pi * self.variance)).sum(1)

    def score(self, x: Tensor) -> Tensor:
        return -x / self.variance


@pytest.fixture
def normal() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (200, 50, 40_000)]
    return Dataset("normal", (2,), *parts, GaussianNoise(0.5), KnownNormal(0.5))


def test_a_closed_form_and_a_start_see_several_augmented_copies(digits: Dataset) -> None:
    seen = []

    class Counted(registry().find("gaussian").build):
        def fit(self, batches: Any) -> None:
            seen.append(torch.cat(list(batches)))
            super().fit([seen[-1]])

    augmented = replace(digits, augment=True)
    for data in (digits, augmented):
        method = replace(registry().find("gaussian"), build=Counted)
        fit_and_score(method, DIGITS, data, data, TrainingConfig(), 1)
    assert [len(x) for x in seen] == [len(digits.train), 6 * len(digits.train)]
    assert not torch.equal(seen[1][: len(digits.train)], seen[0])
    starts = []

    class Started(registry().find("ebflow-ml").build(DIGITS).__class__):
        def init_batch(self, x: Tensor) -> None:
            starts.append(len(x))

    config = TrainingConfig(epochs=1, evaluate_every=1, start_samples=3000)
    method = replace(registry().find("ebflow-ml"), build=lambda problem: Started(*_network_and_objective(problem)))
    for data in (digits, augmented):
        fit_and_score(method, DIGITS, data, data, config, 1)
    assert starts == [len(digits.train), 3000]


def _network_and_objective(problem: Problem) -> tuple[Any, Any]:
    from ebflow import ML, architectures

    return architectures.fc(problem.shape, problem.layers), ML()


def fit(method: str | Method, data: Dataset, problem: Problem, **changes: Any) -> likelihood.Likelihood:
    method = registry().find(method) if isinstance(method, str) else method
    config = TrainingConfig(epochs=1, evaluate_every=1)
    return fit_and_score(method, problem, data, **{"batches": data, "config": config, "draws": 2, **changes})


def logits(pixels: Tensor) -> Tensor:
    """The paper's preprocessing of 17 levels, written out."""
    u = (pixels / 17 + 1e-6) * (1 - 2e-6)
    return (torch.log(u) - torch.log(1 - u)) / 0.5


def noised(raw: Tensor, seed: int) -> Tensor:
    return raw + torch.rand(raw.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_nll_of_the_gaussian_is_computed_by_hand(digits: Dataset) -> None:
    outcome = fit("gaussian", digits, DIGITS)
    # The harness draws the noise of 1,200 training images a thousand at a time from the problem's seed.
    generator = torch.Generator().manual_seed(stream(0, "training"))
    parts = [
        part + torch.rand(part.shape, generator=generator, dtype=torch.float64) for part in digits.train.split(1000)
    ]
    x = logits(torch.cat(parts)).flatten(1)
    normal = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov(correction=0))
    for draw, value in enumerate(outcome.test_nll):
        pixels = noised(digits.test, stream(draw, "test")).requires_grad_()
        y = logits(pixels)
        (slopes,) = torch.autograd.grad(y.sum(), pixels)
        by_hand = -(normal.log_prob(y.flatten(1)) + slopes.log().flatten(1).sum(1)).mean()
        assert value == pytest.approx(by_hand.item(), rel=1e-9)
    assert outcome.parameters == 64 * 64 + 64
    assert outcome.report.iterations == 0
    assert outcome.report.ended == "closed form"
    assert outcome.divergences == {}


def test_bits_of_a_uniform_model_are_the_number_of_bits(digits: Dataset) -> None:
    # A model of the logits under which pixels are uniform on [0, 17): its NLL is D log 17, whatever the preprocessing.
    class Uniform(Model):
        def __init__(self, problem: Problem) -> None:
            self.module = nn.Linear(1, 1)

        def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
            return self.module.weight.sum()

        def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
            normal = torch.distributions.Normal(0.0, 1.0)
            u = (0.5 * x).sigmoid() / (1 - 2e-6) - 1e-6
            z = normal.icdf(u)
            slope = 0.5 * (0.5 * x).sigmoid() * (-0.5 * x).sigmoid() / (1 - 2e-6)
            return z, (slope.log() - normal.log_prob(z)).flatten(1).sum(1)

        def to_data(self, z: Tensor) -> Tensor:
            raise NotImplementedError

    value = nll(Uniform(DIGITS), digits.test, digits, DIGITS, seed=0)
    assert value == pytest.approx(64 * math.log(17), rel=1e-9)


def test_the_place_of_the_preprocessing_changes_no_nll(digits: Dataset) -> None:
    method = registry().find("ebflow-ml")
    outside = DIGITS.replace(layers=2)
    moved, inside = without_map(digits, outside)
    assert (inside.raw_pixel_alpha, inside.levels) == (0.5, 17)
    models = [build(method, problem) for problem in (outside, inside)]
    generator = torch.Generator().manual_seed(3)
    layers = [
        (
            torch.eye(64, dtype=torch.float64) + 0.05 * torch.randn(64, 64, generator=generator, dtype=torch.float64),
            torch.randn(64, generator=generator, dtype=torch.float64),
        )
        for _ in range(2)
    ]
    for model in models:
        model.load_linear_layers(layers)
    with_map = nll(models[0], digits.test, digits, outside, seed=5)
    without = nll(models[1], digits.test, moved, inside, seed=5)
    assert without == pytest.approx(with_map, rel=1e-10)
    # Either sees other numbers: this is no comparison of a thing with itself.
    assert not torch.equal(moved.preprocessing(digits.test)[0], digits.preprocessing(digits.test)[0])


def test_only_images_can_do_without_map(normal: Dataset) -> None:
    with pytest.raises(InputError, match=r"^normal has no logit preprocessing to do without; use an image dataset$"):
        without_map(normal, Problem(shape=(2,)))


def test_every_draw_is_a_pass_with_fresh_noise(digits: Dataset) -> None:
    three = fit("gaussian", digits, DIGITS, draws=3).test_nll
    assert len(set(three)) == 3
    # The first draws of a longer list are the same ones.
    assert fit("gaussian", digits, DIGITS, draws=1).test_nll == three[:1]
    # Test noise does not depend on the training seed.
    model = build(registry().find("ebflow-ml"), DIGITS)
    values = {nll(model, digits.test, digits, DIGITS.replace(seed=seed), 11) for seed in (0, 1)}
    assert len(values) == 1
    with pytest.raises(InputError, match=r"draws must be at least 1, not 0"):
        fit("gaussian", digits, DIGITS, draws=0)


def test_nll_does_not_depend_on_how_many_rows_go_at_once(normal: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(shape=(2,), dtype="float64")
    data = replace(normal, preprocessing=Identity())
    model = build(registry().find("ebflow-ml"), problem)
    whole = nll(model, data.test, data, problem, 0)
    monkeypatch.setattr(likelihood, "SAMPLES_AT_ONCE", 300)
    assert nll(model, data.test, data, problem, 0) == pytest.approx(whole, rel=1e-12)


class Frozen(Model):
    """z = x / scale: the normal density N(0, scale^2 I), which training leaves as it is."""

    def __init__(self, scale: float) -> None:
        self.module = nn.Linear(1, 1)
        self.scale = scale
        self.seen: list[Tensor] = []

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.seen.append(x)
        return self.module.weight.square().sum()

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x / self.scale, torch.full((len(x),), -x[0].numel() * math.log(self.scale), dtype=x.dtype)

    def to_data(self, z: Tensor) -> Tensor:
        return z * self.scale


def test_divergences_from_a_known_density(normal: Dataset, fake_method: Callable[..., Method]) -> None:
    # KL(N(0, v I) | N(0, s^2 I)) in two dimensions is v / s^2 - 1 - log(v / s^2), v = 1.25; the Fisher divergence
    # is half the mean of |x|^2 (1 / v - 1 / s^2)^2.
    problem = Problem(shape=(2,), dtype="float64")
    outcome = fit(fake_method(build=lambda _: Frozen(2.0)), normal, problem)
    ratio = 1.25 / 4
    assert outcome.divergences["kl"].value == pytest.approx(ratio - 1 - math.log(ratio), abs=0.02)
    assert outcome.divergences["fisher"].value == pytest.approx(1.25 * (1 / 1.25 - 1 / 4) ** 2, rel=0.02)
    for estimate in outcome.divergences.values():  # every test point is one of n
        assert estimate.n == len(normal.test)
        assert estimate.low < estimate.value < estimate.high
    exact = fit(fake_method(build=lambda _: Frozen(math.sqrt(1.25))), normal, problem)
    assert exact.divergences["kl"].value == pytest.approx(0, abs=1e-12)
    assert exact.divergences["fisher"].value == pytest.approx(0, abs=1e-12)
    # The NLL of the right model is the entropy of the noised data.
    assert exact.test_nll[0] == pytest.approx(1 + math.log(2 * math.pi * 1.25), abs=0.02)


def test_noise_of_the_data_can_be_left_to_the_objective(normal: Dataset, fake_method: Callable[..., Method]) -> None:
    problem = Problem(shape=(2,), dtype="float64", batch=200)
    model = Frozen(2.0)
    clean = replace(normal, preprocessing=Identity())
    outcome = fit(fake_method(build=lambda _: model), normal, problem, batches=clean)
    assert torch.equal(model.seen[0].sort(0).values, normal.train.sort(0).values)
    # Scored on the noised data all the same.
    assert outcome.test_nll == fit(fake_method(build=lambda _: Frozen(2.0)), normal, problem).test_nll


def test_training_learns_and_its_kept_weights_score_the_same(digits: Dataset) -> None:
    problem = DIGITS.replace(layers=2)
    config = TrainingConfig(epochs=6, evaluate_every=2, learning_rate=1e-3)
    start = nll(build(registry().find("ebflow-ml"), problem), digits.test, digits, problem, stream(0, "test"))
    kept: list[Any] = []
    outcome = fit("ebflow-ml", digits, problem, config=config, keep_weights=kept.append)
    assert outcome.test_nll[0] < start - 10
    assert outcome.report.iterations == 6 * 12
    model = build(registry().find("ebflow-ml"), problem.replace(seed=9))
    model.module.load_state_dict(kept[-1])
    assert nll(model, digits.test, digits, problem, stream(0, "test")) == outcome.test_nll[0]
    assert nll(model, digits.validation, digits, problem, stream(0, "validation")) == outcome.report.best_validation


def test_a_test_nll_that_is_not_finite_is_a_divergence(normal: Dataset, fake_method: Callable[..., Method]) -> None:
    bad = replace(normal, test=torch.full((3, 2), 1e200, dtype=torch.float64))  # of which the square is infinite
    with pytest.raises(Divergence, match=r"^the test NLL is not finite$"):
        fit(fake_method(build=lambda _: Frozen(1.0)), bad, Problem(shape=(2,), dtype="float64"))


def test_closed_form_on_singular_data_says_so(normal: Dataset) -> None:
    flat = replace(normal, train=normal.train * torch.tensor([1.0, 0.0]), preprocessing=Identity())
    with pytest.raises(InputError, match=r"^normal: columns with one value in all rows, and so no density: 1 \(-?0\)"):
        fit("gaussian", flat, Problem(shape=(2,), dtype="float64"))


def test_the_own_loss_of_score_matching_is_watched_under_the_same_noise(normal: Dataset) -> None:
    problem = Problem(architecture="toy", shape=(2,), layers=2, dtype="float64", noise=0.5)
    clean = replace(normal, preprocessing=Identity())
    model = build(registry().find("ebflow-dsm"), problem)
    by_hand = model.training_loss(normal.validation, generator(0, "validation")).item()
    assert validation_loss(model, clean, problem) == validation_loss(model, clean, problem) == pytest.approx(by_hand)
    assert validation_loss(model, normal, problem) != pytest.approx(by_hand)
    assert all(parameter.grad is None for parameter in model.module.parameters())
    config = TrainingConfig(epochs=20, evaluate_every=10, learning_rate=3e-3)
    for name, batches, watched in [("ebflow-dsm", clean, True), ("ebflow-ml", normal, False)]:
        curve = fit(name, normal, problem, batches=batches, config=config).report.curve
        losses = [point.validation_loss for point in curve if point.validation_loss is not None]
        assert len(losses) == (len(curve) if watched else 0)
        assert losses == sorted(losses, reverse=True)


def test_losses_of_many_rows_are_a_mean_over_rows(normal: Dataset) -> None:
    # Maximum likelihood has no noise, so the split of the rows must not matter.
    problem = Problem(architecture="toy", shape=(2,), layers=2, dtype="float64")
    model = build(registry().find("ebflow-ml"), problem)
    clean = replace(normal, preprocessing=Identity())
    whole = validation_loss(model, clean, problem.replace(batch=1000))
    assert validation_loss(model, clean, problem.replace(batch=17)) == pytest.approx(whole)


def test_without_noise_the_interval_is_over_samples(normal: Dataset) -> None:
    still = replace(normal, preprocessing=Identity(), density=None)
    problem = Problem(shape=(2,), dtype="float64")
    model = build(registry().find("ebflow-ml"), problem)
    values = likelihood.nll_of_test_set(model, still, problem, 10)
    assert len(values) == len(still.test)
    assert sum(values) / len(values) == pytest.approx(nll(model, still.test, still, problem, 3), abs=1e-12)
    assert len(likelihood.nll_of_test_set(model, normal, problem, 3)) == 3


def test_a_step_of_a_training_has_a_peak_of_memory(digits: Dataset) -> None:
    config = TrainingConfig(epochs=1, evaluate_every=1)
    outcome = fit_and_score(registry().find("ebflow-ml"), DIGITS, digits, digits, config, 1)
    assert outcome.step_bytes is not None
    assert outcome.step_bytes > 4 * 8 * outcome.parameters  # weights, gradients, optimiser, average
    closed = fit_and_score(registry().find("gaussian"), DIGITS, digits, digits, config, 1)
    assert closed.step_bytes is None


@pytest.mark.parametrize(("stated_noise", "marked"), [(0.5, False), (2.0, True)])
def test_more_likelihood_than_the_exact_density_has_marks_the_rows(
    stated_noise: float, marked: bool, normal: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LikelihoodCell, "load", lambda *_: replace(normal, density=KnownNormal(stated_noise)))
    cell = configured_cell("train", Context("custom"), registry().find("gaussian"), "sine", "toy", draws=1)
    rows = cell.train(lambda done, total, note: None, lambda arrays: None, None)
    (row,) = [row for row in rows if row.metric == "nll"]
    assert (row.reason or "").startswith("better than the truth by") == marked
