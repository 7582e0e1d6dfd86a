"""How a model is trained; nothing here imports torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.errors import InputError, unknown

OPTIMIZERS = ("rmsprop", "adam")

SCHEDULES = ("steps", "cosine")


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained; the defaults are the paper's for MNIST, FC.

    Args:
        optimizer: One of `harness.training.optimizers.OPTIMIZERS`.
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
