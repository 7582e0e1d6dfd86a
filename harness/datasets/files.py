"""The published files of datasets: where they lie, whether they are right, and how they are downloaded."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shlex
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath

from harness.datasets.dataset import Declaration
from harness.errors import InputError, one_line

VARIABLE = "HARNESS_DATA_DIR"
"""The environment variable that names the data folder."""

_SILENCE = 30  # seconds without a byte, after which a server is given up
_LARGEST = 4 * 10**9  # bytes of a file whose size is not published
_AGAIN = "delete it, and it will be fetched again"


@dataclass(frozen=True)
class PublishedFile:
    """A file as its authors have published it.

    Attributes:
        place: Path of the file inside the data folder.
        size: Length of the file in bytes; None where it is not published.
        known_hash: SHA-256 of the file in hexadecimal; `md5:` and the MD5 where only that is published; empty where
            no hash is.
    """

    place: str
    size: int | None
    known_hash: str

    @property
    def limit(self) -> int:
        """Bytes that the file cannot exceed: its size where that is published, and otherwise 4 GB."""
        return _LARGEST if self.size is None else self.size

    def is_in(self, folder: Path) -> bool:
        """Say whether the file lies in the data folder, by its size alone.

        Raises:
            InputError: if something is there that cannot be the published file, by its kind or its size.
        """
        path = folder / self.place
        if not path.exists():
            return False
        if not path.is_file():
            raise InputError(f"{path}: is a folder, a pipe or a device; put the published file in its place")
        if self.size is not None and (size := path.stat().st_size) != self.size:
            raise InputError(f"{path}: truncated or altered ({size:,} bytes, not {self.size:,}); {_AGAIN}")
        return True

    @property
    def hash_name(self) -> str:
        """What people call the hash that is published."""
        return "MD5" if self.known_hash.startswith("md5:") else "SHA-256"

    def matches(self, content: bytes) -> bool:
        """Return whether a content has the published hash, if one is published."""
        algorithm, _, digest = self.known_hash.rpartition(":")
        return not digest or hashlib.new(algorithm or "sha256", content, usedforsecurity=False).hexdigest() == digest

    def content(self, folder: Path) -> bytes:
        """Read the file, and compare it with the published one before anything looks inside.

        Raises:
            InputError: if the file cannot be read, or is not the published one.
        """
        path = folder / self.place
        try:
            with path.open("rb") as file:
                content = file.read(self.limit + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({type(error).__name__}); make it readable") from error
        if not self.matches(content):
            raise InputError(
                f"{path}: truncated or altered ({len(content):,} bytes, not the published file's {self.hash_name}); "
                f"{_AGAIN}"
            )
        return content


@dataclass(frozen=True)
class Archive(PublishedFile):
    """A published file that holds others: a gzip file one of them, a compressed tar file several.

    Attributes:
        url: Address that the archive is downloaded from.
        contents: The files inside.
    """

    url: str
    contents: tuple[PublishedFile, ...]

    @property
    def holds_folders(self) -> bool:
        """Whether the archive is a tar file, which is unpacked, and no gzip file, which is read as it is."""
        return self.place.endswith(".tar.gz")

    def missing(self, folder: Path) -> list[PublishedFile]:
        """List the contents that do not lie in the data folder as files of their own."""
        return [file for file in self.contents if not file.is_in(folder)]

    def read(self, folder: Path) -> list[bytes]:
        """Read all contents, from their own files, or else a single one from the gzip file.

        Raises:
            InputError: if a file cannot be read, or is not the published one.
        """
        if not self.missing(folder):
            return [file.content(folder) for file in self.contents]
        # Not by pooch's Decompress, which unpacks whatever the length, to the disk, and leaves half a file at a kill.
        (inside,) = self.contents
        with gzip.GzipFile(fileobj=io.BytesIO(self.content(folder))) as packed:
            content = packed.read(inside.limit + 1)
        if len(content) != inside.size or not inside.matches(content):
            raise InputError(f"{folder / self.place}: does not unpack to {inside.size:,} published bytes; {_AGAIN}")
        return [content]


@dataclass(frozen=True)
class PublishedSet(Declaration):
    """A dataset in published archives, each of which is fetched where the files inside are missing.

    Attributes:
        archives: Where the files come from, in the order of the samples.
    """

    archives: tuple[Archive, ...] = ()

    @property
    def download_bytes(self) -> int | None:
        sizes = [archive.size for archive in self.archives]
        return None if None in sizes else sum(size for size in sizes if size)

    def why_unavailable(self, data_dir: Path | None) -> str | None:
        folder = data_folder(data_dir)
        for archive in self.archives:
            missing = archive.missing(folder)
            if missing and not archive.is_in(folder):
                where = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
                return f"{folder / missing[0].place} is missing: harness fetch {self.name}{where}"
        return None

    def reachable(self, seconds: float) -> bool:
        return answers(self.archives[0].url, seconds)

    def prepare(self, data_dir: Path | None) -> tuple[Path, ...]:
        folder = data_folder(data_dir)
        for archive in self.archives:
            if archive.missing(folder):
                if not archive.is_in(folder):
                    download(archive, folder)
                if archive.holds_folders:
                    untar(archive, folder)
        needed = [[archive] if archive.missing(folder) else archive.contents for archive in self.archives]
        return tuple(folder / file.place for files_ in needed for file in files_)


def untar(archive: Archive, folder: Path) -> None:
    """Put the archive's missing files into the data folder, each complete from the moment it has its name.

    This is not pooch's Untar, which before Python 3.12 follows links and sets modes as the archive says, whatever the
    sizes. Here only regular members of known names and sizes are looked at, and only their bytes are used. A member is
    known by its name and the name of its folder, whatever folders are above.

    Raises:
        InputError: if the archive is not the published one, a member is not as declared, or the folder cannot be
            written.
    """
    from harness.results.whole_file import put

    content = archive.content(folder)
    with writing(folder), tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for file in archive.missing(folder):
            name = PurePosixPath(file.place).parts[-2:]
            member = next((member for member in tar if PurePosixPath(member.name).parts[-2:] == name), None)
            if member is None or not member.isreg() or member.size != (file.size or member.size):
                raise InputError(f"{folder / archive.place}: its {name[-1]} is not the published file; {_AGAIN}")
            extracted = tar.extractfile(member)
            assert extracted is not None  # as for every regular member
            put(folder / file.place, extracted.read())


def data_folder(data_dir: Path | None) -> Path:
    """Choose the data folder: the argument, else the environment variable, else a cache of the user's.

    Raises:
        InputError: if the argument or the variable names a folder that does not exist; the cache need not exist yet.
    """
    asked, origin = (data_dir, "--data-dir") if data_dir is not None else (os.environ.get(VARIABLE), VARIABLE)
    if not asked:
        import pooch

        return Path(pooch.os_cache("ebflow-bench"))
    folder = Path(asked).expanduser()
    if not folder.is_dir():
        raise InputError(f"data folder {folder} does not exist: create it, or correct {origin}")
    return folder


def download(archive: Archive, folder: Path) -> None:
    """Fetch an archive into the data folder; it appears under its name only once it is complete and right.

    Raises:
        InputError: if there is no network, the server sends another file, or the folder cannot be written.
    """
    import pooch

    path = folder / archive.place
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        known = pooch.create(
            path=folder, base_url="", registry={archive.place: archive.known_hash}, urls={archive.place: archive.url}
        )
        try:
            known.fetch(archive.place, downloader=partial(_stream, limit=archive.limit))
        except (_NetworkError, ValueError) as error:  # pooch says ValueError of a wrong hash
            trouble = (
                str(error)
                if isinstance(error, _NetworkError)
                else f"(its {archive.hash_name} is not the published file's): "
            )
            raise InputError(
                f"could not download {archive.url} {trouble}connect to the network, put the file at {path}, "
                f"or name a folder that has it with --data-dir or {VARIABLE}"
            ) from error


def answers(url: str, seconds: float) -> bool:
    """Say whether a server answers within so many seconds, whatever it says; looking its name up counts too."""
    import requests

    answered = threading.Event()

    def ask() -> None:
        with suppress(Exception):  # a proxy that makes no sense raises what is no error of requests
            requests.head(url, timeout=seconds)
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)  # no time limit of requests holds for the lookup of a name
    asking.start()
    asking.join(seconds)
    return answered.is_set()


def _stream(url: str, place: str, _: object, *, limit: int) -> None:
    """Write what a server sends to a file, up to a limit in bytes: pooch's own downloader has no limit."""
    with Path(place).open("wb") as file:
        for chunk in _received(url):
            file.write(chunk)
            if file.tell() > limit:
                return  # what is there has another hash than the published file


