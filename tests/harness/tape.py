"""What a CUDA graph does, on a CPU: the operations of a step on the very tensors that it met, without its Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations whose result the host waits for: a stream that is being captured refuses them.
_ASKS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_linalg_check_errors")


class Tape(TorchDispatchMode):
    """Keeps every operation with its arguments and results, so that it can be done again in the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.before: list[tuple[Tensor, Tensor]] = []
        self.made: set[int] = set()
        self.asked: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        masks = [index for index in tree_leaves(args[1:]) if isinstance(index, Tensor) and index.dtype == torch.bool]
        if name in _ASKS or (name == "index" and masks):
            self.asked.append(name)
        for position, argument in enumerate(function._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[position] if position < len(args) else kwargs.get(argument.name)
                written = [tensor for tensor in tree_leaves(value) if isinstance(tensor, Tensor)]
                self.before += [(tensor, tensor.clone()) for tensor in written if self._is_outside(tensor)]
        results = function(*args, **kwargs)
        self.made |= _memories(results) - _memories((args, kwargs))  # what is no view
        self.operations.append((function, args, kwargs, results))
        return results

    def _is_outside(self, tensor: Tensor) -> bool:
        """Say whether the memory of a tensor was there before, and is written for the first time."""
        return _memory(tensor) not in self.made | {_memory(earlier) for earlier, _ in self.before}

    def replay(self) -> None:
        """Do all operations again, and put what they return where it was."""
        with torch.no_grad():
            for function, args, kwargs, results in self.operations:
                again = function(*args, **kwargs)
                for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and _memory(old) != _memory(new):
                        old.copy_(new)


def record(operations: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    """Stand in for `harness.training.recorded.record`: nothing has changed afterwards but the tape.

    Raises:
        RuntimeError: if an operation asks the device for a number.
    """
    noise, tape = generator.get_state(), Tape()
    try:
        with tape:
            operations()
    finally:
        with torch.no_grad():
            for tensor, value in reversed(tape.before):
                tensor.copy_(value)
        generator.set_state(noise)
    if tape.asked:
        raise RuntimeError(f"operation not permitted when stream is capturing: {', '.join(sorted(set(tape.asked)))}")
    return tape.replay


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _memories(values: object) -> set[int]:
    return {_memory(tensor) for tensor in tree_leaves(values) if isinstance(tensor, Tensor)}
