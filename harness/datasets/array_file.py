"""A user's own data: a table of numbers in a file of one of `SUFFIXES`, one row a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.datasets.dataset import Dataset, Declaration
from harness.datasets.files import State, state_of
from harness.errors import InputError, listed
from harness.methods.seeds import generator

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from torch import Tensor

SUFFIXES = (".npy", ".csv", ".parquet", ".feather", ".arrow")
FEWEST_ROWS = 10
_SEPARATORS = ",;\t"
_MISSING = ["", "NA", "N/A", "NULL", "null", "None", "?"]  # what stands in a .csv file for no number


@dataclass(frozen=True)
class ArrayFile(Declaration):
    """The rows of a file, shuffled and split 80/10/10, the same way for every seed; they become float64.

    Attributes:
        path: The file.
        columns: The columns that were chosen; none for all that hold numbers.
    """

    path: Path = Path()
    columns: tuple[str, ...] = ()

    def prepare(self, data_dir: Path | None) -> tuple[Path, ...]:
        return (self.path,)

    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        from harness.datasets.preprocessing import Identity

        array, columns, _ = read_rows(self.path, self.columns)
        train, validation, test = shuffled(array).split(self.splits)
        return Dataset(self.name, self.shape, train, validation, test, Identity(), columns=columns)


def is_file(name: str) -> bool:
    """Return whether the name of a dataset is the path of a user's own file, by its ending."""
    return name.lower().endswith(SUFFIXES)


def declare(path: Path, columns: tuple[str, ...] = ()) -> ArrayFile:
    """Declare the table in a file by its sizes: N rows, at least 10, of D numbers.

    Args:
        path: The file.
        columns: The names of the columns to use, or their numbers from 0 in a file without names. All columns of
            numbers are used if there are none.

    Raises:
        InputError: if no text can hold the name, there is no such file, it is not whole, it is no such table, or it has
            no such column.
    """
    if not str(path).isprintable():
        raise InputError(f"{path}: results cannot carry this name; rename the file without its odd characters")
    contents, names, left_out = _chosen(path, columns, dimensions=2)
    if columns and names != columns:
        raise InputError(f"{path}: has no names of columns; give the numbers of the columns, counting from 0")
    count, dimension = contents.shape
    if dimension == 0 and left_out:
        raise InputError(f"{path}: has no column of numbers, only {listed(left_out)}; encode what they hold")
    if count < FEWEST_ROWS or dimension == 0:
        raise InputError(f"{path}: has shape {contents.shape}; save {FEWEST_ROWS} rows or more")
    tenth = count // 10
    splits = (count - 2 * tenth, tenth, tenth)
    return ArrayFile(path.name, (dimension,), splits, path=path, columns=columns)


