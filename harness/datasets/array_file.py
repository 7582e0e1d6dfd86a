"""A user's own data: an (N, D) array of floats in a `.npy` file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.datasets.dataset import Dataset, Declaration
from harness.errors import InputError
from harness.methods.seeds import generator

if TYPE_CHECKING:
    import numpy as np

_FEWEST_ROWS = 10


@dataclass(frozen=True)
class ArrayFile(Declaration):
    """The rows of a `.npy` file, shuffled and split 80/10/10, the same way for every seed; they become float64.

    Attributes:
        path: The file.
    """

    path: Path = Path()

    def prepare(self, data_dir: Path | None) -> tuple[Path, ...]:
        return (self.path,)

    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        import numpy as np
        import torch

        from harness.datasets.preprocessing import Identity

        mapped = _mapped(self.path)
        try:
            array = np.array(mapped, dtype=np.float64, order="C")
        except MemoryError as error:
            raise InputError(f"{self.path}: {mapped.shape} numbers do not fit into memory; give fewer rows") from error
        bad_rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad_rows):
            raise InputError(
                f"{self.path}: row {bad_rows[0]} (counting from 0) holds NaN or infinity, as do {len(bad_rows)} of "
                f"{len(array)} rows in all; remove or repair them"
            )
        rows = torch.from_numpy(array)
        rows = rows[torch.randperm(len(rows), generator=generator(0, "split"))]
        train, validation, test = rows.split(self.splits)
        return Dataset(self.name, self.shape, train, validation, test, Identity())


def declare(path: Path) -> ArrayFile:
    """Declare the (N, D) array of floats in a `.npy` file, N >= 10, by the header of the file: no data are read.

    Raises:
        InputError: if no text can hold the name, there is no such file, it is not a whole `.npy` file, or its array is
            of another kind or shape.
    """
    if not str(path).isprintable():
        raise InputError(f"{path}: results cannot carry this name; rename the file without its odd characters")
    count, dimension = _mapped(path).shape
    tenth = count // 10
    return ArrayFile(path.name, (dimension,), (count - 2 * tenth, tenth, tenth), path=path)


def _mapped(path: Path) -> np.ndarray:
    """Map the array of a file into memory without reading it; pickles are refused."""
    import numpy as np

    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an existing .npy file")
    try:
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
    return mapped
