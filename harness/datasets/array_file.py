"""A user's own data: a table of numbers in a `.npy`, `.csv` or `.parquet` file, one row a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.datasets.dataset import Dataset, Declaration
from harness.datasets.files import State, state_of
from harness.errors import InputError
from harness.methods.seeds import generator

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from torch import Tensor

SUFFIXES = (".npy", ".csv", ".parquet")
FEWEST_ROWS = 10


@dataclass(frozen=True)
class ArrayFile(Declaration):
    """The rows of a file, shuffled and split 80/10/10, the same way for every seed; they become float64.

    Attributes:
        path: The file.
    """

    path: Path = Path()

    def prepare(self, data_dir: Path | None) -> tuple[Path, ...]:
        return (self.path,)

    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        from harness.datasets.preprocessing import Identity

        array, columns = read_rows(self.path)
        train, validation, test = shuffled(array).split(self.splits)
        return Dataset(self.name, self.shape, train, validation, test, Identity(), columns=columns)


def is_file(name: str) -> bool:
    """Return whether the name of a dataset is the path of a user's own file, by its ending."""
    return name.endswith(SUFFIXES)


def declare(path: Path) -> ArrayFile:
    """Declare the table in a file by its sizes: N rows, at least 10, of D numbers.

    Raises:
        InputError: if no text can hold the name, there is no such file, it is not whole, or it is no such table.
    """
    if not str(path).isprintable():
        raise InputError(f"{path}: results cannot carry this name; rename the file without its odd characters")
    shape = _contents(path, dimensions=2).shape
    count, dimension = shape
    if count < FEWEST_ROWS or dimension == 0:
        raise InputError(f"{path}: has shape {shape}; save {FEWEST_ROWS} rows or more")
    tenth = count // 10
    return ArrayFile(path.name, (dimension,), (count - 2 * tenth, tenth, tenth), path=path)


def read_rows(path: Path, columns: Sequence[str] = ()) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a file of numbers.

    Args:
        path: The file.
        columns: The names of the columns to read, in this order; none for all of them. A file without names is read
            as it is.

    Returns:
        The numbers, float64, of shape (N, D), or of any shape in a `.npy` file, and the names of the columns, which
        are none where the file has none.

    Raises:
        InputError: if there is no such file, it is not whole, or it holds anything but finite numbers.
    """
    import numpy as np

    contents = _contents(path)
    names: tuple[str, ...] = ()
    if not isinstance(contents, np.ndarray):
        if not _unnamed(path):
            missing = [name for name in columns if name not in contents.columns]
            if missing:
                raise InputError(f"{path}: has no column {missing[0]!r}; the columns must be {', '.join(columns)}")
            contents = contents.select(columns or contents.columns)
            names = tuple(contents.columns)
        for name, kind in contents.schema.items():
            if not kind.is_numeric():
                raise InputError(f"{path}: column {name!r} holds {kind}, not numbers; leave it out or encode it")
    try:
        array = np.array(contents, dtype=np.float64, order="C")
    except MemoryError as error:
        raise InputError(f"{path}: {contents.shape} numbers do not fit into memory; give fewer rows") from error
    require_finite(array, f"{path}: ")
    return array, names


def require_finite(array: np.ndarray, where: str = "") -> None:
    """Raise an `InputError` that names the first row, counting from 0, with NaN or infinity in it."""
    import numpy as np

    bad_rows = np.flatnonzero(~np.isfinite(array).all(axis=tuple(range(1, array.ndim))))
    if len(bad_rows):
        raise InputError(
            f"{where}row {bad_rows[0]} (counting from 0) holds NaN or infinity, as do {len(bad_rows)} of "
            f"{len(array)} rows in all; remove or repair them"
        )


def shuffled(array: np.ndarray, seed: int = 0) -> Tensor:
    """Return the rows of an array in the random order of a seed; a file has one order, whatever a training's seed."""
    import torch

    return torch.from_numpy(array)[torch.randperm(len(array), generator=generator(seed, "split"))]


def standardized(data: Dataset) -> Dataset:
    """Return a table whose preprocessing takes every column to mean 0 and standard deviation 1 over its training part.

    Raises:
        InputError: if a column has no scale, because all of its values are the same or too large.
    """
    from harness.datasets.preprocessing import Standardize

    mean, scale = data.train.mean(0), data.train.std(0, correction=0)
    for number, spread in enumerate(scale.tolist()):
        if not 0 < spread < float("inf") or bool((data.train[:, number] == data.train[0, number]).all()):
            name = repr(data.columns[number]) if data.columns else f"{number} (counting from 0)"
            reason = "has too large numbers" if spread > 0 else "has one value in all rows, and so no density"
            raise InputError(f"{data.name}: column {name} {reason}; leave it out or change its unit")
    return replace(data, preprocessing=Standardize(tuple(mean.tolist()), tuple(scale.tolist())))


def _contents(path: Path, dimensions: int | None = None) -> np.ndarray | pl.DataFrame:
    """Return the array of a `.npy` file, mapped into memory and not read, or the frame of any other file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an existing {path.suffix} file")
    return _mapped(path, dimensions) if path.suffix == ".npy" else _frame(path, state_of(path))


def _mapped(path: Path, dimensions: int | None) -> np.ndarray:
    """Map an array of this many dimensions, or of any number but 0, into memory without reading it; no pickles."""
    import numpy as np

    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy's header parser lets many kinds through, tokenizer errors among them
        raise InputError(
            f"{path}: not a whole .npy file of numbers ({type(error).__name__}); "
            "write it again with numpy.save, from an array of floats"
        ) from error
    if mapped.dtype.kind not in "fiu" or mapped.ndim != (dimensions or max(1, mapped.ndim)):
        raise InputError(
            f"{path}: holds {mapped.dtype} of shape {mapped.shape}; save a 2-D array of numbers, one row a sample"
        )
    return mapped


@lru_cache(maxsize=1)
def _frame(path: Path, state: State) -> pl.DataFrame:
    """Read a table; the state of the file tells whether one that is kept is still the file's."""
    import polars as pl

    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, has_header=not _unnamed(path), infer_schema_length=None)
    except Exception as error:  # the parsers let many kinds through
        raise InputError(
            f"{path}: not a whole {path.suffix} table ({type(error).__name__}); write it again, one row a sample"
        ) from error


def _unnamed(path: Path) -> bool:
    """Return whether the first line of a `.csv` file is one of numbers, and no header."""
    if path.suffix != ".csv":
        return False
    with path.open(errors="replace") as file:
        first = file.readline()
    try:
        return bool([float(word.strip().strip('"')) for word in first.split(",")])
    except ValueError:
        return False
