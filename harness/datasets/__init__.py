"""The data of the benchmark: synthetic densities, images, patches, published tabular sets, and a user's own tables.

Names, sizes and availability are known without torch and without reading any data.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import lru_cache
from pathlib import Path

from harness.datasets.array_file import SUFFIXES, declare, dequantized, is_file, read_rows, standardized
from harness.datasets.dataset import Dataset, Declaration, describe
from harness.datasets.embedded import DIGITS, PATCHES, SYNTHETIC
from harness.datasets.files import State, sha256_of, state_of
from harness.datasets.image_sets import CIFAR10, FASHION_MNIST, MNIST
from harness.datasets.tabular import TABULAR
from harness.errors import InputError, unknown

__all__ = [
    "DECLARATIONS",
    "dequantized",
    "describe",
    "fetch",
    "fingerprint",
    "is_file",
    "label",
    "load",
    "names",
    "read_rows",
    "shape",
    "splits",
    "standardized",
    "why_unavailable",
]

DECLARATIONS: dict[str, Declaration] = {
    set_.name: set_
    for set_ in sorted(
        (*SYNTHETIC, PATCHES, DIGITS, *TABULAR, MNIST, FASHION_MNIST, CIFAR10), key=lambda set_: math.prod(set_.shape)
    )
}
"""All data sets by name, smallest dimension first."""


def names() -> tuple[str, ...]:
    """Return the names that `load` knows, smallest dimension first."""
    return tuple(DECLARATIONS)


def shape(name: str, columns: tuple[str, ...] = ()) -> tuple[int, ...]:
    """Return the shape of one sample of a data set, by its name or the path and the columns of a user's own file.

    Raises:
        InputError: if the name is unknown, or the file holds no table.
    """
    return _declaration(name, columns).shape


def splits(name: str, data_dir: Path | None = None) -> tuple[int, int, int]:
    """Return how many samples a data set has to train, validate and test on, without loading them.

    The numbers are zero if the data set is not on this machine.
    """
    return _declaration(name).splits if why_unavailable(name, data_dir) is None else (0, 0, 0)


def why_unavailable(name: str, data_dir: Path | None = None) -> str | None:
    """Say in one line why a data set cannot be loaded without the network, or None if all of its files are there.

    Only names, kinds and sizes of files are looked at: `load` alone reads the data, and may still find them damaged.
    """
    try:
        return _declaration(name).why_unavailable(data_dir)
    except InputError as error:
        return str(error)


def fingerprint(name: str) -> str | None:
    """Return the SHA-256 of a user's own file, in hexadecimal; None for a set that its name determines.

    The fingerprint of a file that cannot be read is empty: `load` says what is wrong with it.
    """
    return sha256_of(Path(name)) if is_file(name) else None


def label(name: str, columns: tuple[str, ...] = ()) -> str:
    """Return what results call a data set: its name; for a user's own file with 8 digits of what it holds.

    The digits are those of the file's SHA-256 or, if columns were chosen, of that and the columns: two files of one
    name, and two choices of columns, are two data sets.
    """
    if not (digest := fingerprint(name)):
        return name
    if columns:
        digest = hashlib.sha256(json.dumps([digest, *columns]).encode()).hexdigest()
    return f"{name}@{digest[:8]}"


def fetch(name: str, data_dir: Path | None = None, within: float | None = None) -> None:
    """Download and unpack the published files of a data set, where they are missing, without a word.

    Args:
        name: One of `names()`.
        data_dir: Folder of the published files, as `load` takes it.
        within: Seconds within which a server must answer; None for as long as its answer takes.

    Raises:
        InputError: if the name is unknown, the data folder does not exist or cannot be written, there is no network, or
            a server sends another file.
    """
    import pooch

    declaration = _declaration(name)
    if within is not None and not declaration.reachable(within):
        raise InputError(f"{name} cannot be fetched: no server answers within {within:g} s")
    for handler in pooch.get_logger().handlers:  # the logger itself remembers what it once let through
        handler.setLevel("WARNING")
    declaration.prepare(data_dir)


def load(name: str, data_dir: Path | None = None, *, seed: int = 0, columns: tuple[str, ...] = ()) -> Dataset:
    """Load a data set, downloading its published files where they are missing.

    The last sets loaded are kept, as long as their files stay as they are: do not change their tensors in place.

    Args:
        name: One of `names()`, or the path of a file that holds a table of numbers: `.csv`, `.parquet`,
            `.feather`, `.arrow` or `.npy`.
        data_dir: Folder of the published files: `mnist/`, `fashion-mnist/`, `cifar-10-batches-bin/` and `maf/`, or the
            archives they come in. By default the one that the environment variable HARNESS_DATA_DIR names, else a
            cache of the user's.
        seed: Seed of the synthetic sets; the other sets, a user's own file among them, have fixed splits.
        columns: Columns of a user's own file, by name, or by number from 0 where it has no names; none for all that
            hold numbers.

    Returns:
        The data set.

    Raises:
        InputError: if the name is unknown, the data folder does not exist, a file is missing, damaged or of the wrong
            kind, or there is no network to fetch it.
    """
    declaration = _declaration(name, columns)
    files = declaration.prepare(data_dir)
    return _loaded(declaration, data_dir, seed if declaration.drawn else 0, tuple(state_of(path) for path in files))


@lru_cache(maxsize=2)
def _loaded(declaration: Declaration, data_dir: Path | None, seed: int, files: tuple[State, ...]) -> Dataset:
    return declaration.load(data_dir, seed)


def _declaration(name: str, columns: tuple[str, ...] = ()) -> Declaration:
    if is_file(name):
        return declare(Path(name), columns)
    if name not in DECLARATIONS:
        if Path(name).is_file():
            raise InputError(f"{name}: a file of this kind is not read; write it as {', '.join(SUFFIXES)}")
        raise InputError(
            f"{unknown('dataset', name, DECLARATIONS)} (or give the path of a .csv, .parquet, .feather or .npy)"
        )
    return DECLARATIONS[name]
