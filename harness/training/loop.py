"""The one training loop of the project."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.datasets.dataset import Dataset
from harness.errors import InputError
from harness.methods import Calibrated, Model, Problem
from harness.methods.calls import guarded
from harness.methods.precision import stored
from harness.training.checkpoints import TrainingCheckpoint, digest, save_weights
from harness.training.configuration import TrainingConfig
from harness.training.processes import largest
from harness.training.signals import StopRequest
from harness.training.state import load_trainer_state, part, prefixed, trainer_state
from harness.training.step import Trainer

# Losses are looked at together after this many steps: one look a step would make a GPU wait for the host.
_STEPS_PER_LOOK = 50
# A training that skips so many steps in a row would hardly take one again.
_MOST_SKIPPED = 50


class Divergence(ArithmeticError):
    """A loss, the gradients of many steps in a row, or the validation likelihood is no longer finite."""


@dataclass(frozen=True)
class CurvePoint:
    """What was seen at one validation.

    Args:
        iteration: Steps done.
        seconds: Of training until then, the start from data included and validations not.
        validation_nll: Nats a sample, of the evaluated (averaged) weights.
        gradient_norm: Of the last batch, before clipping; None before the first step.
        validation_loss: The objective's own, of the same weights; None where it is not watched.
    """

    iteration: int
    seconds: float
    validation_nll: float
    gradient_norm: float | None
    validation_loss: float | None = None


@dataclass
class TrainingReport:
    """What happened: iterations done, seconds spent, the validation curve, and why training ended."""

    iterations: int = 0
    skipped: int | None = None  # of them, because their gradient was not finite; None where none may be
    seconds: float = 0.0
    curve: list[CurvePoint] = field(default_factory=list)
    best_validation: float = float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    stale: int = 0  # validations since the best one
    ended: str = "all epochs done"


def train(
    model: Model,
    problem: Problem,
    dataset: Dataset,
    config: TrainingConfig,
    validate: Callable[[], float],
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    checkpoint: Path | None = None,
    resume: TrainingCheckpoint | None = None,
    own_loss: Callable[[], float] | None = None,
) -> TrainingReport:
    """Train on the dataset, validate on schedule, and leave the best validated weights in the model.

    With `resume` the state is saved now and then, and a training that was killed at any moment goes on from there. On a
    CPU it ends with the same bits as one that was not. SIGINT and SIGTERM wait for the running step or validation and a
    last save; a second one does not. Saving is no training time.

    Args:
        model: Built for the problem; initialised here from one batch.
        problem: Gives batch size, seed, device and dtype.
        dataset: Its training part is shuffled anew every epoch and preprocessed with fresh noise.
        config: The recipe.
        validate: Returns the validation NLL in nats of the weights then in the model.
        progress: Told after every epoch: epochs done, epochs in all, a note.
        checkpoint: File that always holds the best validated weights (safetensors), or None.
        resume: Where the state is saved, and lies if an earlier run was stopped, or None. It stays when training ends.
        own_loss: Returns the objective's loss of the weights then in the model, for the curve; None not to watch it.

    Raises:
        Divergence: A loss is not finite, with its step, or no step can be taken any more; or every validation was not.
        TimeoutError: The start or a step took longer than `harness.methods.calls` allows.
        Stopped: By a signal, with the state saved.
    """
    generator = torch.Generator(problem.device).manual_seed(problem.seed)
    raw = dataset.train.to(problem.device)
    dtype = stored(problem.dtype)

    def batch(index: Tensor) -> Tensor:
        return dataset.preprocessing.draw(raw[index], generator, dtype)

    calibrate = _calibration(model) if config.calibrate else None
    started = time.perf_counter()
    model.module.train()
    first = min(config.start_samples or problem.batch, len(raw))
    samples = batch(torch.arange(first, device=problem.device))
    with guarded("init_batch"):
        model.init_batch(samples)
    trainer = Trainer(model, config, generator, problem.dtype)
    rate = _rate(config, math.ceil(len(raw) / problem.batch))
    report = TrainingReport(seconds=time.perf_counter() - started)
    epoch, left = 1, None  # and the samples that the epoch has not seen yet, in its order; None before it has begun
    stop, asked = StopRequest(), 0  # and the signal that all processes agree on

    def look() -> None:
        """Validate, note it on the curve, keep the weights if they are the best."""
        model.module.eval()
        with trainer.evaluated_weights():
            if calibrate is not None:
                with guarded("calibrate"):
                    calibrate(samples)
            value = validate()
            norm = trainer.gradient_norm() if report.iterations else None
            loss = own_loss() if own_loss is not None else None
            report.curve.append(CurvePoint(report.iterations, report.seconds, value, norm, loss))
            if value < report.best_validation:
                report.best_validation, report.stale = value, 0
                report.best_weights = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
                if checkpoint is not None:
                    save_weights(report.best_weights, checkpoint)
            else:
                report.stale += 1
        model.module.train()

    def due() -> bool:
        if resume is None:
            return False
        nonlocal asked
        asked = largest(stop.number or 0, problem.device)  # all processes stop at the same step
        return asked > 0 or resume.due()

    def save() -> None:
        """Save the state as it is between two steps; stop if that was asked for."""
        saved = resume.write(*_packed(trainer, report, epoch, left))
        if asked:
            how = "is saved at" if saved else "could not be saved at"
            done = min(epoch - 1, config.epochs)
            raise stop.answer(
                asked, f"the running training {how} step {report.iterations}, after {done} of {config.epochs} epochs"
            )

    if resume is not None:
        largest(0, problem.device)  # by now the one process that writes has discarded what was to be
        resume.made_from["data"] = digest({"train": dataset.train, "validation": dataset.validation})
        if (found := resume.read()) is not None:
            try:
                report, epoch, left = _unpacked(trainer, *found)
            except ValueError as error:
                resume.set_aside(str(error))
            else:
                if checkpoint is not None and report.best_weights:
                    save_weights(report.best_weights, checkpoint)
    if config.start_samples is not None and not report.iterations:
        look()  # a start from the data is a result of its own
    with stop if resume is not None else nullcontext():
        while epoch <= config.epochs:
            started = time.perf_counter()
            if left is None:
                left = torch.randperm(len(raw), generator=generator, device=problem.device)
            losses: list[Tensor] = []
            out_of_time = False
            with guarded("a training step") as renew:
                while len(left) and not out_of_time:
                    renew()
                    for group in trainer.optimizer.param_groups:
                        group["lr"] = config.learning_rate * rate(report.iterations)
                    index, left = left[: problem.batch], left[problem.batch :]
                    loss = trainer.step(batch(index))
                    report.iterations += 1
                    if not config.skip_not_finite:
                        losses.append(loss)
                    elif (row := trainer.skipped_in_a_row) == _MOST_SKIPPED:
                        raise Divergence(f"no gradient was finite in the {row} steps up to step {report.iterations}")
                    if len(losses) == _STEPS_PER_LOOK:
                        _check(losses, report.iterations)
                        losses = []
                    spent = report.seconds + time.perf_counter() - started
                    if config.max_seconds is not None:
                        out_of_time = bool(largest(spent >= config.max_seconds, problem.device))
                    # Not between the last step and its validation, which asks for the gradient of that step.
                    if len(left) and not out_of_time and due():
                        _check(losses, report.iterations)
                        losses = []
                        report.seconds += time.perf_counter() - started
                        save()
                        started = time.perf_counter()
            _check(losses, report.iterations)
            report.seconds += time.perf_counter() - started
            progress(epoch, config.epochs, f"best validation {report.best_validation:.1f}")
            if epoch % config.evaluate_every == 0 or epoch == config.epochs or out_of_time:
                look()
            over = out_of_time
            if out_of_time:
                report.ended = f"the budget of {config.max_seconds:g} s was spent in epoch {epoch}"
            elif config.patience is not None and report.stale >= config.patience:
                over, report.ended = True, f"no better validation in the last {report.stale} of {epoch} epochs"
            epoch, left = config.epochs + 1 if over else epoch + 1, None
            if due():
                save()
    if config.skip_not_finite:
        report.skipped = report.iterations - trainer.steps
    if not report.best_weights:
        raise Divergence(f"no validation NLL was finite in {report.iterations} steps")
    model.module.load_state_dict(report.best_weights)
    model.module.eval()
    return report


def _packed(
    trainer: Trainer, report: TrainingReport, epoch: int, left: Tensor | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the numbers that a training goes on from, between two steps."""
    tensors = prefixed("trainer", trainer_state(trainer)) | prefixed("best", report.best_weights)
    if left is not None:
        tensors["left"] = left
    numbers = {name: value for name, value in vars(report).items() if name not in ("curve", "best_weights")}
    return tensors, {**numbers, "curve": [astuple(point) for point in report.curve], "epoch": epoch}


