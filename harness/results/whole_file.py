"""The one way in which this project writes a file that must be whole: beside its place, synced, renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path


def put(path: Path, content: bytes) -> None:
    """Write a file that is whole from the moment it has its name; whatever fails, what was there stays.

    Args:
        path: Where; its folder is made. Of a symbolic link, what it points to is replaced.
        content: All of it.

    Raises:
        OSError: The system refuses, or a device, a pipe or a folder is there.
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
    """Return what kills in the middle of `put` have left beside a file."""
    return list(path.parent.glob(f"{_prefix(path)}*"))


def _prefix(path: Path) -> str:
    return f".{path.name}-"
