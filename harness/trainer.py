"""The one training step of the project, and its configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from harness.errors import InputError, unknown
from harness.method import Model
from harness.optimizers import OPTIMIZERS
from harness.parallel import processes, shared_loss
from harness.precision import bf16_where_declared, tf32_where_declared

__all__ = ["SCHEDULES", "Trainer", "TrainingConfig"]

SCHEDULES = ("steps", "cosine")


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained; the defaults are the paper's for MNIST, FC.

    Args:
        optimizer: One of `harness.optimizers.OPTIMIZERS`.
        learning_rate: At the start.
        schedule: One of `SCHEDULES`: steps (epoch by epoch, as the paper), or cosine (down to zero over all epochs).
        decay: With steps, the rate is multiplied by this after every epoch,
        decay_epochs: except that it stays constant from this epoch on.
        weight_decay: As the optimiser defines it.
        clip_norm: Largest global gradient norm, or None.
        skip_not_finite: Whether a step whose gradient norm is not finite is left out, much as the authors leave out one
            whose loss is not a number in 2-D; otherwise the first loss that is not finite ends training.
        ema_decay: Of the averaged weights that are evaluated: min(ema_decay, (1 + t) / (10 + t)) at step t. None: no
            averaging.
        epochs: Passes over the training set.
        evaluate_every: Epochs between two validations; the weights of the best one are kept.
        start_samples: Training samples that a data-dependent start is computed from; None: one batch.
        calibrate: Whether the last layer is refitted in closed form, from as many samples, before every validation; the
            weights that are kept have it.
        patience: Validations without improvement after which training stops, or None.
        max_seconds: Budget of wall time for training, or None.
        compile: Whether the loss goes through `torch.compile`; its first step takes seconds to minutes.
    """

    optimizer: str = "rmsprop"
    learning_rate: float = 1e-4
    schedule: str = "steps"
    decay: float = 0.95
    decay_epochs: int = 50
    weight_decay: float = 0.0
    clip_norm: float | None = None
    skip_not_finite: bool = False
    ema_decay: float | None = 0.999
    epochs: int = 10_000
    evaluate_every: int = 10
    start_samples: int | None = None
    calibrate: bool = False
    patience: int | None = None
    max_seconds: float | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        for name in ("learning_rate", "epochs", "evaluate_every", "decay_epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a number above 0, not {getattr(self, name)}")
        for name in ("start_samples", "patience", "max_seconds"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a number above 0 if it is given, not {getattr(self, name)}")


class Trainer:
    """A model with its optimiser, clipping and averaged weights: one call of `step` is one iteration.

    The runtime measurement and the training loop both go through here, so that what is timed is what trains.

    Args:
        model: Built and initialised.
        config: Its schedule is the loop's business.
        generator: Of the objective's noise, on the model's device.
        dtype: As `Problem.dtype`; the arithmetic of loss and backward.
    """

    def __init__(
        self, model: Model, config: TrainingConfig, generator: torch.Generator, dtype: str = "float32"
    ) -> None:
        self.model = model
        self.config = config
        self.generator = generator
        self.dtype = dtype
        if processes() > 1 and config.compile:
            raise InputError("training in several processes is not compiled; leave --compile out")
        # A graph for each size of batch: one for all would depend on the order in which the sizes are met.
        self.loss = torch.compile(model.training_loss, dynamic=False) if config.compile else model.training_loss
        if processes() > 1:
            self.loss = shared_loss(model)
        self.parameters = [p for p in model.module.parameters() if p.requires_grad]
        self.optimizer = OPTIMIZERS[config.optimizer](
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.steps = 0
        self.skipped_in_a_row = 0
        self._unclipped_norm: Tensor | None = None
        self.average = None if config.ema_decay is None else self._moving_average(config.ema_decay)

    def gradient(self, x: Tensor) -> Tensor:
        """Draw noise and leave the gradient for a batch of shape (B, *event) in the parameters; return the loss.

        Raises:
            TypeError: The loss is no real scalar.
        """
        self.optimizer.zero_grad(set_to_none=True)
        with tf32_where_declared(self.dtype):
            with bf16_where_declared(self.dtype, x.device):
                loss = self.loss(x, self.generator)
            if not isinstance(loss, Tensor) or loss.shape != () or not loss.is_floating_point():
                raise TypeError(f"training_loss returned {_described(loss)}, not a real scalar tensor")
            loss.backward()
        return loss.detach()

    def step(self, x: Tensor) -> Tensor:
        """Draw noise, take one gradient step on a batch of shape (B, *event), average; return the loss, detached.

        `steps` counts those that were taken.
        """
        loss = self.gradient(x)
        if self.config.clip_norm is not None:
            self._unclipped_norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        if self.config.skip_not_finite and not math.isfinite(self.gradient_norm()):
            self.skipped_in_a_row += 1
            return loss
        self.skipped_in_a_row = 0
        self.optimizer.step()
        self.steps += 1
        self.model.after_step()
        if self.average is not None:
            self.average.update_parameters(self.model.module)
        return loss

    def _moving_average(self, decay: float) -> AveragedModel:
        """Average with the warm-up that the paper's code uses; the average starts at the initial weights."""

        def update(averaged: list[Tensor], current: list[Tensor], _: Tensor | int) -> None:
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + self.steps) / (10 + self.steps)))

        average = AveragedModel(self.model.module, multi_avg_fn=update)
        average.update_parameters(self.model.module)
        return average

    def gradient_norm(self) -> float:
        """Euclidean norm of the last batch's gradient over all parameters, before clipping."""
        if self._unclipped_norm is not None:
            return float(self._unclipped_norm)
        return float(nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None]))

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Put the averaged weights into the model for the time of an evaluation; whatever it does to them is undone."""
        live = [p.detach().clone() for p in self.model.module.parameters()]
        if self.average is not None:
            _copy(self.average.module.parameters(), self.model.module)
        try:
            yield
        finally:
            _copy(live, self.model.module)


def _described(loss: object) -> str:
    if not isinstance(loss, Tensor):
        return "None" if loss is None else f"a {type(loss).__name__}"
    return f"a tensor of shape {tuple(loss.shape)} and {loss.dtype}"


def _copy(values: Iterator[Tensor] | list[Tensor], module: nn.Module) -> None:
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(value)
