"""Data-parallel training by torch's own DistributedDataParallel, in the processes that torchrun starts.

Every process builds the same model from the same seed, draws the same batches, and validates for itself. In a training
step each process takes its share of the batch, and the gradients are averaged. So all processes hold the same weights,
which are those of a training in one process but for rounding.
"""

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
    """Return how many processes share the training: more than one within `process_group` under torchrun."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def process_group(device: str) -> Iterator[int]:
    """Join the processes that torchrun has started, if it has; CPUs talk by gloo, GPUs by NCCL.

    Args:
        device: The problem's device; ``cuda`` then means this process's own GPU.

    Yields:
        The rank of this process. Only the process of rank 0 writes files.
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
    """Return the largest value that any process passes in; every process waits for the others."""
    if processes() == 1:
        return value
    shared = torch.tensor(value, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return int(shared)


def barrier(device: str | torch.device = "cpu") -> None:
    """Wait until every process has reached this call."""
    largest(0, device)


def shared_loss(model: Model) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return the function that stands for a model's `training_loss` in each of several processes.

    The function takes the whole batch, the same in all processes. If the model's loss is a mean over samples, the
    function returns the loss of the whole batch, and its backward pass leaves that loss's gradient in the parameters.
    Noise that the model draws by torch.randn, rand or randint, one row per sample, is the same as in one process; other
    noise, such as that of a library with a generator of its own, is not.
    """
    rank, world = distributed.get_rank(), distributed.get_world_size()
    replica: Callable[..., Tensor] = nn.parallel.DistributedDataParallel(_Loss(model))

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
        self.module, self.loss = model.module, model.training_loss

    def forward(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.loss(x, generator)


class _RowsOfNoise(TorchFunctionMode):
    """While this mode is on, noise that the generator draws for a share of the batch is cut from the whole batch's."""

    # A loss draws its own noise, in the shape of the samples that it is given. torch's hook for calls of its functions
    # is the only place to change that shape; the alternative would be a second loss in every adapter.

    def __init__(self, generator: torch.Generator, batch: int, share: slice) -> None:
        super().__init__()
        self.generator, self.batch, self.share = generator, batch, share

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _NOISE or kwargs.get("generator") is not self.generator:
            return func(*args, **kwargs)
        bounds, size = (), args  # as in randn(2, 3)
        if args and isinstance(args[-1], Sequence):  # as in randn((2, 3)) and randint(9, (2, 3))
            bounds, size = args[:-1], tuple(args[-1])
        elif func is torch.randint:  # with its size as a keyword
            size = ()
        if not size or size[0] != self.share.stop - self.share.start:
            return func(*args, **kwargs)
        return func(*bounds, (self.batch, *size[1:]), **kwargs)[self.share]
