"""What a data set is, whatever its origin."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from harness.datasets.densities import Density
from harness.datasets.preprocessing import Preprocessing


@dataclass(frozen=True, eq=False)
class Dataset:
    """Raw samples in three splits, and the map that takes them to the space the methods model.

    Attributes:
        name: Name of the data set in results.
        shape: Shape of one sample (the event shape), e.g. `(2,)`, `(1, 8, 8)` or `(3, 32, 32)`.
        train: Raw training samples, `(N, *shape)`: `uint8` levels for images, floating point otherwise.
        validation: Raw validation samples, `(N, *shape)`.
        test: Raw test samples, `(N, *shape)`.
        preprocessing: The random map from raw samples to model space, the same for every method.
        density: Exact density of the *preprocessed* samples, where it is known (the synthetic sets).
    """

    name: str
    shape: tuple[int, ...]
    train: Tensor
    validation: Tensor
    test: Tensor
    preprocessing: Preprocessing
    density: Density | None = None

    @property
    def dimension(self) -> int:
        """Dimension D of a sample."""
        return math.prod(self.shape)
