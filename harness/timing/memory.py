"""The most memory that a training step holds at once."""

import gc
import json
import os
from itertools import accumulate, chain
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from harness.methods import Stateful
from harness.training.step import Trainer


def peak_bytes(trainer: Trainer, batch: Tensor) -> int:
    """Take one step and return the peak of all tensors in bytes: weights, gradients, optimiser, average, activations.

    Work space inside the linear algebra libraries is not seen.

    Args:
        trainer: A trainer that has taken a step before, so that its optimiser holds its state.
        batch: A batch of shape (B, *event).
    """
    trainer.optimizer.zero_grad()
    kept = _bytes_held(trainer, batch)
    if batch.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(batch.device)
        before = torch.cuda.memory_allocated(batch.device)
        trainer.step(batch)
        return kept + torch.cuda.max_memory_allocated(batch.device) - before
    return kept + max(accumulate(_changes(trainer, batch), initial=0))


def _changes(trainer: Trainer, batch: Tensor) -> list[int]:
    """Return the bytes of every allocation of a step on the CPU, in order; memory that is freed counts as negative."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler greets on stderr otherwise
    from torch.profiler import ProfilerActivity, profile

    # Of what is freed the profiler must have seen the allocation, or it warns on stderr: what is here already, such as
    # an inverse that the step replaces, is held until it has ended.
    tensors = [thing for thing in gc.get_objects() if type(thing) in (Tensor, torch.nn.Parameter)]
    held = [tensor.untyped_storage() for tensor in tensors if tensor.layout is torch.strided]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.step(batch)
    del tensors, held
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [event for event in events if event["name"] == "[memory]"]
    return [event["args"]["Bytes"] for event in sorted(changes, key=lambda event: event["ts"])]


def _bytes_held(trainer: Trainer, batch: Tensor) -> int:
    """Return the bytes of all tensors that outlive a step, each storage counted once."""
    module = trainer.model.module
    tensors = [batch, *module.parameters(), *module.buffers(), *(trainer.average or [])]
    tensors += chain.from_iterable(state.values() for state in trainer.optimizer.state)
    if isinstance(trainer.model, Stateful):
        tensors += trainer.model.get_extra_state().values()
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
