"""CIFAR-10 in the binary files of its authors, https://www.cs.toronto.edu/~kriz/cifar.html."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness.datasets import files
from harness.errors import InputError
from harness.results.whole_file import put

if TYPE_CHECKING:
    from torch import Tensor

    from harness.datasets.dataset import Dataset


_FOLDER = "cifar-10-batches-bin"
_ARCHIVE = "cifar-10-binary.tar.gz"
_ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
_URL = f"https://www.cs.toronto.edu/~kriz/{_ARCHIVE}"
_VALIDATION = 10_000
_IMAGES_A_FILE = 10_000
_RECORD = 1 + 3 * 32 * 32  # bytes: a label and the pixels


def load(folder: Path) -> Dataset:
    """Load CIFAR-10: the first 40,000 training images, the last 10,000 as validation, the 10,000 test images.

    Args:
        folder: data folder with the six files of `cifar-10-batches-bin/`, or `cifar-10-binary.tar.gz`, which
            is downloaded if both are missing, and unpacked into it.

    Returns:
        A set of shape `(3, 32, 32)` in `uint8`.

    Raises:
        InputError: a file is not the published one, is missing and cannot be downloaded, or cannot be
            unpacked.
    """
    import torch

    from harness.datasets.dataset import Dataset
    from harness.datasets.preprocessing import LogitPreprocessing

    if _missing(folder):
        archive = folder / _ARCHIVE
        if not archive.exists():
            files.download(_URL, archive, _ARCHIVE_SHA256)
        _unpack(archive)
    *train, test = (_images(folder / _FOLDER / name, sha256) for name, sha256 in _SHA256.items())
    images = torch.cat(train)
    return Dataset(
        "cifar10",
        (3, 32, 32),
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
    missing = _missing(folder)
    for name, sha256 in _SHA256.items():
        if name not in missing:
            files.read(folder / _FOLDER / name, sha256)
    if not missing:
        return None
    if (folder / _ARCHIVE).exists():
        files.read(folder / _ARCHIVE, _ARCHIVE_SHA256)
        return None
    return f"{folder / _FOLDER / missing[0]} is missing: loading cifar10 downloads {_URL}"


def _missing(folder: Path) -> list[str]:
    return [name for name in _SHA256 if not (folder / _FOLDER / name).exists()]


def _unpack(archive: Path) -> None:
    """Put the archive's missing files into the data folder, each complete from the moment it has its name.

    Only regular members of known names and sizes are looked at, and only their bytes are used: what else an archive
    may hold (other paths, links, devices, owners, modes) comes to nothing.
    """
    content = files.read(archive, _ARCHIVE_SHA256)
    folder = archive.parent
    with files.writing(folder), tarfile.open(fileobj=io.BytesIO(content)) as tar:
        (folder / _FOLDER).mkdir(exist_ok=True)
        for name in _missing(folder):
            member = next((found for found in tar if found.name == f"{_FOLDER}/{name}"), None)
            if member is None or not member.isreg() or member.size != _IMAGES_A_FILE * _RECORD:
                raise InputError(f"{archive}: its {name} is no file of images; delete it, and it will be fetched again")
            put(folder / _FOLDER / name, tar.extractfile(member).read())


def _images(path: Path, sha256: str) -> Tensor:
    """Images of one file, `(N, 3, 32, 32)`: each record is a label byte and 3 x 32 x 32 pixels."""
    import numpy as np
    import torch

    records = np.frombuffer(files.read(path, sha256), np.uint8).reshape(_IMAGES_A_FILE, _RECORD)
    return torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy())
