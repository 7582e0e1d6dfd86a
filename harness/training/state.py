"""What the next steps of a training depend on: tensors by name, which a trainer gives and another takes up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.methods import Stateful

if TYPE_CHECKING:
    from harness.training.step import Trainer


def trainer_state(trainer: Trainer) -> dict[str, Tensor]:
    """Return all that the next steps depend on, by name: not copies, but what the next step changes."""
    state = {"steps": torch.tensor(trainer.steps), "skipped": torch.tensor(trainer.skipped_in_a_row)}
    state["generator"] = trainer.generator.get_state()
    state |= prefixed("model", trainer.model.module.state_dict())
    if trainer.average is not None:
        state |= prefixed("average", dict(trainer.average.module.named_parameters()))
    for number, parameter in enumerate(trainer.parameters):
        state |= prefixed(f"optimizer.{number}", trainer.optimizer.state.get(parameter, {}))
    if isinstance(trainer.model, Stateful):
        state |= prefixed("extra", trainer.model.get_extra_state())
    return state


def load_trainer_state(trainer: Trainer, state: Mapping[str, Tensor]) -> None:
    """Take up the state of a trainer of the same model and recipe.

    Raises:
        ValueError: It is that of another; nothing is changed.
    """
    optimizer = [part(f"optimizer.{number}", state) for number in range(len(trainer.parameters))]
    # An optimiser has its state from the first step on, as large as the weights but for counters.
    odd = [
        f"optimizer.{number}.{key}"
        for number, (parameter, kept) in enumerate(zip(trainer.parameters, optimizer, strict=True))
        for key, value in kept.items()
        if value.shape not in (parameter.shape, ())
    ]
    own = {
        name: tensor for name, tensor in trainer_state(trainer).items() if not name.startswith(("optimizer.", "extra."))
    }
    odd += [name for name, tensor in own.items() if name not in state or state[name].shape != tensor.shape]
    odd += [name for name in part("model", state) if f"model.{name}" not in own]
    if odd:
        raise ValueError(f"it does not fit in {odd[0]}")
    trainer.steps = int(state["steps"])
    trainer.skipped_in_a_row = int(state["skipped"])
    trainer.generator.set_state(state["generator"])
    trainer.model.module.load_state_dict(part("model", state))
    if trainer.average is not None:
        with torch.no_grad():
            for name, parameter in trainer.average.module.named_parameters():
                parameter.copy_(state[f"average.{name}"])
    for parameter, kept in zip(trainer.parameters, optimizer, strict=True):
        for key, value in kept.items():
            # In the weights' own order in memory, which the fused kernels and their rounding follow.
            like = parameter if value.shape == parameter.shape else value
            place = torch.empty_like(like, dtype=value.dtype, device=parameter.device)
            trainer.optimizer.state[parameter][key] = place.copy_(value)
    if isinstance(trainer.model, Stateful):
        trainer.model.set_extra_state(part("extra", state))


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under names that begin with a prefix and a dot."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what `prefixed` has put under this prefix, under its own names."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
