"""What is known of a data set before it is loaded, and what it is afterwards; importing this needs no torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from harness.datasets.densities import Density
    from harness.datasets.preprocessing import Preprocessing


@dataclass(frozen=True)
class Declaration(ABC):
    """The name and the sizes of a data set, and how it is loaded.

    Attributes:
        name: Name of the data set in results.
        shape: Shape of one sample.
        splits: Numbers of training, validation and test samples.
        levels: Number of grey levels of a pixel; 0 where samples are not images.
    """

    drawn: ClassVar[bool] = False
    """Whether a seed decides the samples. All other sets are the same for every seed."""

    name: str
    shape: tuple[int, ...]
    splits: tuple[int, int, int]
    levels: int = 0

    @property
    def download_bytes(self) -> int | None:
        """Bytes of the published files of the data set; 0 if none is fetched, None if their sizes are not published."""
        return 0

    def why_unavailable(self, data_dir: Path | None) -> str | None:
        """Say in one line which file of the data set is missing, without reading or downloading any; None if none is.

        Raises:
            InputError: if the data folder does not exist, or a file cannot be the published one by its kind or size.
        """
        return None

    def reachable(self, seconds: float) -> bool:
        """Say whether what is missing can be fetched: whether a server answers within so many seconds."""
        return True

    def prepare(self, data_dir: Path | None) -> tuple[Path, ...]:
        """Download and unpack what is missing, and return the files that `load` will read.

        Raises:
            InputError: if a file is missing and cannot be fetched, or the folder cannot be written.
        """
        return ()

    @abstractmethod
    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        """Read or draw the samples, after `prepare`; the seed decides those of a set that is drawn.

        Raises:
            InputError: if a file is damaged or of the wrong kind.
        """


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
        augment: Whether training images are mirrored and moved at random (`harness.datasets.augmentation`).
        columns: Names of the columns of a user's own table; none where it has none.
    """

    name: str
    shape: tuple[int, ...]
    train: Tensor
    validation: Tensor
    test: Tensor
    preprocessing: Preprocessing
    density: Density | None = None
    augment: bool = False
    columns: tuple[str, ...] = ()

    @property
    def dimension(self) -> int:
        """Dimension D of a sample."""
        return math.prod(self.shape)


def describe(data: Dataset) -> str:
    """Return one line that says what was loaded: the sizes, and the moments of all numbers in the training part."""
    sizes = " / ".join(f"{len(part):,}" for part in (data.train, data.validation, data.test))
    blocks, count = data.train.split(10_000), data.train.numel()
    mean = sum(float(block.double().sum()) for block in blocks) / count
    variance = sum(float((block.double() - mean).square().sum()) for block in blocks) / count
    low, high = (min(float(block.min()) for block in blocks), max(float(block.max()) for block in blocks))
    return (
        f"{data.name}: {sizes} samples to train / validate / test on, D = {data.dimension}; training part: "
        f"mean {mean:.4g}, std {math.sqrt(variance):.4g}, min {low:.4g}, max {high:.4g}"
    )
