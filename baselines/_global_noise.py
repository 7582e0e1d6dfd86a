"""A context for libraries that draw from the global generators: no competitor itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["global_noise"]


@contextmanager
def global_noise(generator: torch.Generator) -> Iterator[None]:
    """Let a generator drive torch's and numpy's global ones, and leave those as they were."""
    import numpy as np
    import torch

    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    before = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)
