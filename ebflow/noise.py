"""Random numbers of a tensor's dtype and device.

They are drawn from a generator where one is given, and from torch's global one otherwise. To torch an explicit
``generator=None`` is the same, but `torch.compile` cannot trace it once the size of a batch has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["integers", "normal", "signs", "uniform"]


def normal(shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Return independent draws from N(0, 1).

    Args:
        shape: The shape to return.
        generator: The source of the draws, on the device of `like`; None for torch's global one.
        like: A tensor of the dtype and on the device to return.

    Raises:
        ValueError: if the dtype is not a floating-point one.
    """
    if not like.is_floating_point():
        raise ValueError(f"noise is of a floating-point type, not {like.dtype}: convert the samples by x.float()")
    return torch.randn(tuple(shape), dtype=like.dtype, device=like.device, **_source(generator))


def uniform(shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Return independent draws from [0, 1), as `normal` does."""
    return torch.rand(tuple(shape), dtype=like.dtype, device=like.device, **_source(generator))


def signs(shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Return independent signs, -1 or 1 with equal probability, as `normal` does."""
    return torch.randint(0, 2, tuple(shape), dtype=like.dtype, device=like.device, **_source(generator)) * 2 - 1


def integers(below: int, count: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Return independent integers of 0, ..., below - 1, each as probable, shape (count,), int64.

    Args:
        below: The number that all of them are below.
        count: The number of integers.
        generator: The source of the draws, on the device of `like`; None for torch's global one.
        like: A tensor on the device to return.
    """
    return torch.randint(below, (count,), device=like.device, **_source(generator))


def _source(generator: torch.Generator | None) -> dict[str, Any]:
    return {} if generator is None else {"generator": generator}
