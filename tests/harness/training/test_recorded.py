"""Steps that are recorded once and replayed: the same bits as plain ones, by a stand-in for the graph of a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import tape
import torch
from torch import Tensor, nn

from harness import datasets
from harness.errors import InputError
from harness.methods import Method, Problem
from harness.methods.density import build
from harness.methods.registry import registry
from harness.methods.seeds import generator
from harness.timing.interleaved import measure
from harness.training import recorded
from harness.training.configuration import TrainingConfig
from harness.training.loop import Training, TrainingReport
from harness.training.recorded import RecordedStep
from harness.training.step import Trainer

CONFIG = TrainingConfig(clip_norm=5.0)
LAYERS = {"fc": 2, "cnn": 3, "glow": 2, "toy": 3}
TRAINED = [
    (architecture, method.name)
    for architecture in LAYERS
    for method in registry().available(architecture)
    if method.iterative
]
# What cannot be recorded, by what stands in the way.
REFUSED = {
    "ebflow-sml": "_linalg_check_errors",  # its inverse says where it is singular
    "ebflow-snl": "remembers its earlier steps",
    "normflows-residual-ml": "remembers its earlier steps",
    "nflows-nsf-ml": "_local_scalar_dense",
    "normflows-nsf-ml": "_local_scalar_dense",
    "normflows-glow-ml": "_local_scalar_dense",
    "zuko-nsf-reg": "cannot be recorded",
}


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "record", tape.record)


def trained(method: Method, problem: Problem, steps: int, config: TrainingConfig, *, replayed: bool) -> list[Tensor]:
    """Take steps on indices, with falling rates and now and then a short batch; return weights, average and losses."""
    model = build(method, problem)
    data = torch.randn(200, *problem.shape, generator=torch.Generator().manual_seed(0))
    model.init_batch(data[:16])
    model.module.train()
    noise = generator(1, "training")
    trainer = Trainer(model, config, noise)

    def draw(index: Tensor) -> Tensor:
        return data[index] + 0.1 * torch.rand(len(index), *problem.shape, generator=noise)

    step = RecordedStep(trainer, draw) if replayed else lambda index: trainer.step(draw(index))
    losses = []
    for number in range(steps):
        trainer.optimizer.learning_rate = 1e-3 * 0.99**number
        losses.append(step((torch.arange(10 if number % 7 == 6 else 16) + number) % 200))
    assert trainer.steps == steps
    return [*(weight.detach() for weight in trainer.weights), *(trainer.average or []), torch.stack(losses)]


@pytest.mark.parametrize(("architecture", "name"), TRAINED, ids="-".join)
def test_a_replayed_step_is_the_plain_one_to_the_bit_or_is_refused(architecture: str, name: str) -> None:
    shape = (2,) if architecture == "toy" else (1, 8, 8)
    problem = Problem(architecture, shape, LAYERS[architecture], batch=16, noise=0.3)
    run = partial(trained, registry().find(name), problem, 12, CONFIG)
    if name in REFUSED:
        with pytest.raises(InputError, match=f"{REFUSED[name]}.*leave --cuda-graphs out"):
            run(replayed=True)
        return
    plain = run(replayed=False)
    assert all(torch.equal(a, b) for a, b in zip(plain, run(replayed=True), strict=True))


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize("name", ["ebflow-dsm", "ebflow-ssm", "ebflow-ml", "ebflow-aml"])
def test_weights_are_the_same_after_200_steps(name: str, optimizer: str) -> None:
    run = partial(trained, registry().find(name), Problem(shape=(1, 8, 8), batch=16, noise=0.3), 200)
    config = TrainingConfig(optimizer=optimizer, weight_decay=1e-4 if optimizer == "adam" else 0.0)
    plain = run(config, replayed=False)
    assert all(torch.equal(a, b) for a, b in zip(plain, run(config, replayed=True), strict=True))
    assert bool(plain[-1].isfinite().all())


@pytest.mark.parametrize("name", ["ebflow-aml", "ebflow-dsm"])
@pytest.mark.parametrize("start", ["published", "whitened"])
def test_a_training_that_replays_its_steps_ends_with_the_same_weights(name: str, start: str) -> None:
    problem = Problem(shape=(1, 8, 8), noise=0.3, batch=110, start=start)
    config = TrainingConfig("adam", 1e-3, "cosine", epochs=3, evaluate_every=1, start_samples=1000)

    def train(*, replayed: bool) -> tuple[TrainingReport, dict[str, Tensor]]:
        model = build(registry().find(name), problem)
        data = datasets.load("digits")
        values = iter([3.0, 2.0, 1.0, 0.5])
        report = Training(model, problem, data, replace(config, cuda_graphs=replayed), lambda: next(values)).run()
        return report, model.module.state_dict()

    (plain, weights), (report, again) = train(replayed=False), train(replayed=True)
    assert len(datasets.load("digits").train) % 110 != 0  # the last batch of an epoch is short
    assert all(torch.equal(weight, again[key]) for key, weight in weights.items())
    assert [point.gradient_norm for point in report.curve] == [point.gradient_norm for point in plain.curve]
    assert [point.observations for point in report.curve] == [point.observations for point in plain.curve]


class Counting:
    """A loss that depends on how often Python has called it."""

    def __init__(self, problem: Problem) -> None:
        self.module, self.calls = nn.Linear(4, 4), 0

    def init_batch(self, x: Tensor) -> None:
        return

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.calls += 1
        return (self.calls * self.module(x)).square().mean()

    def after_step(self) -> None:
        return


def test_a_step_that_changes_in_python_is_found_out(fake_method: Callable[..., Method]) -> None:
    method = fake_method("mine-ml", build=Counting)
    config = replace(CONFIG, clip_norm=None, optimizer="adam", ema_decay=None)
    with pytest.raises(InputError, match=r"a replayed step of Counting is off by .* of what a plain one changes"):
        trained(method, Problem(shape=(4,), batch=16), 8, config, replayed=True)


def test_a_replay_that_is_no_number_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoils(operations: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
        tape.record(operations, generator)
        return lambda: [weight.fill_(math.nan) for weight in seen]

    seen: list[Tensor] = []
    monkeypatch.setattr(recorded, "record", spoils)
    trainer = Trainer(build(registry().find("ebflow-dsm"), Problem(shape=(4,))), CONFIG, generator(0, "training"))
    seen += [weight.detach() for weight in trainer.weights]
    step, x = RecordedStep(trainer), torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        step(x)
    before = [weight.clone() for weight in seen]
    with pytest.raises(InputError, match="is off by nan of what a plain one changes"):
        step(x)
    assert all(torch.equal(weight, start) for weight, start in zip(seen, before, strict=True))


def test_a_short_batch_is_not_what_is_recorded() -> None:
    trainer = Trainer(build(registry().find("ebflow-dsm"), Problem(shape=(4,))), CONFIG, generator(0, "training"))
    counted, data = [], torch.randn(8, 4, generator=torch.Generator().manual_seed(0))

    def draw(index: Tensor) -> Tensor:  # called by plain steps, and twice by a recording: by the tape and beside it
        counted.append(len(index))
        return data[index]

    step = RecordedStep(trainer, draw)
    for size in (3, 8, 8, 3, 8, 3, 8, 8, 3, 8):
        step(torch.arange(size))
    assert counted == [3, 8, 8, 3, 8, 8, 3, 3]


def test_timings_of_replayed_steps_have_the_whole_iteration_alone() -> None:
    methods = [registry().find(name) for name in ("ebflow-dsm", "ebflow-aml", "ebflow-sml")]
    config = TrainingConfig(cuda_graphs=True)
    dsm, aml, sml = measure(methods, Problem(shape=(16,), batch=8), 2, config).timings
    assert (len(dsm.seconds), dsm.gradient_seconds, dsm.failure) == (2, [], None)
    assert (len(aml.seconds), len(aml.refresh_seconds), aml.failure) == (2, 2, None)
    assert dsm.peak_bytes
    assert sml.failure is not None
    assert "cannot be recorded as a CUDA graph" in sml.failure


def test_a_recipe_that_leaves_steps_out_is_refused() -> None:
    with pytest.raises(
        InputError, match="a recipe that leaves steps out looks at each gradient; leave --cuda-graphs out"
    ):
        TrainingConfig(cuda_graphs=True, skip_not_finite=True)
    with pytest.raises(InputError, match="a step is compiled or replayed; give one of"):
        TrainingConfig(cuda_graphs=True, compile=True)


@pytest.mark.parametrize("name", ["ebflow-sml", "ebflow-aml"])
def test_a_training_whose_steps_cannot_be_recorded_goes_on_with_plain_ones(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(operations: object, generator: torch.Generator) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(recorded, "record", fails)
    problem, data = Problem(shape=(1, 8, 8), batch=110, seed=3), datasets.load("digits")

    def train(*, replayed: bool) -> tuple[TrainingReport, dict[str, Tensor]]:
        model = build(registry().find(name), problem)
        config = TrainingConfig(epochs=2, evaluate_every=2, cuda_graphs=replayed)
        return Training(model, problem, data, config, lambda: 1.0).run(), model.module.state_dict()

    (plain, weights), (report, again) = train(replayed=False), train(replayed=True)
    assert all(torch.equal(weight, again[key]) for key, weight in weights.items())
    assert plain.failures == {}
    assert "cannot be recorded as a CUDA graph" in str(report.failures["replayed_steps"])
