"""The files of rows: Parquet, of one cell or of a pack of many, with the schema's version and a seal as metadata."""

import io
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import polars as pl
import polars.selectors as cs

from harness.errors import one_line
from harness.results.migrations import MIGRATIONS
from harness.results.schema import REQUIRED, SCHEMA, STATUSES, cell_key
from harness.results.seal import BLANK, KEY, check_seal, seal

_VERSION = "schema"
_SEALED = BLANK.rstrip("0").encode()


class UnreadableFileError(ValueError):
    """Raised for a file that this program did not write or that is damaged; the message says why."""


class NewerFileError(UnreadableFileError):
    """Raised for a file that a later version of this program wrote."""


SCHEMA_VERSION = 1 + len(MIGRATIONS)
"""The version of the schema that files are written in."""


def dump(frame: pl.DataFrame) -> bytes:
    """Return the content of the file that keeps a frame of `SCHEMA`, of one cell or of many."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, statistics=False, metadata={_VERSION: str(SCHEMA_VERSION), KEY: BLANK})
    return seal(buffer.getvalue())


def load(content: bytes, experiment: str, cell: str) -> pl.DataFrame:
    """Read a file of one cell, of any version, as a frame of today's `SCHEMA`.

    Args:
        content: All bytes of the file.
        experiment: The experiment that the file's folder is named after.
        cell: The key that the file is named after. A migration may have given the rows another one since.

    Raises:
        NewerFileError: if a later version of this program wrote the file.
        UnreadableFileError: if the file is damaged, another program's, or in another cell's place.
    """
    frame = _load(content, cell)
    if (reason := complaint(frame, experiment)) is not None:
        raise UnreadableFileError(reason)
    return _printable(frame)


def load_pack(content: bytes, experiment: str) -> tuple[dict[str, pl.DataFrame], dict[str, UnreadableFileError]]:
    """Read a file of many cells, of any version.

    Args:
        content: All bytes of the file.
        experiment: The experiment that the file is named after.

    Returns:
        The rows of every cell by its key, and what is wrong with those that cannot be used, by key.

    Raises:
        NewerFileError: if a later version of this program wrote the file.
        UnreadableFileError: if the file is damaged or another program's.
    """
    frame = _load(content, None)
    reason = complaint(frame, experiment)
    if reason is not None and (frame.is_empty() or frame["cell"].has_nulls()):
        raise UnreadableFileError(reason)
    cells = {str(key): _printable(rows) for (key,), rows in frame.partition_by("cell", as_dict=True).items()}
    reasons = {key: "its key is no file's name" if "/" in key else None for key in cells}
    if reason is not None:  # of some cell, so each is asked
        reasons |= {key: complaint(rows, experiment) for key, rows in cells.items() if "/" not in key}
    return cells, {key: UnreadableFileError(f"cell {key}: {reason}") for key, reason in reasons.items() if reason}


def _load(content: bytes, cell: str | None) -> pl.DataFrame:
    sealed = _SEALED in content or KEY.encode() in content  # either may be what is damaged
    try:
        if sealed:  # before a parser sees it
            check_seal(content)
        with nullcontext() if sealed else _rust_says_nothing():
            frame = pl.read_parquet(io.BytesIO(content))
            version = _version(pl.read_parquet_metadata(io.BytesIO(content)))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise UnreadableFileError(f"no Parquet file: {one_line(error)}") from None
    except UnreadableFileError:
        raise
    except ValueError as error:
        raise UnreadableFileError(str(error)) from None
    # A file lies where the key of its version says, so its place is checked before a migration changes the key.
    if cell is not None and "cell" in frame.columns and (reason := _misplaced(frame, "cell", cell)) is not None:
        raise UnreadableFileError(reason)
    try:
        for migrate in MIGRATIONS[version - 1 :]:
            frame = migrate(frame)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, pl.exceptions.PolarsError):
        raise UnreadableFileError(f"its rows are not of version {version} of the schema") from None
    if dict(frame.schema) != SCHEMA:
        raise UnreadableFileError("its rows have other columns than this version writes")
    return frame.select(*SCHEMA)


def _printable(frame: pl.DataFrame) -> pl.DataFrame:
    """Let nothing into tables and figures that steers a terminal, turns the direction of text or is no XML."""
    return frame.with_columns(cs.string().str.replace_all(r"\p{C}", "\N{REPLACEMENT CHARACTER}"))


@contextmanager
def _rust_says_nothing() -> Iterator[None]:
    """Keep a panic of the parser off the terminal; its exception becomes the reason that the file is named with."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def altered(frame: pl.DataFrame) -> str | None:
    """Say why rows cannot be those of their cell; None if they can.

    A cell's key is the digest of the identity that its configuration holds, and the identity, the settings and the
    columns of the rows must agree.
    """
    columns = frame.select("config", "experiment", "profile", "seed", "dtype", "device", "threads", "cpu", "gpu", "D")
    for row in columns.unique().iter_rows(named=True):
        try:
            config = json.loads(row["config"])
            identity, settings = config["identity"], config["settings"]
            key = cell_key(identity)
            disagree = _disagreement(identity, settings, row)
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return "its configuration is not that of a cell"
        if key != frame["cell"][0]:
            return f"its configuration is that of cell {key}"
        if disagree is not None:
            return f"its configuration and its rows disagree in {disagree}"
    return None


