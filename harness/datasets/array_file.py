"""A user's own data: an (N, D) array of floats in a `.npy` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import Identity
from harness.errors import InputError

_FEWEST_ROWS = 10


def load(path: Path, seed: int) -> Dataset:
    """Read a `.npy` file and split its rows, shuffled, 80/10/10.

    Args:
        path: file holding an (N, D) array of finite floats, N >= 10. It becomes float64.
        seed: seed of the shuffle.

    Returns:
        A set of shape `(D,)`, named after the file, with no preprocessing.

    Raises:
        InputError: a name that no text can hold, no such file, not a whole `.npy` file, or an array that is not as
            above.
    """
    if not str(path).isprintable():
        raise InputError(f"{path}: results cannot carry this name; rename the file without its odd characters")
    rows = torch.from_numpy(_read(path))
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    tenth = len(rows) // 10
    train, validation, test = rows.split((len(rows) - 2 * tenth, tenth, tenth))
    return Dataset(path.name, (rows.shape[1],), train, validation, test, Identity())


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an existing .npy file")
    try:
        # Mapped, not read: rank and dtype are judged before any data is loaded, and pickles are refused.
        mapped = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy's header parser lets many kinds through, tokenizer errors among them
        raise InputError(
            f"{path}: not a whole .npy file of numbers ({type(error).__name__}); "
            "write it again with numpy.save, from an array of floats"
        ) from error
    if mapped.ndim != 2 or mapped.dtype.kind != "f":
        raise InputError(
            f"{path}: holds {mapped.dtype} of shape {mapped.shape}; save a 2-D floating-point array, one row a sample"
        )
    if mapped.shape[0] < _FEWEST_ROWS or mapped.shape[1] == 0:
        raise InputError(f"{path}: has shape {mapped.shape}; save {_FEWEST_ROWS} rows or more")
    try:
        array = np.array(mapped, dtype=np.float64, order="C")
    except MemoryError as error:
        raise InputError(f"{path}: {mapped.shape} numbers do not fit into memory; give fewer rows") from error
    bad_rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad_rows):
        raise InputError(
            f"{path}: row {bad_rows[0]} (counting from 0) holds NaN or infinity, as do {len(bad_rows)} of "
            f"{len(array)} rows in all; remove or repair them"
        )
    return array
