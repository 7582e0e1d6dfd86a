"""Data-parallel training by torch's own DistributedDataParallel, in the processes that torchrun starts.

Every process builds the same model from the same seed, draws the same batches, and validates for itself; in a training
step each takes its share of the batch, and the gradients are averaged. So all of them hold the same weights, and these
are those of one process but for rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.overrides import TorchFunctionMode

from harness.methods import Model

_NOISE = (torch.randn, torch.rand, torch.randint)


def processes() -> int:
    """How many share the work: more than one within `process_group` under torchrun."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def process_group(device: str) -> Iterator[int]:
    """Join the processes that torchrun has started, if it has; gloo between CPUs, NCCL between GPUs.

    Args:
        device: What the problem names; of several GPUs, ``cuda`` is then this process's own.

    Yields:
        The rank of this process: only that of rank 0 writes anything.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


def largest(value: int, device: str | torch.device = "cpu") -> int:
    """Return the largest value that any process has, to all of them; whoever comes first waits for the others."""
    if processes() == 1:
        return value
    shared = torch.tensor(value, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return int(shared)


def barrier(device: str | torch.device = "cpu") -> None:
    """Wait until every process has come here."""
    largest(0, device)


def shared_loss(model: Model) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return what stands for `training_loss` in each of several processes.

    It takes the whole batch, the same in all. Its value is the loss of that batch, and its backward pass leaves the
    gradient of it in the parameters, if the loss is a mean over samples. Noise that it draws by torch.randn, rand or
    randint, a row a sample, is the rows of its share of what one process would draw; other noise, as of a library that
    is seeded by the generator, is another than in one process.
    """
    rank, world = distributed.get_rank(), distributed.get_world_size()
    replica = nn.parallel.DistributedDataParallel(_Loss(model))

    def loss(x: Tensor, generator: torch.Generator) -> Tensor:
        if len(x) < world:  # nothing to share: all do the same
            return replica(x, generator)
        edges = [len(x) * part // world for part in range(world + 1)]
        share = slice(edges[rank], edges[rank + 1])
        with _RowsOfNoise(generator, len(x), share):
            # The gradients of all processes are averaged, whatever their shares.
            own = replica(x[share], generator) * ((share.stop - share.start) * world / len(x))
        whole = own.detach().clone()
        distributed.all_reduce(whole)
        return own + (whole / world - own.detach())

    return loss


class _Loss(nn.Module):
    """A model's loss as the forward pass of a module, which DistributedDataParallel takes."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.module, self._training_loss = model.module, model.training_loss

    def forward(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self._training_loss(x, generator)


class _RowsOfNoise(TorchFunctionMode):
    """While it is on, what is drawn from a generator for a share of the batch is drawn for all of it, and cut."""

    def __init__(self, generator: torch.Generator, batch: int, share: slice) -> None:
        super().__init__()
        self.generator, self.batch, self.share = generator, batch, share

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _NOISE or kwargs.get("generator") is not self.generator:
            return func(*args, **kwargs)
        bounds = [value for value in args if func is torch.randint and isinstance(value, int)]
        size = next((value for value in args if isinstance(value, Sequence)), args[len(bounds) :])
        if not size or size[0] != self.share.stop - self.share.start:
            return func(*args, **kwargs)
        return func(*bounds, (self.batch, *size[1:]), **kwargs)[self.share]
