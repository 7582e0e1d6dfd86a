"""Streams of random numbers: one seed of a user gives a separate stream to every purpose that draws from it.

With one generator seed for all of them, the first weights drawn would be the first latents of the data, and those the
first noise. The module does not import torch before a generator is asked for.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from harness.errors import InputError
from harness.methods.plain import whole

if TYPE_CHECKING:
    import torch

Purpose = Literal[
    "start",
    "data",
    "split",
    "training",
    "closed form",
    "validation",
    "test",
    "picture",
    "imputation",
    "timing",
    "log Z",
]
"""What random numbers are drawn for.

``start`` is for a model's first weights, ``training`` for the order of the samples and all noise of a training,
``data`` for the points of a synthetic set, ``split`` for the split of a user's own file.
"""


def require_seed(seed: int) -> int:
    """Return a seed that a user chose, as an int.

    Raises:
        InputError: if it is no whole number from 0 to 2^62 - 1.
    """
    seed = whole("the seed", seed)
    if not 0 <= seed < 2**62:
        raise InputError(f"the seed must be at least 0 and below 2^62, not {seed}")
    return seed


def stream(seed: int, purpose: Purpose) -> int:
    """Return the seed of a purpose's generator, from 0 to 2^63 - 1, given the seed that the user chose."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: Purpose, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a generator on the device at the start of the purpose's stream."""
    import torch

    return torch.Generator(device).manual_seed(stream(seed, purpose))