def read_rows(
    path: Path, columns: Sequence[str] = (), *, finite: bool = True
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Read a file of numbers.

    Args:
        path: The file.
        columns: The names of the columns to read, in this order; none for all that hold numbers. Columns of a file
            without names are chosen by their numbers from 0, and all of them are read if names are given.
        finite: Whether numbers that are missing, NaN or infinite are refused; otherwise missing ones become NaN.

    Returns:
        The numbers, float64, of shape (N, D), or of any shape in a `.npy` file; the names of the columns, which are
        none where the file has none; and the columns left out because they hold no numbers, with their types.

    Raises:
        InputError: if there is no such file, it is not whole, or it holds anything but finite numbers.
    """
    import numpy as np
    import polars as pl

    contents, names, left_out = _chosen(path, tuple(columns))
    try:
        if not isinstance(contents, np.ndarray):
            contents = contents.cast(pl.Float64).to_numpy()
        array = np.array(contents, dtype=np.float64, order="C")
    except MemoryError as error:
        raise InputError(f"{path}: {contents.shape} numbers do not fit into memory; give fewer rows") from error
    if finite:
        require_finite(array, f"{path}: ")
    return array, names, left_out


def require_finite(array: np.ndarray, where: str = "") -> None:
    """Raise an `InputError` that names the first row and column, counting from 0, with NaN or infinity in it."""
    import numpy as np

    bad_rows = np.flatnonzero(~np.isfinite(array).all(axis=tuple(range(1, array.ndim))))
    if len(bad_rows):
        row, *place = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InputError(
            f"{where}row {row} (counting from 0) holds NaN or infinity, as do {len(bad_rows)} of {len(array)} rows in "
            f"all ({array[(row, *place)]:g} in column {', '.join(map(str, place))}); remove or repair them"
        )


def shuffled(array: np.ndarray, seed: int = 0) -> Tensor:
    """Return the rows of an array in the random order of a seed; a file has one order, whatever a training's seed."""
    import torch

    return torch.from_numpy(array)[torch.randperm(len(array), generator=generator(seed, "split"))]


def dequantized(data: Dataset) -> Dataset:
    """Return a table whose preprocessing adds uniform noise of one step to the columns that hold rounded values."""
    import torch

    from harness.datasets.preprocessing import Standardize
    from harness.datasets.table_checks import step

    columns = torch.cat([data.train, data.validation, data.test]).T
    width, origin = tuple(step(column.numpy()) for column in columns), tuple(columns.amin(1).tolist())
    count = len(width)
    if not any(width):
        return data
    return replace(data, preprocessing=Standardize((0.0,) * count, (1.0,) * count, width, origin))


def standardized(data: Dataset) -> Dataset:
    """Return a table whose preprocessing takes every column to mean 0 and standard deviation 1 over its training part.

    The noise of a table that is `dequantized` stays, and counts in mean and standard deviation.

    Raises:
        InputError: if a column has no scale, because all of its values are the same or too large.
    """
    from harness.datasets.preprocessing import Standardize

    before = data.preprocessing if isinstance(data.preprocessing, Standardize) else Standardize((), ())
    mean = data.train.mean(0)
    offset = data.train - mean
    largest = offset.abs().amax(0)  # the square of a number above 1e154 is infinite
    scale = largest * (offset / largest).square().mean(0).sqrt()
    for number, spread in enumerate(scale.tolist()):
        constant = bool((data.train[:, number] == data.train[0, number]).all())
        if constant or not 0 < spread < float("inf"):
            name = repr(data.columns[number]) if data.columns else f"{number} (counting from 0)"
            reason = "has one value in all rows, and so no density" if constant else "has too large numbers"
            raise InputError(f"{data.name}: column {name} {reason}; leave it out or change its unit")
    if before.width:
        noise = mean.new_tensor(before.width)
        mean, scale = mean + noise / 2, (noise / math.sqrt(12)).hypot(scale)
    preprocessing = Standardize(tuple(mean.tolist()), tuple(scale.tolist()), before.width, before.origin)
    return replace(data, preprocessing=preprocessing)


def _chosen(
    path: Path, columns: tuple[str, ...], dimensions: int | None = None
) -> tuple[np.ndarray | pl.DataFrame, tuple[str, ...], list[str]]:
    """Return the chosen columns of a file or all that hold numbers, their names, and the others with their types."""
    import numpy as np

    contents = _contents(path, dimensions)
    unnamed = isinstance(contents, np.ndarray) or _unnamed(path)
    if unnamed and not all(column.isdecimal() for column in columns):
        columns = ()
    if isinstance(contents, np.ndarray):
        if columns and contents.ndim != 2:
            raise InputError(f"{path}: holds an array of shape {contents.shape}, which has no columns to choose")
        known = [str(number) for number in range(contents.shape[-1])]
    else:
        known = contents.columns
    missing = [column for column in columns if column not in known]
    if missing:
        raise InputError(
            f"{path}: has no column {missing[0]!r}, only {listed(known)}; the columns must be {', '.join(columns)}"
        )
    if len(set(columns)) < len(columns):
        raise InputError(f"{path}: a column is asked for twice; the columns must differ, not {', '.join(columns)}")
    if isinstance(contents, np.ndarray):
        return (contents[:, [int(column) for column in columns]] if columns else contents), columns, []
    kinds = contents.schema
    for name in columns:
        if not kinds[name].is_numeric():
            raise InputError(f"{path}: column {name!r} holds {kinds[name]}, not numbers; leave it out or encode it")
    left_out = [f"{name!r} ({kind})" for name, kind in kinds.items() if not columns and not kind.is_numeric()]
    chosen = columns or tuple(name for name, kind in kinds.items() if kind.is_numeric())
    return contents.select(chosen), () if unnamed and not columns and not left_out else chosen, left_out


def _contents(path: Path, dimensions: int | None = None) -> np.ndarray | pl.DataFrame:
    """Return the array of a `.npy` file, mapped into memory and not read, or the frame of any other file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an existing {path.suffix} file")
    return _mapped(path, dimensions) if _kind(path) == ".npy" else _frame(path, state_of(path))


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
        if _kind(path) == ".parquet":
            return pl.read_parquet(path)
        if _kind(path) != ".csv":
            return pl.read_ipc(path.read_bytes())
        unnamed, separator = _unnamed(path), _separator(_first_line(path))
        frame = pl.read_csv(
            path, has_header=not unnamed, separator=separator, infer_schema_length=None, null_values=_MISSING
        )
        if unnamed:
            frame = frame.rename(lambda name: str(frame.columns.index(name)))
        return _without_spaces(frame)
    except Exception as error:  # the parsers let many kinds through
        raise InputError(
            f"{path}: not a whole {path.suffix} table ({type(error).__name__}); write it again, one row a sample"
        ) from error


def _without_spaces(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table without the spaces around its words, and before its names; words that are numbers become such."""
    import polars as pl

    if frame.width > 1 and all(name.startswith(" ") for name in frame.columns[1:]):
        frame = frame.rename(str.lstrip)
    columns = []
    for column in frame:
        if column.dtype == pl.String:
            words = column.str.strip_chars()
            words = words.set(words.is_in(_MISSING), None)
            numbers = words.cast(pl.Float64, strict=False)
            column = numbers if numbers.null_count() == words.null_count() < len(words) else column
        columns.append(column)
    return pl.DataFrame(columns)


def _unnamed(path: Path) -> bool:
    """Return whether the first line of a `.csv` file is one of numbers, and no header."""
    if _kind(path) != ".csv":
        return False
    first = _first_line(path)
    try:
        return bool([float(word.strip().strip('"')) for word in first.split(_separator(first))])
    except ValueError:
        return False


def _separator(line: str) -> str:
    """Return what separates the words of a line of a `.csv` file: a comma, or what stands there in its place."""
    return max(_SEPARATORS, key=line.count)


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:  # Excel begins with a mark of the byte order
        return file.readline()


def _kind(path: Path) -> str:
    """Return the ending of a file, which may be written in capitals."""
    return path.suffix.lower()
