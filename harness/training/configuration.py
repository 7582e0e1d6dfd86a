"""How a model is trained; nothing here imports torch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from harness.errors import InputError, unknown
from harness.methods.plain import make_plain

OptimizerName = Literal["adam", "rmsprop"]
OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)
SCHEDULES = ("steps", "cosine")


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained; the defaults are the paper's for MNIST and the fc architecture.

    Args:
        optimizer: The optimiser, one of `OPTIMIZERS`.
        learning_rate: Learning rate at the start.
        schedule: The learning rate's schedule, one of `SCHEDULES`: steps (a factor after every epoch, as in the paper)
            or cosine (down to zero over all epochs).
        decay: Factor on the learning rate after every epoch of the steps schedule.
        decay_epochs: Epoch from which on the steps schedule keeps the learning rate constant.
        weight_decay: Weight decay, as the optimiser defines it.
        clip_norm: Largest global norm of a gradient; None to clip none.
        skip_not_finite: Whether a step whose gradient norm is not finite is left out, much as the authors leave out a
            step whose loss is not a number in 2-D. Otherwise the first loss that is not finite ends training.
        ema_decay: Decay of the averaged weights that are evaluated: at step t it is min(ema_decay, (1 + t) / (10 + t)).
            None evaluates the trained weights themselves.
        epochs: Number of passes over the training set.
        evaluate_every: Number of epochs between two validations. The weights of the best validation are kept.
        evaluate_steps: Number of steps between two validations within an epoch, beside those at its end; 0 for none.
        start_samples: Number of training samples that a data-dependent start is computed from; None for one batch.
        calibrate: Whether the last layer is refitted in closed form before every validation, from the samples that
            training started from. The weights that are kept have the refitted layer.
        patience: Number of validations without improvement after which training stops; None for no such limit.
        max_seconds: Budget of training time in seconds; None for no such limit.
        compile: Whether the loss goes through `torch.compile`, whose first step takes seconds to minutes.
        cuda_graphs: Whether steps are recorded once and replayed (`harness.training.recorded`), on a CUDA device.

    Raises:
        InputError: if a name is unknown or a number is out of range.
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
    evaluate_steps: int = 0
    start_samples: int | None = None
    calibrate: bool = False
    patience: int | None = None
    max_seconds: float | None = None
    compile: bool = False
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        make_plain(self)
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        for name in ("learning_rate", "epochs", "evaluate_every", "decay_epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a number above 0, not {getattr(self, name)}")
        if self.cuda_graphs and self.skip_not_finite:
            raise InputError("a recipe that leaves steps out looks at each gradient; leave --cuda-graphs out")
        if self.cuda_graphs and self.compile:
            raise InputError("a step is compiled or replayed; give one of --compile and --cuda-graphs")
        if self.evaluate_steps < 0:
            raise InputError(f"evaluate_steps must be a number of steps, or 0 for none, not {self.evaluate_steps}")
        for name in ("start_samples", "patience", "max_seconds"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a number above 0 if it is given, not {getattr(self, name)}")