def _received(url: str) -> Iterator[bytes]:
    """Yield what a server sends, and raise a `_NetworkError` for whatever goes wrong on the way."""
    import requests

    try:
        with requests.get(url, stream=True, timeout=_SILENCE) as answer:
            answer.raise_for_status()
            yield from answer.iter_content(2**20)
    except Exception as error:  # requests lets those of urllib3 and of the system through
        cause: BaseException = error
        while cause.__context__ is not None:  # the innermost says most
            cause = cause.__context__
        raise _NetworkError(f"({type(error).__name__}): {one_line(cause)}; ") from error


class _NetworkError(Exception):
    """Raised for what goes wrong between here and a server, whose file is not to blame."""


State = tuple[str, int, int]
"""The path, size and time of change of a file; while they stay the same, the content is taken to be the same."""


def state_of(path: Path) -> State:
    """Return the state of a file that exists."""
    status = path.stat()
    return str(path.absolute()), status.st_size, status.st_mtime_ns


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, or an empty text if there is no file to read."""
    return _sha256(state_of(path)) if path.is_file() else ""


@lru_cache(maxsize=16)
def _sha256(state: State) -> str:
    with Path(state[0]).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn any failure of a block to write below a folder into an InputError of one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror if type(error) is OSError else type(error).__name__  # as for a full disk
        raise InputError(
            f"{folder} cannot be written ({reason}): make it writable, with room on its disk, "
            f"or choose another folder with --data-dir or {VARIABLE}"
        ) from error
