"""The store of results: every cell whole or absent, in a file of its own or packed with those of its experiment."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from safetensors import SafetensorError

from harness.errors import InputError, printable
from harness.results.derived import derived
from harness.results.file import NewerFileError, UnreadableFileError, altered, complaint, dump, load, load_pack
from harness.results.schema import FINISHED, Row, reproducible, to_frame
from harness.results.seal import BLANK, KEY, check_seal, seal
from harness.results.whole_file import put

if TYPE_CHECKING:
    import numpy as np

_ROWS, _ARRAYS = ".parquet", ".safetensors"
_LARGEST = 2**28  # bytes; a file of rows has some ten thousand, a pack of arrays some million

_Mark = tuple[int, int, int]
_Report = Callable[[Path, OSError | UnreadableFileError, _Mark | None], None]


@dataclass
class Merged:
    """What merging another store did.

    Args:
        taken: Number of cells that this store lacked or had unfinished, and took from the other one.
        known: Number of cells that this store had and kept.
        left_out: Number of files and packed cells of the other store that could not be read.
        notes: A line for everything that was left out, and for each cell whose results differ from those here.
    """

    taken: int = 0
    known: int = 0
    left_out: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _File:
    cells: dict[str, pl.DataFrame]  # the rows of every cell in the file, by the name that the cell has there
    errors: dict[str, OSError | UnreadableFileError]  # of cells of a pack by name, of the whole file by ""
    mark: _Mark | None  # of the file that was read; None if there is no file


@dataclass(frozen=True)
class _Cell:
    rows: pl.DataFrame
    name: str  # in its folder or pack: the cell's key in the version of the schema that wrote it
    path: Path  # of the file that holds the rows
    mark: _Mark | None  # of that file when it was read; None for a pack, which holds other cells too


class Store:
    """A folder of measured cells: their rows as Parquet, and their arrays, if they have any, as safetensors.

    A cell is written to ``cells/EXPERIMENT/KEY.parquet``, with ``KEY.safetensors`` beside it. `pack` moves cells into
    ``cells/EXPERIMENT.parquet`` and ``cells/EXPERIMENT.safetensors``. Every method reads both; of a cell that is in
    both places the single file counts, because it is newer. Files are written beside their place, synced and renamed,
    so a kill loses at most the running cell, and of two processes that write one cell the later wins, whole. A damaged
    file is named in `notes`, and moved to the folder's ``damaged`` where the folder is not only read; the others are
    read.

    Args:
        folder: The results folder. It is created when the first cell is written.
        option: The option of the command line that names the folder, for messages.
    """

    def __init__(self, folder: Path, option: str = "--results-dir") -> None:
        self.folder = folder
        self.option = option
        self.notes: list[str] = []
        self._packs: dict[Path, tuple[_Mark, Any]] = {}

    def prepare(self) -> None:
        """Create the folder and try to write in it, before work is done whose result could not be kept.

        Raises:
            InputError: if the folder cannot be created or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(b"\0")
        except OSError as error:
            raise InputError(
                f"the results folder {self.folder} cannot be written ({error.strerror}); choose another {self.option}"
            ) from error

    def path(self, experiment: str, cell: str) -> Path:
        """Return the single file that a cell's rows are written to."""
        return self.folder / "cells" / experiment / f"{cell}{_ROWS}"

    def pack_path(self, experiment: str) -> Path:
        """Return the file of the rows of an experiment's packed cells."""
        return self.folder / "cells" / f"{experiment}{_ROWS}"

    def write(self, rows: Sequence[Row], arrays: Mapping[str, np.ndarray] | None = None) -> Path:
        """Write the rows of one cell to a single file, replacing an earlier one, and before them the cell's arrays.

        Raises:
            InputError: if the disk is full, or the folder cannot be written any more.
            ValueError: if the rows could not be read again, for instance because a value is not finite. A number that
                was not measured has a status and a reason instead.
        """
        return self._write(to_frame(rows), arrays or {})

    def arrays(self, experiment: str, cell: str) -> dict[str, np.ndarray]:
        """Return the arrays of one cell by name; none if the cell has none, or their file is damaged and named."""
        return self._arrays(experiment, cell) or {}

    def read(self, experiment: str, cell: str) -> list[Row]:
        """Return the rows of one cell; none if it was never finished or its file is damaged.

        Raises:
            InputError: if a later version of this program wrote the file, which a new measurement would replace.
        """
        return [Row(**row) for row in self._rows(experiment, cell).iter_rows(named=True)]

    def frame(self) -> tuple[pl.DataFrame, list[str]]:
        """Return all rows with the columns of `derived`, and a line for every file or cell that could not be read.

        The folder is only read: a damaged file stays where it is.
        """
        cells = self._cells(partial(self._report, only_read=True), unchecked=True)
        return derived(pl.concat([to_frame([]), *(cell.rows for _, cell in cells)])), self.notes

    def verify(self, only_read: bool = False) -> int:
        """Check every file against its place, its digest and its keys, and add a line to `notes` for all that is wrong.

        Args:
            only_read: Whether damaged files stay where they are.

        Returns:
            The number of cells that are as they were written.
        """
        good = 0
        for experiment, cell in self._cells(partial(self._report, only_read=only_read)):
            self.arrays(experiment, cell.name)  # which names them if they are damaged
            good += 1
        for path in sorted(self.folder.glob("cells/**/*")):
            ours = self.folder / "cells" in (path.parent, path.parent.parent) and path.suffix in (_ROWS, _ARRAYS)
            if path.is_file() and not ours and not path.name.startswith("."):
                self._note(f"{path}: not a cell's file; left where it is")
        return good

    def merge(self, other: Store) -> Merged:
        """Take the cells of another store that this one lacks or has unfinished, as single files of today's version.

        The other store is only read.
        """
        merged = Merged()

        def leave_out(path: Path, error: Exception, mark: _Mark | None) -> None:
            merged.left_out += 1
            merged.notes.append(printable(f"{path}: left out: {error}"))

        for experiment, cell in other._cells(leave_out):
            mine = self._rows(experiment, cell.rows["cell"][0])
            if mine.is_empty() or (not _finished(mine) and _finished(cell.rows)):
                self._write(cell.rows, other.arrays(experiment, cell.name))
                merged.taken += 1
                continue
            merged.known += 1
            if _finished(cell.rows) and not reproducible(cell.rows).equals(reproducible(mine)):
                place = cell.path if cell.mark else f"{cell.path}: cell {cell.name}"
                merged.notes.append(f"{place}: other results than the same cell has in {self.folder}, which stay")
        return merged

    def pack(self) -> int:
        """Move the cells that have single files into the packs of their experiments.

        A pack is written, arrays before rows, before a single file is deleted, so a kill at any moment loses nothing.
        Equal rows and arrays make equal files. Processes that write cells meanwhile wait.

        Returns:
            The number of cells that were moved.

        Raises:
            InputError: if the folder cannot be locked, or a pack cannot be written.
        """
        if not (experiments := self._experiments()):
            return 0
        try:
            with _lock(self.folder / "cells", fcntl.LOCK_EX):
                return sum(self._pack(experiment) for experiment in experiments)
        except OSError as error:
            raise InputError(f"{self.folder} cannot be packed ({error}); pack a copy of it on a local disk") from error

    def _pack(self, experiment: str) -> int:
        path = self.pack_path(experiment)
        cells = self._cells_of(experiment, self._report)
        single = {key: cell for key, cell in cells.items() if cell.mark}
        arrays = {key: self._arrays(experiment, cell.name) for key, cell in single.items()}
        # A cell whose arrays are damaged stays where it is.
        moved = {key: (single[key].rows, own) for key, own in arrays.items() if own is not None}
        if (moved and not self._extend_pack(experiment, moved)) or not path.exists():
            return 0
        for key in moved:
            single[key].path.unlink()
        # The arrays of the cells above have no rows beside them now, and nor have those that a kill has left.
        for arrays_path in path.with_suffix("").glob(f"*{_ARRAYS}"):
            if not arrays_path.with_suffix(_ROWS).exists():
                arrays_path.unlink()
        with suppress(OSError):
            path.with_suffix("").rmdir()
        return len(moved)

    def _extend_pack(self, experiment: str, added: Mapping[str, tuple[pl.DataFrame, Mapping[str, np.ndarray]]]) -> bool:
        """Write a pack with more cells, given by key as rows and arrays; return whether that was possible."""
        path = self.pack_path(experiment)
        pack, arrays_path = self._load(path), path.with_suffix(_ARRAYS)
        if "" in pack.errors and path.exists():
            return False  # what cannot be read is not replaced
        if self._arrays(experiment, "") is None:
            self._note(f"{arrays_path}: {self._move_aside(arrays_path, _mark(arrays_path))}")
        rows = pack.cells | {key: own for key, (own, _) in added.items()}
        arrays: dict[str, Mapping[str, np.ndarray]] = {key: self._arrays(experiment, key) or {} for key in pack.cells}
        arrays |= {key: own for key, (_, own) in added.items()}
        contents = {
            arrays_path: _dump_arrays({f"{key}/{name}": own[name] for key, own in arrays.items() for name in own}),
            path: dump(pl.concat([rows[key] for key in sorted(rows)], rechunk=True)),
        }
        unreadable = load_pack(contents[path], experiment)[1].keys() - pack.errors.keys()
        if unreadable or max(map(len, contents.values())) > _LARGEST:
            self._note(f"{path}: not written: it would be too large or not readable; the cells stay in single files")
            return False
        for place, content in contents.items():
            self._place(place, content)
        return True

    def _write(self, rows: pl.DataFrame, arrays: Mapping[str, np.ndarray]) -> Path:
        experiment, cell, method = rows.select("experiment", "cell", "method").row(0)
        if (reason := complaint(rows, experiment, cell)) is not None:
            raise ValueError(f"the rows of {method} cannot be kept: {reason}")
        path = self.path(experiment, cell)
        with ExitStack() as locked:
            with suppress(OSError):  # where nothing can be locked, nothing is packed either
                path.parent.mkdir(parents=True, exist_ok=True)
                locked.enter_context(_lock(self.folder / "cells", fcntl.LOCK_SH))
            self._place(path.with_suffix(_ARRAYS), _dump_arrays(arrays))
            self._place(path, dump(rows))
        return path

    def _rows(self, experiment: str, cell: str) -> pl.DataFrame:
        for path in (self.path(experiment, cell), self.pack_path(experiment)):
            file = self._load(path)
            if isinstance(error := file.errors.get(""), NewerFileError):
                raise InputError(f"{path}: {error}, or choose another {self.option}")
            if isinstance(error, UnreadableFileError):
                self._report(path, error, file.mark)
            if cell in file.cells and cell not in file.errors:
                return file.cells[cell]
        return to_frame([])

    def _arrays(self, experiment: str, cell: str) -> dict[str, np.ndarray] | None:
        """Return the arrays of one cell; None if their file is damaged, which is then named."""
        rows = self.path(experiment, cell)
        single = rows.exists()
        path = (rows if single else self.pack_path(experiment)).with_suffix(_ARRAYS)
        try:
            if single:
                return _load_arrays(_content(path))
            packed = self._parsed_pack(path, _load_arrays)
            return {name[len(cell) + 1 :]: array for name, array in packed.items() if name.startswith(f"{cell}/")}
        except FileNotFoundError:
            # The cell has no arrays, or it was packed a moment ago.
            return self._arrays(experiment, cell) if single and not rows.exists() else {}
        except (OSError, ValueError, LookupError, SafetensorError) as error:
            self._note(f"{path}: no readable arrays ({error}); a new run with --fresh makes them again")
            return None

    def _experiments(self) -> list[str]:
        """Return the experiments that have a folder or a pack."""
        paths = [path for path in self.folder.glob("cells/*") if path.is_dir() or path.suffix == _ROWS]
        return sorted({path.name if path.is_dir() else path.stem for path in paths})

    def _cells(self, report: _Report, unchecked: bool = False) -> Iterator[tuple[str, _Cell]]:
        """Yield every cell with its experiment, altered ones only if unchecked, and report what cannot be used."""
        for experiment in self._experiments():
            for _, cell in sorted(self._cells_of(experiment, report).items()):
                if unchecked or (reason := altered(cell.rows)) is None:
                    yield experiment, cell
                else:
                    reason = reason if cell.mark else f"cell {cell.name}: {reason}"
                    report(cell.path, UnreadableFileError(reason), cell.mark)

    def _cells_of(self, experiment: str, report: _Report) -> dict[str, _Cell]:
        """Return the cells of one experiment by key: of a cell that lies in several files, the one that counts."""
        cells: dict[str, _Cell] = {}
        pack = self.pack_path(experiment)
        # The pack comes last: what was packed after the folder was listed is found there.
        for path in (*sorted(pack.with_suffix("").glob(f"*{_ROWS}")), pack):
            file = self._load(path)
            for name, error in file.errors.items():
                if os.path.lexists(path) or not isinstance(error, FileNotFoundError):
                    report(path, error, None if name else file.mark)
            for name in file.cells.keys() - file.errors.keys():
                key = file.cells[name]["cell"][0]
                # What has an older name was written by an older version, and is older than what has the cell's key.
                if key not in cells or (name == key and cells[key].name != key):
                    cells[key] = _Cell(file.cells[name], name, path, None if path == pack else file.mark)
        return cells

    def _load(self, path: Path) -> _File:
        mark = None
        try:
            mark = _mark(path)
            if path.parent != self.folder / "cells":
                return _File({path.stem: load(_content(path), path.parent.name, path.stem)}, {}, mark)
            cells, errors = self._parsed_pack(path, partial(load_pack, experiment=path.stem))
            return _File(cells, errors, mark)
        except (OSError, UnreadableFileError) as error:
            return _File({}, {"": error}, mark)

    def _parsed_pack(self, path: Path, parse: Callable[[bytes], Any]) -> Any:
        """Parse a pack, but only once as long as it stays the same: a sweep asks for its cells one by one."""
        mark = _mark(path)
        if path not in self._packs or self._packs[path][0] != mark:
            self._packs[path] = mark, parse(_content(path))
        return self._packs[path][1]

    def _report(
        self, path: Path, error: OSError | UnreadableFileError, mark: _Mark | None, only_read: bool = False
    ) -> None:
        """Name a file or a packed cell that cannot be used; set a damaged file aside if it is not only read."""
        if isinstance(error, (NewerFileError, OSError)):
            self._note(f"{path}: not read: {error}")
        elif mark is None:
            self._note(f"{path}: not readable: {error}; the other cells are, and a run with --fresh replaces this one")
        else:
            kind = "pack" if path.parent == self.folder / "cells" else "cell"
            where = "left where it is, until a run needs it or harness results verify sets it aside"
            if not only_read:
                where = self._move_aside(path, mark)
            self._note(f"{path}: not a readable {kind} ({error}): {where}")

    def _move_aside(self, path: Path, mark: _Mark | None) -> str:
        """Move a damaged file to the folder's ``damaged``, and say where it is now."""
        aside = self.folder / "damaged" / path.parent.relative_to(self.folder / "cells")
        try:
            aside.mkdir(parents=True, exist_ok=True)
            names = (path.name, *(f"{path.stem}-{number}{path.suffix}" for number in range(1, 1000)))
            place = next(aside / name for name in names if not (aside / name).exists())
            # Another process may have put a whole file there by now, which must stay.
            if _mark(path) == mark:
                path.rename(place)
            return f"moved to {place}"
        except (OSError, StopIteration):
            return "it cannot be moved; delete it to have it measured again"

    def _place(self, path: Path, content: bytes) -> None:
        """Put a whole file in its place, or raise InputError and leave what was there; no content deletes it."""
        if not content:
            path.unlink(missing_ok=True)
            return
        try:
            put(path, content)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror or error}); make room or choose another {self.option}: "
                "cells that are finished stay, and the same command goes on from there"
            ) from error

    def _note(self, line: str) -> None:
        line = printable(line)
        if line not in self.notes:
            self.notes.append(line)