def _disagreement(identity: dict[str, Any], settings: dict[str, Any], row: dict[str, Any]) -> str | None:
    problem = settings["problem"]
    told = {
        **{name: identity[name] for name in ("threads", "cpu", "gpu")},
        **{name: problem[name] for name in ("seed", "dtype", "device")},
        **{name: settings[name] for name in ("experiment", "profile")},
        "D": math.prod(problem["shape"]),
    }
    for name, value in told.items():
        if value != row[name]:
            return name
    parts = [(identity, settings)]
    parts += [(identity.get(part, {}), settings.get(part, {})) for part in ("problem", "config")]
    for differing, whole in parts:
        for name in differing.keys() & whole.keys():
            if not isinstance(whole[name], dict) and differing[name] != whole[name]:
                return name
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


def _misplaced(frame: pl.DataFrame, column: str, place: str) -> str | None:
    strangers = [value for value in frame[column].unique() if value != place]
    return f"it holds rows of {column} {strangers[0]}, which belong elsewhere" if strangers else None


def complaint(frame: pl.DataFrame, experiment: str, cell: str | None = None) -> str | None:
    """Say why a frame cannot be the rows of a cell, or of several cells of one experiment; None if it can.

    Args:
        frame: Rows in the columns of `SCHEMA`.
        experiment: The experiment that all rows must be of.
        cell: The key of the cell that all rows must be of; None if the rows may be of several cells.
    """
    if frame.is_empty():
        return "it holds no rows"
    for column in REQUIRED:
        if frame[column].has_nulls():
            return f"it holds a row without {column}"
    for column, place in (("cell", cell), ("experiment", experiment)):
        if place is not None and (reason := _misplaced(frame, column, place)) is not None:
            return reason
    if not frame.select(pl.all_horizontal(cs.float().is_finite().all())).item():
        return "it holds a number that is not finite"
    if not frame.select(pl.all_horizontal((pl.col("D", "L", "B") > 0).all())).item():
        return "it holds a D, L or B below 1"
    if not frame.filter(pl.col("metric").str.contains("^seconds_(per|of)_"))["value"].drop_nulls().gt(0).all():
        return "it holds a time that is not above 0"
    names = frame.select("cell", "method", "metric", "iteration")
    if names.is_duplicated().any():
        _, method, metric, _ = names.filter(names.is_duplicated()).row(0)
        return f"it holds {metric} of {method} twice"
    has_value = pl.col("value").is_not_null()
    if not frame.select((pl.col("status").is_in(STATUSES) & ((pl.col("status") == "ok") == has_value)).all()).item():
        return "it holds a row whose status and value contradict each other"
    return None
