"""MNIST in the IDX files of its authors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.datasets import files

if TYPE_CHECKING:
    from torch import Tensor

    from harness.datasets.dataset import Dataset


@dataclass(frozen=True)
class _IdxFile:
    name: str
    images: int
    sha256: str
    sha256_gz: str

    @property
    def size(self) -> int:
        """Bytes: a header of four integers, and the pixels."""
        return 16 + self.images * 28 * 28


_TRAIN = _IdxFile(
    "train-images-idx3-ubyte",
    60_000,
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
)
_TEST = _IdxFile(
    "t10k-images-idx3-ubyte",
    10_000,
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
)
_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_VALIDATION = 10_000
_MAGIC = 2051  # unsigned bytes in three dimensions


def load(folder: Path) -> Dataset:
    """Load MNIST: the first 50,000 training images, the last 10,000 as validation, the 10,000 test images.

    Args:
        folder: data folder with `mnist/train-images-idx3-ubyte` and `mnist/t10k-images-idx3-ubyte`, plain or
            `.gz`; a missing one is downloaded into it.

    Returns:
        A set of shape `(1, 28, 28)` in `uint8`.

    Raises:
        InputError: a file is not the published one, or is missing and cannot be downloaded.
    """
    from harness.datasets.dataset import Dataset
    from harness.datasets.preprocessing import LogitPreprocessing

    images, test = _images(folder, _TRAIN), _images(folder, _TEST)
    return Dataset(
        "mnist",
        (1, 28, 28),
        images[:-_VALIDATION],
        images[-_VALIDATION:],
        test,
        LogitPreprocessing(levels=256, alpha=0.5),
    )


def why_unavailable(folder: Path) -> str | None:
    """Say in one line which file is missing from the data folder; None if none is.

    Args:
        folder: data folder, as for `load`.

    Raises:
        InputError: a file is there, but is not the published one.
    """
    for file in (_TRAIN, _TEST):
        if _local(folder, file) is None:
            return f"{folder / 'mnist' / file.name} is missing: loading mnist downloads {_URL}{file.name}.gz"
    return None


def _images(folder: Path, file: _IdxFile) -> Tensor:
    import numpy as np
    import torch

    content = _local(folder, file)
    if content is None:
        archive = folder / "mnist" / f"{file.name}.gz"
        files.download(f"{_URL}{archive.name}", archive, file.sha256_gz)
        content = files.gunzip(archive, file.sha256_gz, file.size)
    assert np.frombuffer(content, ">i4", count=4).tolist() == [_MAGIC, file.images, 28, 28]
    pixels = np.frombuffer(content, np.uint8, offset=16)
    return torch.from_numpy(pixels.reshape(file.images, 1, 28, 28).copy())


def _local(folder: Path, file: _IdxFile) -> bytes | None:
    """Content of the file in the data folder, None if it is not there."""
    plain = folder / "mnist" / file.name
    archive = plain.with_name(f"{file.name}.gz")
    if plain.exists():
        return files.read(plain, file.sha256)
    if archive.exists():
        return files.gunzip(archive, file.sha256_gz, file.size)
    return None
