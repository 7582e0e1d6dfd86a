"""The one training loop of the project."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from harness.datasets.augmentation import augmented
from harness.datasets.dataset import Dataset
from harness.errors import InputError
from harness.methods import Model, Observed, Problem, SharedWeights
from harness.methods.calls import guarded
from harness.methods.precision import stored
from harness.methods.seeds import generator
from harness.methods.whitened import refit
from harness.training.checkpoints import TrainingCheckpoint, digest
from harness.training.configuration import TrainingConfig
from harness.training.processes import barrier, largest
from harness.training.recorded import RecordedStep
from harness.training.signals import StopRequest
from harness.training.state import CurvePoint, TrainingState
from harness.training.step import Trainer

# Losses are looked at together after this many steps: one look a step would make a GPU wait for the host.
_STEPS_PER_LOOK = 50
# A training that skips so many steps in a row would hardly take one again.
_MOST_SKIPPED = 50


KeepWeights = Callable[[Mapping[str, Tensor]], None]
"""A function that puts a state dict into a file, in place of an earlier one."""


class Divergence(ArithmeticError):
    """A loss, the gradients of many steps in a row, or the validation likelihood is no longer finite."""


@dataclass(frozen=True)
class TrainingReport:
    """The outcome of one training.

    Args:
        best_validation: Validation NLL of the weights that were kept, in nats per sample.
        ended: Why training ended.
        iterations: Number of steps, skipped ones included.
        skipped: Number of steps that were left out because their gradient was not finite; None where the recipe leaves
            no step out.
        seconds: Training time. The start from data and every refit are part of it, validations and saving are not.
        curve: One point for each validation.
        failures: What was raised by what is only watched at validations, by name; the training went on without it.
    """

    best_validation: float
    ended: str
    iterations: int = 0
    skipped: int | None = None
    seconds: float = 0.0
    curve: list[CurvePoint] = field(default_factory=list)
    failures: dict[str, Exception] = field(default_factory=dict)


@dataclass
class Training:
    """One training: shuffle, step and validate on schedule, and leave the best validated weights in the model.

    With `resume` the state is saved now and then, and a training that was killed at any moment goes on from there. On a
    CPU it ends with the same bits as one that was not. SIGINT and SIGTERM wait for the running step or validation and a
    last save; a second signal does not.

    Args:
        model: A model that was built for the problem. It is initialised here from data.
        problem: The problem, which gives batch size, seed, device and dtype.
        dataset: The dataset. Its training part is shuffled anew every epoch and preprocessed with fresh noise.
        config: The recipe.
        validate: Function that returns the validation NLL, in nats per sample, of the weights then in the model.
        progress: Function that is told after every epoch how many epochs are done, of how many, and a note.
        keep_weights: Function that is given the best validated weights whenever there are better ones, or None.
        resume: File that the state is saved in and taken up from, or None. It stays when training ends.
        own_loss: Function that returns the objective's loss of the weights then in the model, for the curve; None to
            leave it out.
    """

    model: Model
    problem: Problem
    dataset: Dataset
    config: TrainingConfig
    validate: Callable[[], float]
    progress: Callable[[int, int, str], None] = lambda done, total, note: None
    keep_weights: KeepWeights | None = None
    resume: TrainingCheckpoint | None = None
    own_loss: Callable[[], float] | None = None

    def run(self) -> TrainingReport:
        """Train from the start or from the saved state to the end.

        Raises:
            Divergence: if a loss is not finite, if no step can be taken any more, or if no validation NLL was finite.
            InputError: if the recipe asks for what the model does not offer.
            TimeoutError: if the start or a step took longer than `harness.methods.calls` allows.
            Stopped: if a signal asked for it; the state is saved.
        """
        self.start()
        if self.resume is not None:
            self.restore(self.resume)
        if self.config.start_samples is not None and not self.state.iterations:
            self.look()  # a start from the data is a result of its own
        with self.stop if self.resume is not None else nullcontext():
            while self.state.ended is None:
                self.epoch()
                if (file := self.due()) is not None:
                    self.save(file)
        state = self.state
        if not state.best_weights:
            raise Divergence(f"no validation NLL was finite in {state.iterations} steps")
        self.model.module.load_state_dict(state.best_weights)
        self.model.module.eval()
        ended = str(state.ended)
        skipped = state.iterations - self.trainer.steps if self.config.skip_not_finite else None
        best = state.best_validation
        return TrainingReport(best, ended, state.iterations, skipped, state.seconds, state.curve, self.failures)

    def start(self) -> None:
        """Initialise the model from data, and make the trainer and the state."""
        problem, config = self.problem, self.config
        self.generator = generator(problem.seed, "training", problem.device)
        self.samples = self.dataset.train.to(problem.device)
        self.losses: list[Tensor] = []  # of the last steps, which nobody has looked at
        self.stop, self.asked = StopRequest(), 0  # and the signal that all processes agree on
        self.failures: dict[str, Exception] = {}
        if config.calibrate and not isinstance(self.model, SharedWeights):
            raise InputError("this model's last layer cannot be read and set; use a recipe that does not refit it")
        began = time.perf_counter()
        self.model.module.train()
        first = config.start_samples or problem.batch
        if not self.dataset.augment:  # which makes more samples than there are
            first = min(first, len(self.samples))
        rows = torch.arange(first, device=problem.device) % len(self.samples)
        if config.start_samples is not None and first < len(self.samples):  # which may lie in an order, as by place
            drawn = generator(problem.seed, "start", problem.device)
            rows = torch.randperm(len(self.samples), generator=drawn, device=problem.device)[:first]
        self.first_batch = self.batch(rows)
        with guarded("init_batch"):
            self.model.init_batch(self.first_batch)
        self.trainer = Trainer(self.model, config, self.generator, problem.dtype)
        self.recorded: RecordedStep | None = None
        if config.cuda_graphs:
            self.recorded = RecordedStep(self.trainer, self.batch, partial(self.failures.__setitem__, "replayed_steps"))
        self.state = TrainingState(self.trainer, seconds=time.perf_counter() - began)

    def batch(self, index: Tensor) -> Tensor:
        """Return the preprocessed training samples of these indices, with fresh noise."""
        raw = self.samples[index]
        if self.dataset.augment:
            raw = augmented(raw, self.generator)
        return self.dataset.preprocessing.draw(raw, self.generator, stored(self.problem.dtype))

    def restore(self, resume: TrainingCheckpoint) -> None:
        """Take up the state that an earlier run of the same training has saved, if there is one."""
        barrier(self.problem.device)  # by now the one process that writes has discarded what was to be
        resume.made_from["data"] = digest({"train": self.dataset.train, "validation": self.dataset.validation})
        if (saved := resume.read()) is None:
            return
        try:
            self.state.restore(*saved)
        except ValueError as error:
            resume.set_aside(str(error))
        else:
            if self.keep_weights is not None and self.state.best_weights:
                self.keep_weights(self.state.best_weights)

    def epoch(self) -> None:
        """Take the steps that the epoch has left, validate if it is time, and note whether training is over."""
        state, config, device = self.state, self.config, self.problem.device
        began = time.perf_counter()
        if not len(state.left):
            state.left = torch.randperm(len(self.samples), generator=self.generator, device=device)
        out_of_time = False
        with guarded("a training step") as renew:
            while True:
                renew()
                self.step()
                spent = state.seconds + time.perf_counter() - began
                if config.max_seconds is not None:
                    out_of_time = bool(largest(spent >= config.max_seconds, device))
                # Not between the last step and its validation, which asks for the gradient of that step.
                if not len(state.left) or out_of_time:
                    break
                due, file = bool(config.evaluate_steps) and state.iterations % config.evaluate_steps == 0, self.due()
                if due or file is not None:
                    self.check_losses()
                    state.seconds += time.perf_counter() - began
                    if due:
                        self.look()
                    if file is not None:
                        self.save(file)
                    began = time.perf_counter()
        self.check_losses()
        state.seconds += time.perf_counter() - began
        state.left = state.left[:0]
        state.epochs += 1
        best = state.best_validation
        self.progress(state.epochs, config.epochs, f"best validation {best:.1f}" if best < math.inf else "")
        if state.epochs % config.evaluate_every == 0 or state.epochs == config.epochs or out_of_time:
            self.look()
        if out_of_time:
            state.ended = f"the budget of {config.max_seconds:g} s was spent in epoch {state.epochs}"
        elif config.patience is not None and state.stale >= config.patience:
            state.ended = f"no better validation in the last {state.stale} of {state.epochs} epochs"
        elif state.epochs == config.epochs:
            state.ended = "all epochs done"

    def step(self) -> None:
        """Take one step on the next batch of the epoch."""
        state, config = self.state, self.config
        steps_an_epoch = math.ceil(len(self.samples) / self.problem.batch)
        if config.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * state.iterations / (config.epochs * steps_an_epoch)))
        else:
            factor = config.decay ** min(state.iterations // steps_an_epoch, config.decay_epochs - 1)
        self.trainer.optimizer.learning_rate = config.learning_rate * factor
        index, state.left = state.left[: self.problem.batch], state.left[self.problem.batch :]
        loss = self.recorded(index) if self.recorded is not None else self.trainer.step(self.batch(index))
        state.iterations += 1
        if not config.skip_not_finite:
            self.losses.append(loss)
            if len(self.losses) == _STEPS_PER_LOOK:
                self.check_losses()
        elif (skipped := self.trainer.skipped_in_a_row) == _MOST_SKIPPED:
            raise Divergence(f"no gradient was finite in the {skipped} steps up to step {state.iterations}")

    def check_losses(self) -> None:
        """Raise `Divergence` if one of the losses since the last call is not finite."""
        losses, self.losses = self.losses, []
        if losses and not bool((finite := torch.stack(losses).isfinite()).all()):
            step = self.state.iterations - len(losses) + int(finite.logical_not().nonzero()[0]) + 1
            raise Divergence(f"the loss is not finite at step {step}")

    def look(self) -> None:
        """Validate the averaged weights, note the point on the curve, and keep the weights if they are the best."""
        state = self.state
        told: dict[str, float] = {}
        if isinstance(self.model, Observed) and state.iterations:
            self.trainer.unclip()
            with self.watching("observations"), guarded("observations"):
                told = {name: float(value) for name, value in self.model.observations().items()}
        self.model.module.eval()
        with self.trainer.evaluated_weights():
            if self.config.calibrate:
                began = time.perf_counter()
                with guarded("the refit of the last layer"):
                    refit(self.model, self.first_batch)
                state.seconds += time.perf_counter() - began
            value = self.validate()
            norm = self.trainer.gradient_norm() if state.iterations else None
            loss = None
            if self.own_loss is not None:
                with self.watching("validation_loss"):
                    loss = self.own_loss()
            state.curve.append(CurvePoint(state.iterations, state.seconds, value, norm, loss, told))
            if not state.stale:
                state.best_weights = {name: tensor.clone() for name, tensor in self.model.module.state_dict().items()}
                if self.keep_weights is not None:
                    self.keep_weights(state.best_weights)
        self.model.module.train()

    @contextmanager
    def watching(self, name: str) -> Iterator[None]:
        """Note what a block raises that only watches the training, which goes on without what the block tells."""
        try:
            yield
        except Exception as error:  # a competitor may fail in any way
            self.failures[name] = error

    def due(self) -> TrainingCheckpoint | None:
        """Return the file that the state is to be saved in now; None if it is not time, and no signal asks for it."""
        if self.resume is None:
            return None
        self.asked = largest(self.stop.number or 0, self.problem.device)  # all processes stop at the same step
        return self.resume if self.asked or self.resume.due() else None

    def save(self, file: TrainingCheckpoint) -> None:
        """Save the state between two steps, and raise `Stopped` if a signal asked for it."""
        state = self.state
        saved = file.write(*state.packed())
        if self.asked:
            where = f"step {state.iterations}, after {state.epochs} of {self.config.epochs} epochs"
            how = "is saved at" if saved else "could not be saved at"
            raise self.stop.answer(self.asked, f"the running training {how} {where}")