def existing(folder: Path) -> Store:
    """Return the store of a folder that a run has written.

    Raises:
        InputError: if the folder holds no results.
    """
    if not (folder / "cells").is_dir():
        raise InputError(f"{folder} holds no results: it has no folder cells/; give a folder that a run has written")
    return Store(folder)


def load_results(folder: Path | str) -> pl.DataFrame:
    """Return all rows of a results folder, one line each; what cannot be read is told in warnings and left out.

    The columns are those of `harness.results.Row`, and then those of `harness.results.derived.derived`.

    Raises:
        InputError: if the folder holds no results.
    """
    rows, notes = existing(Path(folder)).frame()
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return rows


def _mark(path: Path) -> _Mark:
    """Tell a file from one that takes its place later: an inode alone may be used again."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LARGEST)  # of a file larger than any of ours only the beginning


@contextmanager
def _lock(folder: Path, kind: int) -> Iterator[None]:
    """Lock a folder, for this process alone or shared; raise OSError if, as on some networks, nothing can be locked."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, kind)  # the lock ends with the process at the latest
        yield
    finally:
        os.close(handle)


def _dump_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a file in which equal arrays, such as the test images that many cells show, are written once."""
    import safetensors.numpy

    written: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    names = {
        name: written.setdefault((own.dtype.str, own.shape, own.tobytes()), name)
        for name, own in sorted(arrays.items())
    }
    kept = {name: arrays[name] for name in written.values()}
    equal = {name: other for name, other in names.items() if name != other}
    # A second entry of metadata would have no fixed place in the file, so the names follow the seal.
    metadata = {KEY: BLANK + (json.dumps(equal) if equal else "")}
    return seal(safetensors.numpy.save(kept, metadata)) if arrays else b""


def _load_arrays(content: bytes) -> dict[str, np.ndarray]:
    import safetensors.numpy

    check_seal(content)
    arrays = safetensors.numpy.load(content)
    # The format begins with the length of its header, and then the header, as JSON.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    equal = json.loads(header["__metadata__"][KEY][len(BLANK) :] or "{}")
    return arrays | {name: arrays[other] for name, other in equal.items()}


def _finished(rows: pl.DataFrame) -> bool:
    return rows["status"].is_in(FINISHED).all()
