"""The state of a training: everything that its next steps depend on, saved and restored as a whole."""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.methods import Stateful
from harness.training.step import Trainer


@dataclass(frozen=True)
class CurvePoint:
    """What was seen at one validation.

    Args:
        iteration: Number of steps done before the validation.
        seconds: Training time until then. The start from data and every refit are part of it, validations are not.
        validation_nll: NLL of the evaluated (averaged) weights on the validation set, in nats per sample.
        gradient_norm: Norm of the last batch's gradient before clipping; None before the first step.
        validation_loss: The objective's own loss of the same weights; None where nobody watches it.
        observations: What an `Observed` model tells of the trained weights, by metric; nothing before the first step.
    """

    iteration: int
    seconds: float
    validation_nll: float
    gradient_norm: float | None
    validation_loss: float | None = None
    observations: dict[str, float] = field(default_factory=dict)


@dataclass
class TrainingState:
    """A training between two steps.

    Args:
        trainer: Holds the weights, their average, the state of the optimiser and the generator of all noise.
        iterations: Number of steps so far, skipped ones included.
        seconds: Training time so far, refits included; validating and saving are not part of it.
        epochs: Number of epochs that are over.
        left: Indices of the training samples that the running epoch has not seen, in its order. It is empty between
            two epochs.
        curve: One point for each validation so far.
        best_weights: State dict with the best validation so far; empty before there is one.
        ended: The reason why training is over; None while it goes on.
    """

    trainer: Trainer
    iterations: int = 0
    seconds: float = 0.0
    epochs: int = 0
    left: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    curve: list[CurvePoint] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    ended: str | None = None

    @property
    def best_validation(self) -> float:
        """The lowest validation NLL so far in nats per sample; infinite before there is one."""
        return min((p.validation_nll for p in self.curve if p.validation_nll < math.inf), default=math.inf)

    @property
    def stale(self) -> int:
        """The number of validations since the best one; all of them if none was finite."""
        values = [point.validation_nll for point in self.curve]
        best = self.best_validation
        return len(values) if best == math.inf else len(values) - 1 - values.index(best)

    def packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state as tensors, which the next step changes, and as numbers for JSON, by name."""
        trainer = self.trainer
        tensors = {"generator": trainer.generator.get_state(), "left": self.left}
        tensors |= _prefixed("best", self.best_weights) | _prefixed("model", trainer.model.module.state_dict())
        if trainer.average is not None:
            tensors |= {f"average.{number}": tensor for number, tensor in enumerate(trainer.average)}
        for number, state in enumerate(trainer.optimizer.state):
            tensors |= _prefixed(f"optimizer.{number}", state)
        if isinstance(trainer.model, Stateful):
            tensors |= _prefixed("extra", trainer.model.get_extra_state())
        numbers = {name: getattr(self, name) for name in ("iterations", "seconds", "epochs", "ended")}
        numbers |= {"steps": trainer.steps, "skipped_in_a_row": trainer.skipped_in_a_row}
        return tensors, {**numbers, "curve": [astuple(point) for point in self.curve]}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take up what `packed` returned for a training of the same model and recipe.

        Raises:
            ValueError: if the state is that of another model; then nothing is changed.
        """
        trainer = self.trainer
        self._check_fit(tensors)
        trainer.generator.set_state(tensors["generator"])
        trainer.model.module.load_state_dict(_part("model", tensors))
        for number, average in enumerate(trainer.average or []):
            average.copy_(tensors[f"average.{number}"])
        for number, state in enumerate(trainer.optimizer.state):
            for name, tensor in state.items():
                tensor.copy_(tensors[f"optimizer.{number}.{name}"])
        if isinstance(trainer.model, Stateful):
            trainer.model.set_extra_state(_part("extra", tensors))
        trainer.steps, trainer.skipped_in_a_row = numbers["steps"], numbers["skipped_in_a_row"]
        self.iterations, self.seconds = numbers["iterations"], numbers["seconds"]
        self.epochs, self.ended = numbers["epochs"], numbers["ended"]
        self.left = tensors["left"].to(trainer.generator.device)
        self.curve = [CurvePoint(*point) for point in numbers["curve"]]
        self.best_weights = _part("best", tensors)

    def _check_fit(self, tensors: Mapping[str, Tensor]) -> None:
        kinds = ("model.", "average.", "optimizer.")
        own = {name: tensor for name, tensor in self.packed()[0].items() if name.startswith(kinds)}
        # Constants of a layer have no place in an older file, and are compared by the layer itself.
        own = {name: tensor for name, tensor in own.items() if name in tensors or not name.endswith("_extra_state")}
        odd = [name for name, tensor in own.items() if name not in tensors or tensors[name].shape != tensor.shape]
        odd += [name for name in tensors if name.startswith(kinds) and name not in own]
        if odd:
            raise ValueError(f"it does not fit in {odd[0]}")


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what `_prefixed` has put under this prefix, under its own names."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
