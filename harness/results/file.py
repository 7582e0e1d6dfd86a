"""The file of a cell: Parquet, and in its metadata the version of the schema and a seal."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import polars as pl
import polars.selectors as cs

from harness.errors import one_line
from harness.results.schema import REQUIRED, SCHEMA, STATUSES, cell_key
from harness.results.seal import BLANK, KEY, check_seal, seal

_VERSION = "schema"
_SEALED = BLANK.rstrip("0").encode()

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
    # Files of version 1 name no version, have no seal, and hold as many of these as there were when they were written.
    _with_columns("iteration", "seconds", "limits"),
)
"""What takes the rows of version 1 to version 2, of 2 to 3, and so on. Append; never change one that was released."""

SCHEMA_VERSION = 1 + len(MIGRATIONS)
"""Of the files that are written."""


def dump(frame: pl.DataFrame) -> bytes:
    """Write a frame of `SCHEMA` as the content of a file."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, statistics=False, metadata={_VERSION: str(SCHEMA_VERSION), KEY: BLANK})
    return seal(buffer.getvalue())


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
    sealed = _SEALED in content or KEY.encode() in content
    try:
        if sealed:  # before a parser sees it
            check_seal(content)
        with nullcontext() if sealed else _rust_says_nothing():
            frame = pl.read_parquet(io.BytesIO(content))
            version = _version(pl.read_parquet_metadata(io.BytesIO(content)))
        if version > 1:  # the seal itself may be what is damaged
            check_seal(content)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise UnreadableFileError(f"no Parquet file: {one_line(error)}") from None
    except UnreadableFileError:
        raise
    except ValueError as error:
        raise UnreadableFileError(str(error)) from None
    for migrate in MIGRATIONS[version - 1 :]:
        frame = migrate(frame)
    if dict(frame.schema) != SCHEMA:
        raise UnreadableFileError("its rows have other columns than this version writes")
    if (reason := complaint(frame, experiment, cell)) is not None:
        raise UnreadableFileError(reason)
    # Nothing that steers a terminal, turns the direction of text or is no XML gets to tables and figures.
    return frame.select(*SCHEMA).with_columns(cs.string().str.replace_all(r"\p{C}", "\N{REPLACEMENT CHARACTER}"))


@contextmanager
def _rust_says_nothing() -> Iterator[None]:
    """Keep a panic of the parser off the terminal: it is caught, and becomes the reason that the file is named with."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


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


def _version(metadata: dict[str, str]) -> int:
    if _VERSION not in metadata and KEY not in metadata:
        return 1
    if not (KEY in metadata and metadata.get(_VERSION, "").isdecimal()):
        raise UnreadableFileError("another program wrote it: it has no version or no seal")
    if (version := int(metadata[_VERSION])) > SCHEMA_VERSION:
        raise NewerFileError(
            f"it is of version {version} of the schema, and this program reads up to {SCHEMA_VERSION}: upgrade it"
        )
    return version


def complaint(frame: pl.DataFrame, experiment: str, cell: str) -> str | None:
    """Say why these can be no rows of a cell; None if they can."""
    if frame.is_empty():
        return "it holds no rows"
    for column in REQUIRED:
        if frame[column].has_nulls():
            return f"it holds a row without {column}"
    for column, place in (("cell", cell), ("experiment", experiment)):
        for found in frame[column].unique():
            if found != place:
                return f"it holds rows of {column} {found}, which belong elsewhere"
    if not frame.select(pl.all_horizontal(cs.float().is_finite().all())).item():
        return "it holds a number that is not finite"
    if not frame.select(pl.all_horizontal((pl.col("D", "L", "B") > 0).all())).item():
        return "it holds a D, L or B below 1"
    if not frame.filter(pl.col("metric").str.starts_with("seconds_per_"))["value"].drop_nulls().gt(0).all():
        return "it holds a time that is not above 0"
    of_a_value = frame.select("method", "metric", "iteration")
    if of_a_value.is_duplicated().any():
        method, metric, _ = of_a_value.filter(of_a_value.is_duplicated()).row(0)
        return f"it holds {metric} of {method} twice"
    has_value = pl.col("value").is_not_null()
    if not frame.select((pl.col("status").is_in(STATUSES) & ((pl.col("status") == "ok") == has_value)).all()).item():
        return "it holds a row whose status and value contradict each other"
    return None
