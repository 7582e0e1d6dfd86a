"""The one step and the one loop, against torch code written by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import Identity
from harness.errors import InputError
from harness.methods import Method, Model, Problem
from harness.methods.density import build
from harness.methods.registry import registry
from harness.timing.interleaved import trainer_on_noise
from harness.training import loop as training
from harness.training.configuration import TrainingConfig
from harness.training.loop import Divergence, Training, TrainingReport
from harness.training.state import CurvePoint, TrainingState
from harness.training.step import Trainer

PROBLEM = Problem(shape=(3,), batch=10, dtype="float64", seed=4)


class Recorded(Model):
    """Pulls one weight towards the batch mean, and keeps what it was given; its losses can be scripted."""

    def __init__(self, losses: dict[int, float] | None = None) -> None:
        self.module = nn.Module()
        self.module.weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.losses = losses or {}
        self.steps = count(1)
        self.batches: list[Tensor] = []
        self.modes: list[bool] = []

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.batches.append(x)
        self.modes.append(self.module.training)
        loss = (self.module.weight - x.mean(0)).square().sum()
        return loss * self.losses.get(next(self.steps), 1.0)

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x - self.module.weight, x.new_zeros(len(x))

    def to_data(self, z: Tensor) -> Tensor:
        return z + self.module.weight


def train(*arguments: Any, **options: Any) -> TrainingReport:
    return Training(*arguments, **options).run()


@pytest.fixture
def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    train, validation, test = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (35, 20, 20))
    return Dataset("noise", (3,), train, validation, test, Identity())


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"epochs": 4, "evaluate_every": 1, "learning_rate": 0.1, "ema_decay": None, **changes})


def weight(model: Model) -> Tensor:
    return model.module.weight.detach().clone()


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_steps_are_torch_s(optimizer: str, clip_norm: float | None) -> None:
    recipe = TrainingConfig(
        optimizer=optimizer, learning_rate=0.03, weight_decay=0.01, clip_norm=clip_norm, ema_decay=0.9
    )
    problem = PROBLEM.replace(noise=0.5)
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    method = registry().find("ebflow-dsm")
    model, by_hand = build(method, problem), build(method, problem)
    trainer = Trainer(model, recipe, torch.Generator().manual_seed(2))
    losses = [trainer.step(x) for _ in range(5)]

    parameters = list(by_hand.module.parameters())
    kind = {"rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam}[optimizer]
    torch_optimizer = kind(parameters, lr=0.03, weight_decay=0.01)
    generator = torch.Generator().manual_seed(2)
    averages = [p.detach().clone() for p in parameters]
    norms = []
    for step in range(1, 6):
        loss = by_hand.training_loss(x, generator)
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters))
        norms.append(norm)
        if clip_norm is not None and norm > clip_norm:
            for parameter in parameters:
                parameter.grad *= clip_norm / (norm + 1e-6)  # torch's guard
        torch_optimizer.step()
        decay = min(0.9, (1 + step) / (10 + step))
        averages = [decay * a + (1 - decay) * p.detach() for a, p in zip(averages, parameters, strict=True)]
        torch.testing.assert_close(losses[step - 1], loss.detach())
        assert not losses[step - 1].requires_grad

    assert max(norms) > 0.5
    for ours, theirs in zip(model.module.parameters(), parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    with trainer.evaluated_weights():
        for ours, average in zip(model.module.parameters(), averages, strict=True):
            torch.testing.assert_close(ours.detach(), average, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("clip_norm", [None, 0.5, 1e6])
def test_an_unclipped_gradient_is_that_of_the_loss(clip_norm: float | None) -> None:
    def gradient(clip: float | None) -> Tensor:
        trainer = Trainer(Recorded(), config(clip_norm=clip), torch.Generator())
        trainer.step(torch.ones(10, 3, dtype=torch.float64))
        trainer.unclip()
        return trainer.model.module.weight.grad

    torch.testing.assert_close(gradient(clip_norm), gradient(None), rtol=1e-5, atol=0)


def test_what_a_model_tells_is_a_part_of_its_curve(dataset: Dataset) -> None:
    class Telling(Recorded):
        def observations(self) -> dict[str, float]:
            return {"refreshes": float(len(self.batches)), "odd": float("nan")}

    curve = train(Telling(), PROBLEM, dataset, config(epochs=2), lambda: 1.0).curve
    assert [set(point.observations) for point in curve] == [{"refreshes", "odd"}] * 2
    assert [point.observations["refreshes"] for point in curve] == [4, 8]  # four batches an epoch


def test_gradients_do_not_pile_up() -> None:
    model = Recorded()
    trainer = Trainer(model, config(optimizer="adam"), torch.Generator())
    x = torch.ones(10, 3, dtype=torch.float64)
    trainer.step(x)
    before = weight(model)
    trainer.step(x)
    torch.testing.assert_close(model.module.weight.grad, 2 * (before - 1))


def test_after_step_follows_the_optimiser_and_precedes_the_average() -> None:
    class Projected(Recorded):
        def after_step(self) -> None:
            with torch.no_grad():
                self.module.weight.fill_(5.0)

    model = Projected()
    trainer = Trainer(model, config(ema_decay=0.5), torch.Generator())
    trainer.step(torch.ones(10, 3, dtype=torch.float64))
    assert weight(model).tolist() == [5.0] * 3
    decay = 2 / 11
    with trainer.evaluated_weights():
        torch.testing.assert_close(weight(model), torch.full((3,), (1 - decay) * 5.0, dtype=torch.float64))


@pytest.mark.parametrize("averaged", [False, True])
def test_evaluated_weights_come_back_out(averaged: bool) -> None:
    model = Recorded()
    trainer = Trainer(model, config(ema_decay=0.5 if averaged else None), torch.Generator())
    for _ in range(3):
        trainer.step(torch.ones(10, 3, dtype=torch.float64))
    live = weight(model)

    def fail_inside() -> None:
        with trainer.evaluated_weights():
            assert torch.equal(weight(model), live) != averaged
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_inside()
    assert torch.equal(weight(model), live)


def test_frozen_parameters_are_neither_trained_nor_counted(fake_method: Callable[..., Method]) -> None:
    model = build(fake_method(), PROBLEM)
    model.module.shift.requires_grad_(False)
    trainer = Trainer(model, config(weight_decay=0.1), torch.Generator().manual_seed(0))
    before = model.module.shift.clone()
    trainer.step(torch.ones(10, 3, dtype=torch.float64))
    assert torch.equal(model.module.shift, before)
    assert len(trainer.parameters) == 1


def test_every_epoch_sees_every_sample_once_in_a_new_order(dataset: Dataset) -> None:
    model = Recorded()
    report = train(model, PROBLEM, dataset, config(epochs=2), lambda: 1.0)
    assert [len(batch) for batch in model.batches] == [10, 10, 10, 5] * 2
    assert report.iterations == 8
    first, second = torch.cat(model.batches[:4]), torch.cat(model.batches[4:])
    assert not torch.equal(first, second)
    for epoch in (first, second):
        assert torch.equal(epoch.sort(0).values, dataset.train.sort(0).values)
    assert all(model.modes)
    assert not model.module.training


def test_training_follows_the_seed(dataset: Dataset) -> None:
    def outcome(seed: int) -> list[float]:
        model = Recorded()
        train(model, PROBLEM.replace(seed=seed), dataset, config(), lambda: 1.0)
        return weight(model).tolist()

    assert outcome(1) == outcome(1)
    assert outcome(1) != outcome(2)


def test_the_model_starts_from_one_batch(dataset: Dataset, fake_method: Callable[..., Method]) -> None:
    model = build(fake_method(), PROBLEM)
    train(model, PROBLEM, dataset, config(epochs=1), lambda: 1.0)
    assert model.log[:2] == ["init 10", "after_step"]
    assert model.log.count("init 10") == 1


def test_the_rate_falls_every_epoch_and_then_stays(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Watched(Trainer):
        def step(self, x: Tensor) -> Tensor:
            rates.append(self.optimizer.learning_rate)
            return super().step(x)

    monkeypatch.setattr(training, "Trainer", Watched)
    train(Recorded(), PROBLEM, dataset, config(epochs=6, decay=0.5, decay_epochs=4, learning_rate=0.8), lambda: 1.0)
    # Four steps an epoch; constant from the fourth epoch on.
    assert rates[::4] == pytest.approx([0.8, 0.4, 0.2, 0.1, 0.1, 0.1])
    assert rates == pytest.approx([rate for rate in rates[::4] for _ in range(4)])


def test_the_cosine_falls_to_zero_over_all_epochs(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []

    class Watched(Trainer):
        def step(self, x: Tensor) -> Tensor:
            rates.append(self.optimizer.learning_rate)
            return super().step(x)

    monkeypatch.setattr(training, "Trainer", Watched)
    train(Recorded(), PROBLEM, dataset, config(epochs=2, schedule="cosine", learning_rate=0.8), lambda: 1.0)
    expected = [0.4 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]  # four steps an epoch
    assert rates == pytest.approx(expected)


class Refitted(Recorded):
    """One linear layer; says how it is read and set, so that it can be refitted."""

    def __init__(self) -> None:
        super().__init__()
        self.module.scale = nn.Parameter(torch.eye(3, dtype=torch.float64))

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.module.weight) @ self.module.scale.mT, x.new_zeros(len(x))

    def linear_layers(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.module.scale.detach(), -self.module.scale.detach() @ self.module.weight.detach())]

    @torch.no_grad()
    def load_linear_layers(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        ((scale, bias),) = layers
        self.module.scale.copy_(scale)
        self.module.weight.copy_(-torch.linalg.solve(scale, bias))


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_refit_is_what_is_validated_and_kept_and_training_goes_on_without_it(
    ema_decay: float | None, dataset: Dataset
) -> None:
    trained = []
    for calibrate in (False, True):
        model = Refitted()
        validated = []
        values = count(10, -1)

        def validate(model: Refitted = model, validated: list = validated, values: Any = values) -> float:
            validated.append(model.to_latent(dataset.train.double())[0].detach())
            return float(next(values))

        recipe = config(epochs=2, start_samples=len(dataset.train), calibrate=calibrate, ema_decay=ema_decay)
        train(model, PROBLEM, dataset, recipe, validate)
        validated.append(model.to_latent(dataset.train.double())[0].detach())  # the weights that were kept
        assert len(validated) == 4  # one at the start, one after each epoch
        for z in validated:
            white = torch.allclose(torch.cov(z.mT, correction=0), torch.eye(3, dtype=torch.float64))
            assert white == calibrate
            assert bool((z.mean(0).abs() < 1e-9).all()) == calibrate
        trained.append(torch.cat([batch.flatten() for batch in model.batches]))
        trained.append(model.module.weight.grad)
    assert torch.equal(trained[0], trained[2])
    assert torch.equal(trained[1], trained[3])  # the last step was taken from the same weights


def test_a_refit_takes_training_time(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(training.time, "perf_counter", lambda: float(next(clock)))
    seconds = []
    for calibrate in (False, True):
        recipe = config(
            epochs=2, start_samples=len(dataset.train), calibrate=calibrate, ema_decay=None, evaluate_every=1
        )
        report = train(Refitted(), PROBLEM, dataset, recipe, lambda: 1.0)
        seconds.append([point.seconds for point in report.curve] + [report.seconds])
    assert [b - a for a, b in zip(*seconds, strict=True)] == [1.0, 2.0, 3.0, 3.0]  # a second of this clock each


def test_a_model_whose_layers_cannot_be_set_is_not_refitted(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="last layer cannot be read and set"):
        train(Recorded(), PROBLEM, dataset, config(calibrate=True), lambda: 1.0)


class TestCurve:
    def test_a_point_a_validation(self, dataset: Dataset) -> None:
        values = iter([3.0, 1.0, 2.0])
        report = train(Recorded(), PROBLEM, dataset, config(epochs=3, evaluate_every=1), lambda: next(values))
        assert [point.validation_nll for point in report.curve] == [3.0, 1.0, 2.0]
        assert [point.iteration for point in report.curve] == [4, 8, 12]
        seconds = [point.seconds for point in report.curve]
        assert seconds == sorted(seconds)
        assert seconds[-1] == report.seconds
        assert report.best_validation == 1.0

    def test_a_start_from_the_data_is_its_first_point(self, dataset: Dataset) -> None:
        values = iter([1.0, 2.0])
        model = Recorded()
        start = weight(model).clone()
        report = train(
            model, PROBLEM, dataset, config(epochs=1, evaluate_every=1, start_samples=20), lambda: next(values)
        )
        assert (report.curve[0].iteration, report.curve[0].gradient_norm) == (0, None)
        assert report.curve[1].gradient_norm is not None
        # It was the better one, so it is what is kept.
        torch.testing.assert_close(weight(model), start)

    @pytest.mark.parametrize("clip", [None, 1e-3])
    def test_gradient_norm_is_that_of_the_last_batch_before_clipping(
        self, clip: float | None, dataset: Dataset
    ) -> None:
        model = Recorded()
        trainer = Trainer(model, config(clip_norm=clip, ema_decay=None), torch.Generator().manual_seed(0))
        x = torch.randn(5, 3, dtype=torch.float64)
        gradients = torch.autograd.grad(
            model.training_loss(x, torch.Generator().manual_seed(0)), list(model.module.parameters())
        )
        trainer.step(x)
        expected = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
        assert trainer.gradient_norm() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "best", "stale"),
    [
        ([], math.inf, 0),
        ([math.nan, math.inf], math.inf, 2),
        ([math.nan, 3.0], 3.0, 0),
        ([3.0, 2.0, 2.0, math.nan], 2.0, 2),
    ],
)
def test_the_best_validation_and_its_age_follow_from_the_curve(values: list[float], best: float, stale: int) -> None:
    state = TrainingState(Trainer(Recorded(), config(), torch.Generator()))
    state.curve = [CurvePoint(number, 0.0, value, None) for number, value in enumerate(values)]
    assert (state.best_validation, state.stale) == (best, stale)


@pytest.mark.parametrize("step", [1, 6, 50, 51, 63])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_names_the_step(step: int, value: float, dataset: Dataset) -> None:
    # A batch of one makes 35 steps an epoch; losses are looked at in lots.
    model = Recorded({step: value})
    with pytest.raises(Divergence, match=f"^the loss is not finite at step {step}$"):
        train(model, PROBLEM.replace(batch=1), dataset, config(), lambda: 1.0)


def test_divergence_names_the_first_of_many_steps_in_a_long_epoch(dataset: Dataset) -> None:
    long = Dataset("long", (3,), dataset.train.repeat(5, 1), dataset.validation, dataset.test, Identity())
    model = Recorded({step: float("nan") for step in range(73, 200)})
    with pytest.raises(Divergence, match=r"^the loss is not finite at step 73$"):
        train(model, PROBLEM.replace(batch=1), long, config(), lambda: 1.0)
    # A look every fifty steps, not at the end of the epoch.
    assert len(model.batches) == 100


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_step_that_is_skipped_leaves_no_trace(
    value: float, clip_norm: float | None, ema_decay: float | None, dataset: Dataset
) -> None:
    recipe = config(skip_not_finite=True, clip_norm=clip_norm, ema_decay=ema_decay, optimizer="adam", epochs=1)
    generator = torch.Generator()
    model, without = Recorded({2: value}), Recorded()
    skipping, other = (Trainer(each, recipe, generator, "float64") for each in (model, without))
    x = dataset.train.split(10)
    for batch in x[:3]:
        skipping.step(batch)
    for batch in (x[0], x[2]):
        other.step(batch)
    assert torch.equal(weight(model), weight(without))
    assert (skipping.steps, other.steps) == (2, 2)
    with skipping.evaluated_weights(), other.evaluated_weights():
        assert torch.equal(weight(model), weight(without))


def test_skipped_steps_are_counted_and_too_many_are_a_divergence(dataset: Dataset) -> None:
    report = train(
        Recorded({3: float("nan"), 40: float("inf")}),
        PROBLEM.replace(batch=1),
        dataset,
        config(skip_not_finite=True, epochs=2),
        lambda: 1.0,
    )
    assert (report.iterations, report.skipped) == (70, 2)
    assert train(Recorded(), PROBLEM, dataset, config(), lambda: 1.0).skipped is None
    long = Dataset("long", (3,), dataset.train.repeat(5, 1), dataset.validation, dataset.test, Identity())
    never = Recorded({step: float("nan") for step in range(51, 200)})
    with pytest.raises(Divergence, match=r"^no gradient was finite in the 50 steps up to step 100$"):
        train(never, PROBLEM.replace(batch=1), long, config(skip_not_finite=True), lambda: 1.0)
    # Four steps an epoch.
    from_the_third = Recorded({step: float("nan") for step in range(3, 200)})
    with pytest.raises(Divergence, match=r"^no gradient was finite in the 50 steps up to step 52$"):
        train(from_the_third, PROBLEM, dataset, config(skip_not_finite=True, epochs=40), lambda: 1.0)


def test_the_own_loss_on_the_curve_is_of_the_validated_weights(dataset: Dataset) -> None:
    model = Recorded()
    seen: list[tuple[Tensor, Tensor]] = []
    validated: list[Tensor] = []

    def validate() -> float:
        validated.append(weight(model))
        return 1.0

    def own_loss() -> float:
        seen.append((weight(model), validated[-1]))
        return float(len(seen))

    report = train(model, PROBLEM, dataset, config(ema_decay=0.9), validate, own_loss=own_loss)
    assert [point.validation_loss for point in report.curve] == [1.0, 2.0, 3.0, 4.0]
    assert all(torch.equal(*pair) for pair in seen)


def test_a_run_that_never_validates_has_diverged(dataset: Dataset) -> None:
    with pytest.raises(Divergence, match=r"^no validation NLL was finite in 16 steps$"):
        train(Recorded(), PROBLEM, dataset, config(), lambda: float("nan"))


def test_the_best_weights_are_kept(dataset: Dataset) -> None:
    model = Recorded()
    values = iter([5.0, 3.0, 4.0, float("nan")])
    seen: list[tuple[Tensor, bool]] = []

    def validate() -> float:
        seen.append((weight(model), model.module.training))
        return next(values)

    kept: list[Any] = []
    report = train(model, PROBLEM, dataset, config(ema_decay=0.9), validate, keep_weights=kept.append)
    assert report.best_validation == 3.0
    assert report.ended == "all epochs done"
    assert torch.equal(weight(model), seen[1][0])
    assert [mode for _, mode in seen] == [False] * 4
    assert [state["weight"].tolist() for state in kept] == [values.tolist() for values, _ in seen[:2]]


def test_validation_follows_its_schedule(dataset: Dataset) -> None:
    notes: list[tuple[int, int, str]] = []
    validated: list[int] = []

    def validate() -> float:
        validated.append(len(notes))
        return 7.0

    train(Recorded(), PROBLEM, dataset, config(epochs=5, evaluate_every=2), validate, lambda *told: notes.append(told))
    # After epochs 2 and 4, and after the last.
    assert validated == [2, 4, 5]
    assert [told[:2] for told in notes] == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert notes[-1][2] == "best validation 7.0"


def test_patience_ends_training(dataset: Dataset) -> None:
    values = iter([5.0, 4.0, 4.0, 6.0, 3.0, 2.0])
    report = train(Recorded(), PROBLEM, dataset, config(epochs=6, patience=2), lambda: next(values))
    assert report.iterations == 4 * 4
    assert report.best_validation == 4.0
    assert report.ended == "no better validation in the last 2 of 4 epochs"


def test_a_budget_ends_training_in_the_middle_of_an_epoch_but_not_unvalidated(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count()  # a second every time it is read

    monkeypatch.setattr(training.time, "perf_counter", lambda: float(next(clock)))
    report = train(Recorded(), PROBLEM, dataset, config(max_seconds=7.0, evaluate_every=100), lambda: 1.0)
    # The start takes 1 s by this clock, the first epoch 5: at its start, after each of four steps, at its end.
    assert report.iterations == 4 + 1
    assert report.best_validation == 1.0
    assert report.ended == "the budget of 7 s was spent in epoch 2"


def test_seconds_leave_validation_out(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Slow(Recorded):
        def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
            now[0] += 1.0
            return super().training_loss(x, generator)

    def validate() -> float:
        now[0] += 1000.0
        return 1.0

    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    assert train(Slow(), PROBLEM, dataset, config(), validate).seconds == 16.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adm"}, "unknown optimizer 'adm': did you mean adam?"),
        ({"learning_rate": 0.0}, "learning_rate must be a number above 0, not 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0, not nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be a number above 0, not inf"),
        ({"epochs": 0}, "epochs must be a number above 0, not 0"),
        ({"evaluate_every": 0}, "evaluate_every must be a number above 0, not 0"),
        ({"decay_epochs": -1}, "decay_epochs must be a number above 0, not -1"),
        ({"patience": 0}, "patience must be a number above 0 if it is given, not 0"),
        ({"max_seconds": float("inf")}, "max_seconds must be a number above 0 if it is given, not inf"),
    ],
)
def test_nonsense_is_refused_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        TrainingConfig(**changes)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["ebflow-dsm", "ebflow-ssm", "ebflow-ml", "nflows-lu-ml"])
def test_a_compiled_loss_trains_to_the_same_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced and lowered as ever; only the step that needs a C++ compiler is left out.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    weights = []
    for compiled in (False, True):
        problem = Problem(shape=(6,), batch=5, dtype="float64")
        trainer, batch = trainer_on_noise(registry().find(name), problem, TrainingConfig(compile=compiled))
        for _ in range(3):
            trainer.step(batch)
        weights.append([parameter.detach() for parameter in trainer.parameters])
    torch.testing.assert_close(*weights, rtol=1e-9, atol=1e-9)
