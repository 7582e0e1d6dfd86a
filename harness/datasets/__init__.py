"""The data of the benchmark: synthetic densities, digits, MNIST, CIFAR-10, and a user's own arrays."""

from __future__ import annotations

from pathlib import Path

from harness.datasets import array_file, cifar10, digits, files, mnist, points
from harness.datasets.base import Dataset
from harness.datasets.densities import Checkerboard, Density, Multimodal, Sine, Swirl
from harness.datasets.preprocessing import (
    Dequantize,
    GaussianNoise,
    Identity,
    LogitPreprocessing,
    Preprocessing,
)
from harness.errors import InputError, unknown

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
    "load",
    "names",
    "why_unavailable",
]

_PUBLISHED = {"mnist": mnist, "cifar10": cifar10}


def names() -> tuple[str, ...]:
    """Names that `load` knows, smallest dimension first."""
    return (*points.DENSITIES, "digits", *_PUBLISHED)


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
        return array_file.load(Path(name), seed)
    if name in points.DENSITIES:
        return points.load(name, seed)
    if name == "digits":
        return digits.load()
    if name in _PUBLISHED:
        return _PUBLISHED[name].load(files.data_folder(data_dir))
    raise InputError(f"{unknown('dataset', name, names())} (or give the path of a .npy file)")
