"""The store of results: one file a cell, whole or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from harness.errors import InputError, printable
from harness.results.derived import derived
from harness.results.file import NewerFileError, UnreadableFileError, altered, complaint, dump, load
from harness.results.schema import Row, reproducible, to_frame
from harness.results.seal import BLANK, KEY, check_seal, seal
from harness.results.whole_file import put

if TYPE_CHECKING:
    import numpy as np


_ARRAYS = ".safetensors"
_LARGEST = 2**28  # bytes; a file of rows has some ten thousand, one of arrays some million


@dataclass
class Merged:
    """What merging another store did.

    Args:
        taken: How many cells were missing or unfinished here.
        known: How many were here.
        left_out: How many could not be read there.
        notes: A line for each cell that was left out, or whose results differ from those that are here.
    """

    taken: int = 0
    known: int = 0
    left_out: int = 0
    notes: list[str] = field(default_factory=list)


class Store:
    """A folder with one Parquet file a cell, named after what determines it, and beside it the cell's arrays if any.

    A file is written beside its place, synced and renamed, so that a kill loses at most the running cell, and of two
    processes that write one cell the later wins, whole. A file that is not the cell it should be is named in `notes`
    and moved to the folder's ``damaged``; the others are read.

    Args:
        folder: Made when the first cell is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []

    def prepare(self) -> None:
        """Make the folder and try to write in it, before work is done whose result could not be kept.

        Raises:
            InputError: It cannot be made or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(b"\0")
        except OSError as error:
            raise InputError(
                f"the results folder {self.folder} cannot be written ({error.strerror}); choose another --results-dir"
            ) from error

    def path(self, experiment: str, cell: str) -> Path:
        """Return where a cell lies."""
        return self.folder / "cells" / experiment / f"{cell}.parquet"

    def write(self, rows: Sequence[Row], arrays: Mapping[str, np.ndarray] | None = None) -> Path:
        """Keep the rows of one cell, replacing what was there, and before them its arrays.

        Raises:
            InputError: The disk is full, or the folder cannot be written any more.
            ValueError: They could not be read again, such as a value that is not finite. A number that was not measured
                has a status and a reason instead.
        """
        frame = to_frame(rows)
        if (reason := complaint(frame, rows[0].experiment, rows[0].cell)) is not None:
            raise ValueError(f"the rows of {rows[0].method} cannot be kept: {reason}")
        path = self.path(rows[0].experiment, rows[0].cell)
        if arrays:
            import safetensors.numpy

            _place(path.with_suffix(_ARRAYS), seal(safetensors.numpy.save(dict(arrays), {KEY: BLANK})))
        else:
            path.with_suffix(_ARRAYS).unlink(missing_ok=True)
        _place(path, dump(frame))
        return path

    def arrays(self, experiment: str, cell: str) -> dict[str, np.ndarray]:
        """Return the arrays of one cell by name; none if it has none or their file is damaged."""
        import safetensors.numpy

        path = self.path(experiment, cell).with_suffix(_ARRAYS)
        try:
            content, _ = _content(path)
            check_seal(content)
            return safetensors.numpy.load(content)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            self._note(f"{path}: no readable arrays ({error}); a new run with --fresh makes them again")
            return {}

    def read(self, experiment: str, cell: str) -> list[Row]:
        """Return the rows of one cell; none if it was never finished or its file is damaged.

        Raises:
            InputError: The file is of a later version of this program, and would be overwritten.
        """
        path = self.path(experiment, cell)
        try:
            frame, damage = self._load(path)
        except NewerFileError as error:
            raise InputError(f"{path}: {error}, or choose another --results-dir") from None
        except OSError:
            return []
        if damage is not None:
            self._set_aside(path, damage)
        return [Row(**row) for row in frame.iter_rows(named=True)]

    def frame(self) -> tuple[pl.DataFrame, list[str]]:
        """Return all rows with the columns of `derived`, and one line for every file that could not be read so far."""
        return derived(pl.concat([to_frame([]), *(frame for _, frame in self._cells())])), self.notes

    def verify(self) -> int:
        """Check every file against its place, its digest and its key; what is wrong is in `notes`.

        Returns:
            How many cells are as they should be.
        """
        good = 0
        for path, frame in self._cells():
            self.arrays(path.parent.name, path.stem)  # named if they are damaged
            if (reason := altered(frame)) is not None:
                self._set_aside(path, _Damage(reason, _mark(path.stat())))
            else:
                good += 1
        for path in sorted(self.folder.glob("cells/**/*")):
            cell = path.parent.parent.parent == self.folder and path.suffix in (".parquet", _ARRAYS)
            if path.is_file() and not cell and not path.name.startswith("."):
                self._note(f"{path}: not a cell's file; left where it is")
        return good

    def merge(self, other: Store) -> Merged:
        """Take the cells of another store that this one lacks or has unfinished, in files of today's version.

        The other store is only read.
        """
        merged = Merged()
        for path in other._files():
            experiment, cell = path.parent.name, path.stem
            try:
                theirs = load(_content(path)[0], experiment, cell)
                if (reason := altered(theirs)) is not None:
                    raise UnreadableFileError(reason)
            except (OSError, UnreadableFileError) as error:
                merged.left_out += 1
                merged.notes.append(f"{path}: left out: {error}")
                continue
            mine = to_frame(self.read(experiment, cell))
            if mine.is_empty() or (not _finished(mine) and _finished(theirs)):
                self.write([Row(**row) for row in theirs.iter_rows(named=True)], other.arrays(experiment, cell))
                merged.taken += 1
                continue
            merged.known += 1
            if _finished(theirs) and not reproducible(theirs).equals(reproducible(mine)):
                merged.notes.append(f"{path}: other results than the same cell has in {self.folder}, which stay")
        return merged

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("cells/*/*.parquet"))

    def _cells(self) -> Iterator[tuple[Path, pl.DataFrame]]:
        """Yield every cell that can be read; name and set aside every other."""
        for path in self._files():
            try:
                frame, damage = self._load(path)
            except (NewerFileError, OSError) as error:
                self._note(f"{path}: not read: {error}")
                continue
            if damage is not None:
                self._set_aside(path, damage)
            else:
                yield path, frame

    def _load(self, path: Path) -> tuple[pl.DataFrame, _Damage | None]:
        """Read one file: its rows, or none and what is wrong with it."""
        content, mark = _content(path)
        try:
            return load(content, path.parent.name, path.stem), None
        except NewerFileError:
            raise
        except UnreadableFileError as error:
            return to_frame([]), _Damage(str(error), mark)

    def _set_aside(self, path: Path, damage: _Damage) -> None:
        aside = self.folder / "damaged" / path.parent.name
        try:
            aside.mkdir(parents=True, exist_ok=True)
            names = (f"{path.stem}{suffix}.parquet" for suffix in ("", *(f"-{number}" for number in range(1, 1000))))
            place = next(aside / name for name in names if not (aside / name).exists())
            # Another process may have put a whole file there by now, which must stay.
            if _mark(path.stat()) == damage.mark:
                path.rename(place)
            end = f"moved to {place}"
        except (OSError, StopIteration):
            end = "it cannot be moved; delete it to have it measured again"
        self._note(f"{path}: not a readable cell ({damage.reason}): {end}")

    def _note(self, line: str) -> None:
        line = printable(line)
        if line not in self.notes:
            self.notes.append(line)


@dataclass(frozen=True)
class _Damage:
    """What is wrong with a file, and which file it was."""

    reason: str
    mark: tuple[int, int]


def _mark(status: os.stat_result) -> tuple[int, int]:
    """Tell files apart that take each other's place: an inode alone may be used again."""
    return status.st_ino, status.st_mtime_ns


def _content(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Read a file, of one that is larger than any cell's the beginning, and its mark.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return file.read(_LARGEST), _mark(os.fstat(file.fileno()))


def _finished(rows: pl.DataFrame) -> bool:
    return rows["status"].is_in(["ok", "diverged"]).all()


def _place(path: Path, content: bytes) -> None:
    """Put a whole file in its place, or leave what was there.

    Raises:
        InputError: The system refuses.
    """
    try:
        put(path, content)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); make room or choose another --results-dir: "
            "cells that are finished stay, and the same command goes on from there"
        ) from error
