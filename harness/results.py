"""The one schema of a result row, and the store that keeps rows: one file a cell, whole or absent."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import polars as pl
import polars.selectors as cs

from harness.errors import InputError, one_line

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DRIFT_METRIC", "NOISY", "SCHEMA", "Row", "Store", "cell_key", "to_frame"]

NOISY = "noisy"
"""The reason that an ok row has if the machine drifted while it was measured (`harness.statistics.NOISY_DRIFT`)."""

DRIFT_METRIC = "reference_gemm_drift"
"""By how much it drifted: the metric of the machine's row that says it."""

_ARRAYS = ".safetensors"


@dataclass(frozen=True)
class Row:
    """One measured number, or the reason why there is none.

    Args:
        cell: Key of the cell that made it; the name of its file.
        experiment: What asked for it, such as ``table2-mnist-fc`` or ``runtime``.
        profile: How far the protocol was shortened: quick, paper, or custom.
        recipe: How it was trained: a name of `harness.paper.configurations`, and what was changed; none for a timing.
        method: Name of the method, with its objective and the form of its linear layers beside it; or ``machine``.
        dataset: Name of the data, or ``normal`` for the synthetic batches of a timing.
        architecture: With D the dimension, L the linear layers, B the batch.
        parameters: Number of trained numbers.
        metric: What was measured, in `unit`; ci_low and ci_high bound a 95 % interval from n repetitions.
        iteration: For a metric that is followed through training, the step where this value was seen; for one of
            several repetitions or draws its number, the same for all methods that shared it.
        seconds: For a metric that is followed through training, the training time spent until then.
        limits: What the method declares that it cannot do.
        status: ok, diverged, failed or unavailable; the last three have no value and a reason. The reason of an ok row
            is none, or `NOISY`.
        config: Everything else that determines the cell, as JSON.
        versions: Of Python, torch and the method's libraries, as JSON.
        commit: Of this project, a + where files differed from it.
        started_at: UTC, ISO 8601.
    """

    cell: str
    experiment: str
    profile: str
    recipe: str
    method: str
    objective: str
    linear: str
    dataset: str
    architecture: str
    shape: str
    D: int
    L: int
    B: int
    parameters: int | None
    seed: int
    dtype: str
    device: str
    threads: int
    metric: str
    value: float | None
    unit: str
    ci_low: float | None
    ci_high: float | None
    n: int | None
    status: str
    reason: str | None
    config: str
    versions: str
    cpu: str
    gpu: str | None
    commit: str | None
    started_at: str
    iteration: int | None = None
    seconds: float | None = None
    limits: str | None = None


def _polars_type(hint: Any) -> type[pl.DataType]:
    return next(
        kind for base, kind in ((float, pl.Float64), (int, pl.Int64), (str, pl.String)) if hint in (base, base | None)
    )


SCHEMA: dict[str, type[pl.DataType]] = {name: _polars_type(hint) for name, hint in get_type_hints(Row).items()}
"""Column names and types of every frame of rows."""


def to_frame(rows: Iterable[Row]) -> pl.DataFrame:
    """Put rows into a frame of `SCHEMA`."""
    return pl.DataFrame([dataclasses.asdict(row) for row in rows], schema=SCHEMA)


def cell_key(identity: dict[str, Any]) -> str:
    """Name a cell by what determines it: 16 hexadecimal digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


class Store:
    """A folder with one Parquet file a cell, and beside it, where the cell has something to be looked at, its arrays.

    A file is written beside its place and renamed, so that a kill loses at most the running cell and two processes
    never mix.

    Args:
        folder: Made when the first cell is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder and try to write in it, before work is done whose result could not be kept.

        Raises:
            InputError: It cannot be made or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise InputError(
                f"the results folder {self.folder} cannot be written ({error.strerror}); choose another --results-dir"
            ) from error

    def path(self, experiment: str, cell: str) -> Path:
        """Return where a cell lies."""
        return self.folder / "cells" / experiment / f"{cell}.parquet"

    def write(self, rows: Sequence[Row], arrays: Mapping[str, np.ndarray] | None = None) -> Path:
        """Keep the rows of one cell, replacing what was there, and before them its arrays, in a file beside.

        Raises:
            ValueError: A value is not finite: a number that was not measured has a status and a reason instead.
        """
        frame = to_frame(rows)
        if not frame.select(pl.all_horizontal(cs.float().is_finite().all())).item():
            raise ValueError(f"a row of {rows[0].method} holds a number that is not finite")
        path = self.path(rows[0].experiment, rows[0].cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        if arrays:
            import safetensors.numpy

            _place(path.with_suffix(_ARRAYS), safetensors.numpy.save(dict(arrays)))
        else:
            path.with_suffix(_ARRAYS).unlink(missing_ok=True)
        content = io.BytesIO()
        frame.write_parquet(content, statistics=False)
        _place(path, content.getvalue())
        return path

    def arrays(self, experiment: str, cell: str) -> dict[str, np.ndarray]:
        """Return the arrays of one cell by name; none if it has none or their file is damaged."""
        import safetensors.numpy

        try:
            return safetensors.numpy.load(self.path(experiment, cell).with_suffix(_ARRAYS).read_bytes())
        except (OSError, safetensors.SafetensorError):
            return {}

    def read(self, experiment: str, cell: str) -> list[Row]:
        """Return the rows of one cell; none if it was never finished or its file is damaged."""
        try:
            return [Row(**row) for row in _parse(self.path(experiment, cell)).iter_rows(named=True)]
        except (OSError, ValueError):
            return []

    def frame(self) -> tuple[pl.DataFrame, list[str]]:
        """Return all rows, and one line for every file that could not be read."""
        frames: list[pl.DataFrame] = [to_frame([])]
        damaged: list[str] = []
        for path in sorted(self.folder.glob("cells/*/*.parquet")):
            try:
                frames.append(_parse(path))
            except (OSError, ValueError) as error:
                damaged.append(f"{path}: not a readable cell ({error}); delete it to have it measured again")
        return pl.concat(frames), damaged


def _place(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it, so that it is whole or absent."""
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.stem}-", delete=False) as file:
        beside = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            beside.chmod(0o644)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def _parse(path: Path) -> pl.DataFrame:
    """Read one file.

    Raises:
        ValueError: It is not Parquet, or its rows are not of this schema.
    """
    try:
        frame = pl.read_parquet(io.BytesIO(path.read_bytes()))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(f"no Parquet file: {one_line(error)}") from None
    # Files from before a column was added hold it empty.
    added = {field.name for field in dataclasses.fields(Row) if field.default is None} - set(frame.columns)
    frame = frame.with_columns(pl.lit(None, SCHEMA[name]).alias(name) for name in added)
    if dict(frame.schema) != SCHEMA:
        raise ValueError("its rows have other columns than this version writes")
    if frame.is_empty():
        raise ValueError("it holds no rows")
    return frame.select(*SCHEMA)
