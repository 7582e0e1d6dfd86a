"""A digest of a file inside the file itself, so that damage is found before any parser reads the file.

Parquet and safetensors both store metadata of the writer's choice as plain text, and neither has a checksum of its
numbers. So a file is written with `BLANK` in its metadata, and `seal` replaces that text by the SHA-256 of the blank
file, which moves no byte. Any reader of the format still reads the file. A seal shows damage, not fraud: whoever alters
a file on purpose can seal it anew.
"""

import hashlib
import re

KEY = "sealed"
"""The name under which a file's metadata holds its seal."""

_PREFIX = "ebflow-bench sha256:"
BLANK = _PREFIX + "0" * 64
"""The text to write under `KEY` before `seal` is called."""

_SEAL = re.compile(re.escape(_PREFIX.encode()) + rb"([0-9a-f]{64})")


def seal(content: bytes) -> bytes:
    """Return a file with its digest in place of `BLANK`.

    Args:
        content: A whole file that holds `BLANK` once.

    Raises:
        ValueError: if the file holds `BLANK` more or less often than once.
    """
    blank = BLANK.encode()
    if content.count(blank) != 1:
        raise ValueError("the content must hold one blank seal")
    return content.replace(blank, _PREFIX.encode() + hashlib.sha256(content).hexdigest().encode())


def check_seal(content: bytes) -> None:
    """Compare a file with the digest in it.

    Args:
        content: A whole file as `seal` returned it.

    Raises:
        ValueError: if the file has no seal, or differs from what was sealed.
    """
    seals = list(_SEAL.finditer(content))
    if len(seals) != 1:
        raise ValueError("it has no seal: it was truncated, or another program wrote it")
    (start, end), digest = seals[0].span(1), seals[0][1].decode()
    if hashlib.sha256(content[:start] + b"0" * 64 + content[end:]).hexdigest() != digest:
        raise ValueError("its content is not what was written: its SHA-256 differs")