def _unpacked(
    trainer: Trainer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> tuple[TrainingReport, int, Tensor | None]:
    """Put the state into a trainer and return report, epoch and the samples left.

    Raises:
        ValueError: It is the state of another model.
    """
    load_trainer_state(trainer, part("trainer", tensors))
    numbers = {**numbers, "curve": [CurvePoint(*point) for point in numbers["curve"]]}
    epoch = numbers.pop("epoch")
    left = tensors["left"].to(trainer.generator.device) if "left" in tensors else None
    return TrainingReport(**numbers, best_weights=part("best", tensors)), epoch, left


def _calibration(model: Model) -> Callable[[Tensor], None]:
    if not isinstance(model, Calibrated):
        raise InputError("this model has no closed form for its last layer; use a recipe without calibration")
    return model.calibrate


def _rate(config: TrainingConfig, epoch: int) -> Callable[[int], float]:
    """Return the factor on the learning rate at every step, for epochs of so many steps."""
    if config.schedule == "cosine":
        return lambda step: 0.5 * (1 + math.cos(math.pi * step / (config.epochs * epoch)))
    return lambda step: config.decay ** min(step // epoch, config.decay_epochs - 1)


def _check(losses: list[Tensor], iterations: int) -> None:
    if losses and not bool((finite := torch.stack(losses).isfinite()).all()):
        step = iterations - len(losses) + int(finite.logical_not().nonzero()[0]) + 1
        raise Divergence(f"the loss is not finite at step {step}")
