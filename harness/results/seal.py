"""A digest of a file inside the file itself: damage is found before any parser looks.

Parquet and safetensors both keep texts of the writer's choice as they are, uncompressed, and neither has a checksum of
its numbers. So a file is written with `BLANK` among these texts, and `seal` puts the SHA-256 of the blank file in its
place, which moves no byte. Any reader of the format still reads it. A seal tells damage, not fraud: whoever alters a
file on purpose can seal it anew.
"""

from __future__ import annotations

import hashlib
import re

KEY = "sealed"
"""Name of the text in a file's metadata."""

_PREFIX = "ebflow-bench sha256:"
BLANK = _PREFIX + "0" * 64
"""The text to write under `KEY`."""

_SEAL = re.compile(re.escape(_PREFIX.encode()) + rb"([0-9a-f]{64})")


def seal(content: bytes) -> bytes:
    """Put the digest in.

    Args:
        content: A whole file that holds `BLANK` once.
    """
    blank = BLANK.encode()
    if content.count(blank) != 1:
        raise ValueError("the content must hold one blank seal")
    return content.replace(blank, _PREFIX.encode() + hashlib.sha256(content).hexdigest().encode())


def check_seal(content: bytes) -> None:
    """Compare a file with the digest in it.

    Args:
        content: A whole file as `seal` left it.

    Raises:
        ValueError: It has no seal, or is not what was sealed.
    """
    found = list(_SEAL.finditer(content))
    if len(found) != 1:
        raise ValueError("it has no seal: it was truncated, or another program wrote it")
    (start, end), digest = found[0].span(1), found[0][1].decode()
    if hashlib.sha256(content[:start] + b"0" * 64 + content[end:]).hexdigest() != digest:
        raise ValueError("its content is not what was written: its SHA-256 differs")
