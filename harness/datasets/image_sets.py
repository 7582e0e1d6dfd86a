"""MNIST, Fashion-MNIST and CIFAR-10, in the files of their authors.

Fashion-MNIST: https://github.com/zalandoresearch/fashion-mnist. CIFAR-10: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.datasets import files
from harness.datasets.dataset import Dataset
from harness.datasets.files import Archive, PublishedFile, PublishedSet

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImageSet(PublishedSet):
    """Published images, in `uint8`: the last of the files is the test set, the end of the others the validation set.

    Attributes:
        header: Number of bytes before the first image of a file.
        label: Number of bytes before the pixels of an image.
    """

    header: int = 0
    label: int = 0

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


def _of_mnist(place: str, address: str, known_hash: str, packed_size: int, packed_hash: str) -> Archive:
    """Declare a file in MNIST's layout: 16 bytes, and then 60,000 training or 10,000 test images."""
    content = PublishedFile(place, 16 + (60_000 if "train" in place else 10_000) * 28 * 28, known_hash)
    return Archive(f"{place}.gz", packed_size, packed_hash, f"{address}/{Path(place).name}.gz", (content,))


_MNIST_ARCHIVES = (
    _of_mnist(
        "mnist/train-images-idx3-ubyte",
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    _of_mnist(
        "mnist/t10k-images-idx3-ubyte",
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
)
# The authors publish the MD5 of the packed files. The SHA-256 are of the images inside, and are checked too.
_FASHION_ARCHIVES = (
    _of_mnist(
        "fashion-mnist/train-images-idx3-ubyte",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        26_421_880,
        "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ),
    _of_mnist(
        "fashion-mnist/t10k-images-idx3-ubyte",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        4_422_102,
        "md5:bef4ecab320f06d8554ea6380940ec79",
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
MNIST, FASHION_MNIST = (
    ImageSet(name, (1, 28, 28), (50_000, 10_000, 10_000), levels=256, archives=archives, header=16)
    for name, archives in {"mnist": _MNIST_ARCHIVES, "fashion-mnist": _FASHION_ARCHIVES}.items()
)
CIFAR10 = ImageSet("cifar10", (3, 32, 32), (40_000, 10_000, 10_000), levels=256, archives=(_CIFAR10_ARCHIVE,), label=1)
