"""The data of the benchmark: synthetic densities, digits, MNIST, CIFAR-10, and a user's own arrays.

Names and availability are known without torch; what computes is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.datasets import cifar10, files, mnist
from harness.errors import InputError, unknown

if TYPE_CHECKING:
    from harness.datasets.dataset import Dataset
    from harness.datasets.densities import Checkerboard, Density, Multimodal, Sine, Swirl
    from harness.datasets.preprocessing import Dequantize, GaussianNoise, Identity, LogitPreprocessing, Preprocessing

__all__ = [
    "Checkerboard",
    "Dataset",
    "Density",
    "Dequantize",
    "GaussianNoise",
    "Identity",
    "LogitPreprocessing",
    "Multimodal",
    "Preprocessing",
    "Sine",
    "Swirl",
    "fingerprint",
    "load",
    "names",
    "why_unavailable",
]

_SYNTHETIC = ("sine", "swirl", "checkerboard", "multimodal10")
_PUBLISHED = {"mnist": mnist, "cifar10": cifar10}
_MODULES = ("dataset", "densities", "preprocessing")  # where the classes of `__all__` are defined


def __getattr__(name: str) -> Any:
    """Return a class of this package, from its module."""
    if name in __all__:
        for module in _MODULES:
            if (found := vars(import_module(f"{__name__}.{module}")).get(name)) is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def names() -> tuple[str, ...]:
    """Names that `load` knows, smallest dimension first."""
    return (*_SYNTHETIC, "digits", *_PUBLISHED)


def why_unavailable(name: str, data_dir: Path | None = None) -> str | None:
    """Say why a set cannot be loaded without the network. Never downloads.

    Args:
        name: a name or a path, as for `load`.
        data_dir: data folder, as for `load`.

    Returns:
        One line: what is missing, or what `load` would complain of. None if `load` would succeed offline.
    """
    try:
        if name in _PUBLISHED:
            return _PUBLISHED[name].why_unavailable(files.data_folder(data_dir))
        if name not in names():
            load(name)
    except InputError as error:
        return str(error)
    return None


def fingerprint(name: str) -> str | None:
    """Return the SHA-256 of a user's own file, in hexadecimal; None for a set that its name determines.

    A file that cannot be read has an empty one: `load` says what is wrong with it.
    """
    return files.sha256_of(Path(name)) if name.endswith(".npy") else None


def load(name: str, data_dir: Path | None = None, *, seed: int = 0) -> Dataset:
    """Load a data set, downloading its published files where they are missing.

    Args:
        name: one of `names()`, or the path of a `.npy` file that holds an (N, D) array of floats.
        data_dir: folder of the published files: `mnist/` and `cifar-10-batches-bin/`, or the archives they
            come in. By default the one that the environment variable HARNESS_DATA_DIR names, else a cache of
            the user's.
        seed: seed of the synthetic sets and of the split of a `.npy` file; the other sets have fixed splits.

    Returns:
        The data set.

    Raises:
        InputError: an unknown name, a data folder that does not exist, a file that is missing, damaged or of
            the wrong kind, or no network to fetch it.
    """
    if name.endswith(".npy"):
        from harness.datasets import array_file

        return array_file.load(Path(name), seed)
    if name in _SYNTHETIC:
        from harness.datasets import synthetic as points

        return points.load(name, seed)
    if name == "digits":
        from harness.datasets import digits

        return digits.load()
    if name in _PUBLISHED:
        return _PUBLISHED[name].load(files.data_folder(data_dir))
    raise InputError(f"{unknown('dataset', name, names())} (or give the path of a .npy file)")


_SHAPES = {
    "sine": (2,),
    "swirl": (2,),
    "checkerboard": (2,),
    "multimodal10": (10,),
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
}


def shape(name: str) -> tuple[int, ...]:
    """TEMP."""
    return _SHAPES[name] if name in _SHAPES else load(name).shape


def training_samples(name: str, data_dir: Path | None = None) -> int:
    """TEMP."""
    return 0 if why_unavailable(name, data_dir) is not None else len(load(name, data_dir).train)
