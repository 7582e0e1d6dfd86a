"""MNIST and CIFAR-10, in the files of their authors (CIFAR-10: https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.datasets import files
from harness.datasets.dataset import Dataset, Declaration
from harness.datasets.files import Archive, PublishedFile

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImageSet(Declaration):
    """Published images, in `uint8`: the last of the files is the test set, the end of the others the validation set.

    Attributes:
        archives: Where the files come from, in the order of the images.
        header: Number of bytes before the first image of a file.
        label: Number of bytes before the pixels of an image.
    """

    archives: tuple[Archive, ...] = ()
    header: int = 0
    label: int = 0

    @property
    def download_bytes(self) -> int:
        return sum(archive.size for archive in self.archives)

    def why_unavailable(self, data_dir: Path | None) -> str | None:
        folder = files.data_folder(data_dir)
        for archive in self.archives:
            missing = archive.missing(folder)
            if missing and not archive.is_in(folder):
                where = "" if data_dir is None else f" --data-dir {data_dir}"
                return f"{folder / missing[0].place} is missing: harness fetch {self.name}{where}"
        return None

    def reachable(self, seconds: float) -> bool:
        return files.answers(self.archives[0].url, seconds)

    def prepare(self, data_dir: Path | None) -> tuple[Path, ...]:
        folder = files.data_folder(data_dir)
        for archive in self.archives:
            if archive.missing(folder):
                if not archive.is_in(folder):
                    files.download(archive, folder)
                if len(archive.contents) > 1:
                    files.untar(archive, folder)
        needed = [[archive] if archive.missing(folder) else archive.contents for archive in self.archives]
        return tuple(folder / file.place for files_ in needed for file in files_)

    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        import torch

        from harness.datasets.preprocessing import LogitPreprocessing

        folder = files.data_folder(data_dir)
        *training, test = (self._images(content) for archive in self.archives for content in archive.read(folder))
        train, validation = torch.cat(training).split(self.splits[:2])
        return Dataset(self.name, self.shape, train, validation, test, LogitPreprocessing(self.levels))

    def _images(self, content: bytes) -> Tensor:
        """Cut the content of a file into images, shape (N, C, H, W)."""
        import numpy as np
        import torch

        records = np.frombuffer(content, np.uint8, offset=self.header).reshape(-1, self.label + math.prod(self.shape))
        return torch.from_numpy(records[:, self.label :].reshape(-1, *self.shape).copy())


def _of_mnist(name: str, images: int, sha256: str, packed_size: int, packed_sha256: str) -> Archive:
    place, url = f"mnist/{name}", f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz"
    content = PublishedFile(place, 16 + images * 28 * 28, sha256)
    return Archive(f"{place}.gz", packed_size, packed_sha256, url, (content,))


_MNIST_ARCHIVES = (
    _of_mnist(
        "train-images-idx3-ubyte",
        60_000,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    _of_mnist(
        "t10k-images-idx3-ubyte",
        10_000,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
)
_CIFAR10_FILES = tuple(
    PublishedFile(f"cifar-10-batches-bin/{name}.bin", 10_000 * (1 + 3 * 32 * 32), sha256)
    for name, sha256 in {
        "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    }.items()
)
_CIFAR10_ARCHIVE = Archive(
    "cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    _CIFAR10_FILES,
)

# The header of a file of MNIST is a format number, and the numbers of images, rows and columns.
MNIST = ImageSet("mnist", (1, 28, 28), (50_000, 10_000, 10_000), levels=256, archives=_MNIST_ARCHIVES, header=16)
CIFAR10 = ImageSet("cifar10", (3, 32, 32), (40_000, 10_000, 10_000), levels=256, archives=(_CIFAR10_ARCHIVE,), label=1)
