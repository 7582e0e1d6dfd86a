"""The published files of image sets: where they lie, whether they are right, how they get there."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError

if TYPE_CHECKING:
    from pooch import Pooch


VARIABLE = "HARNESS_DATA_DIR"
"""Environment variable naming the data folder."""

_LARGEST = 200 * 2**20  # bytes; the archive of CIFAR-10, the largest of the published files, has 170 million
_SILENCE = 30  # seconds without a byte, after which a server is given up


def data_folder(data_dir: Path | None) -> Path:
    """Choose the data folder: the argument, else the environment variable, else a cache of the user's.

    Args:
        data_dir: folder asked for by the caller, or None.

    Returns:
        The folder. Only the cache may not exist yet.

    Raises:
        InputError: a folder was asked for that does not exist.
    """
    asked, origin = (data_dir, "--data-dir") if data_dir is not None else (os.environ.get(VARIABLE), VARIABLE)
    if not asked:
        import pooch

        return Path(pooch.os_cache("ebflow-bench"))
    folder = Path(asked).expanduser()
    if not folder.is_dir():
        raise InputError(f"data folder {folder} does not exist: create it, or correct {origin}")
    return folder


def read(path: Path, sha256: str) -> bytes:
    """Read a file and compare it with the published one before anything looks inside.

    Args:
        path: file to read.
        sha256: SHA-256 of the published file, in hexadecimal.

    Returns:
        The content of the file.

    Raises:
        InputError: the file cannot be read, or differs from the published one.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"{path}: is a pipe or a device; put the published file in its place")
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); make it readable") from error
    if len(content) > _LARGEST:
        raise InputError(f"{path}: larger than any published file; delete it, and it will be fetched again")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(
            f"{path}: truncated or altered ({len(content):,} bytes, not the published file's SHA-256); "
            "delete it, and it will be fetched again"
        )
    return content


def download(url: str, path: Path, sha256: str) -> None:
    """Fetch a published file; it appears under its name only once it is complete and right.

    Args:
        url: address of the file.
        path: where to put it; folders are made as needed.
        sha256: SHA-256 of the published file, in hexadecimal.

    Raises:
        InputError: no network, a file that is not the published one, or a folder that cannot be written.
    """
    import pooch

    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            pooch.retrieve(url, known_hash=f"sha256:{sha256}", fname=path.name, path=path.parent, downloader=_fetch)
        except PermissionError:
            raise
        except (OSError, ValueError) as error:
            # OSError covers the connection and the server; pooch says ValueError of a wrong SHA-256.
            wrong = isinstance(error, ValueError)
            trouble = "its SHA-256 is not the published file's" if wrong else type(error).__name__
            raise InputError(
                f"could not download {url} ({trouble}): connect to the network, put the file at {path}, "
                f"or name a folder that has it with --data-dir or {VARIABLE}"
            ) from error


def _fetch(url: str, place: str, _: Pooch | None) -> None:
    """Write what the server sends, up to the size of the largest published file: pooch's own downloader has no limit.

    Raises:
        OSError: No connection, or an answer that is no file.
    """
    import requests

    with requests.get(url, stream=True, timeout=_SILENCE) as answer, Path(place).open("wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_content(2**20):
            file.write(chunk)
            if file.tell() > _LARGEST:
                return  # what is there has another SHA-256 than the published file


def gunzip(path: Path, sha256: str, size: int) -> bytes:
    """Read a gzip file, compared with the published one, and unpack it.

    Args:
        path: file to read.
        sha256: SHA-256 of the published file, in hexadecimal.
        size: length of its content in bytes; nothing beyond is unpacked.

    Raises:
        InputError: as `read`, or the content has another length.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(read(path, sha256))) as packed:
        content = packed.read(size + 1)
    if len(content) != size:
        raise InputError(f"{path}: does not unpack to {size:,} bytes; delete it, and it will be fetched again")
    return content


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, or an empty text if there is no file to read."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn any failure to write below a folder into one line that says so.

    Args:
        folder: the folder written to.

    Raises:
        InputError: the block could not write.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({type(error).__name__}): make it writable, with room on its disk, "
            f"or choose another folder with --data-dir or {VARIABLE}"
        ) from error
