"""The one way in which this project writes a file that must be whole: beside its place, then synced and renamed."""

import errno
import os
import tempfile
from pathlib import Path


def put(path: Path, content: bytes) -> None:
    """Write a file that is whole from the moment it has its name; if anything fails, an earlier file stays.

    Args:
        path: The file to write. Its folder is created. If it is a symbolic link, the link's target is replaced.
        content: All bytes of the file.

    Raises:
        OSError: if the operating system refuses, or a device, a pipe or a folder has that name.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "it is there and no regular file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_prefix(path), delete=False) as file:
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


def leftovers(path: Path) -> list[Path]:
    """Return the unfinished files that kills in the middle of `put` have left beside a file."""
    return list(path.parent.glob(f"{_prefix(path)}*"))


def _prefix(path: Path) -> str:
    return f".{path.name}-"
