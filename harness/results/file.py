"""The file of a cell: Parquet, and in its metadata the version of the schema and a digest of the rows."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable

import polars as pl
import polars.selectors as cs

from harness.errors import one_line
from harness.results.schema import SCHEMA, STATUSES, cell_key

__all__ = ["MIGRATIONS", "SCHEMA_VERSION", "NewerFileError", "UnreadableFileError", "altered", "dump", "load"]

_METADATA = "ebflow-bench"

Migration = Callable[[pl.DataFrame], pl.DataFrame]


class UnreadableFileError(ValueError):
    """The file is no cell that this version wrote; the message says why."""


class NewerFileError(UnreadableFileError):
    """The file is of a later version than this one."""


def _with_columns(*names: str) -> Migration:
    """Add columns, empty, where they are missing."""

    def migrate(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.lit(None, SCHEMA[name]).alias(name) for name in names if name not in frame.columns)

    return migrate


MIGRATIONS: tuple[Migration, ...] = (
    # Files of version 1 name no version, and hold as many of these as there were when they were written.
    _with_columns("iteration", "seconds", "limits"),
)
"""What takes the rows of version 1 to version 2, of 2 to 3, and so on. Append; never change one that was released."""

SCHEMA_VERSION = 1 + len(MIGRATIONS)
"""Of the files that are written."""


def dump(frame: pl.DataFrame) -> bytes:
    """Write a frame of `SCHEMA` as the content of a file."""
    buffer = io.BytesIO()
    label = json.dumps({"schema": SCHEMA_VERSION, "sha256": _digest(frame)})
    frame.write_parquet(buffer, statistics=False, metadata={_METADATA: label})
    return buffer.getvalue()


def load(content: bytes, experiment: str, cell: str) -> pl.DataFrame:
    """Read the content of a file, of whatever version, as a frame of today's `SCHEMA`.

    Args:
        content: All bytes of the file.
        experiment: That its folder is named after.
        cell: Key that it is named after.

    Raises:
        NewerFileError: It is of a later version.
        UnreadableFileError: It is damaged, or not such a file, or in another cell's place.
    """
    try:
        frame = pl.read_parquet(io.BytesIO(content))
        label = pl.read_parquet_metadata(io.BytesIO(content)).get(_METADATA)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise UnreadableFileError(f"no Parquet file: {one_line(error)}") from None
    version = 1
    if label is not None:
        version = _checked_version(label, frame)
    for migrate in MIGRATIONS[version - 1 :]:
        frame = migrate(frame)
    if dict(frame.schema) != SCHEMA:
        raise UnreadableFileError("its rows have other columns than this version writes")
    if (complaint := _complaint(frame, experiment, cell)) is not None:
        raise UnreadableFileError(complaint)
    return frame.select(*SCHEMA)


def altered(frame: pl.DataFrame) -> str | None:
    """Say what shows that a cell's rows are not those of its key: the key is the digest of the column `config`."""
    for config in frame["config"].unique():
        try:
            key = cell_key(json.loads(config))
        except (ValueError, RecursionError):
            return "its configuration is no JSON"
        if key != frame["cell"][0]:
            return f"its configuration is that of cell {key}"
    return None


def _checked_version(label: str, frame: pl.DataFrame) -> int:
    try:
        entries = json.loads(label)
        version, digest = entries["schema"], entries["sha256"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UnreadableFileError("what it says of its version is not readable") from None
    if not isinstance(version, int) or version < 2:
        raise UnreadableFileError(f"there is no version {version!r} of its schema")
    if version > SCHEMA_VERSION:
        raise NewerFileError(
            f"it is of version {version} of the schema, and this program reads up to {SCHEMA_VERSION}: upgrade it"
        )
    if digest != _digest(frame):
        raise UnreadableFileError("its rows are not those that were written: their digest differs")
    return version


def _digest(frame: pl.DataFrame) -> str:
    """Digest names and values as Python writes them, which does not change with the version of polars."""
    return hashlib.sha256(json.dumps([frame.columns, frame.rows()], default=str).encode()).hexdigest()


def _complaint(frame: pl.DataFrame, experiment: str, cell: str) -> str | None:
    if frame.is_empty():
        return "it holds no rows"
    for column, place in (("cell", cell), ("experiment", experiment)):
        for found in frame[column].unique():
            if found != place:
                return f"it holds rows of {column} {found}, which belong elsewhere"
    if not frame.select(pl.all_horizontal(cs.float().is_finite().all())).item():
        return "it holds a number that is not finite"
    of_a_value = frame.select("method", "metric", "iteration")
    if of_a_value.is_duplicated().any():
        method, metric, _ = of_a_value.filter(of_a_value.is_duplicated()).row(0)
        return f"it holds {metric} of {method} twice"
    has_value = pl.col("value").is_not_null()
    if not frame.select((pl.col("status").is_in(STATUSES) & ((pl.col("status") == "ok") == has_value)).all()).item():
        return "it holds a row whose status and value contradict each other"
    return None
