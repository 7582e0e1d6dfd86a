"""What can happen to a file: strategies for its bytes, and for the values of a JSON document."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

__all__ = ["mutated_bytes", "mutated_json"]

_EVIL_BYTES = st.sampled_from(
    [b"\0", b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + b"\0" * 7, b"\n", b"(", b"'", b"9" * 30, b"-1"]
)
_EVIL_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**31, 2**63, -(2**63) - 1, 10**400]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["../up", "/root", "a\nb", "\x1b[31m", "$\\frac", "<b>", "|", "(" * 300, "'x'", "[1]", "1e999"]),
    st.lists(st.none() | st.integers(), max_size=3),
    st.just({}),
    st.just([[["1", "2"] * 500] * 3]),
)


@st.composite
def mutated_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Change one to four places of a file: flip, overwrite, insert, remove, repeat, or cut it off."""
    for _ in range(draw(st.integers(1, 4))):
        # Formats keep what they are at both ends.
        at = draw(st.one_of(*(st.integers(0, len(content)), st.integers(0, min(200, len(content))))))
        at = len(content) - at if draw(st.booleans()) else at
        length = draw(st.integers(1, 64))
        kind = draw(st.sampled_from(["flip", "write", "insert", "remove", "repeat", "cut"]))
        if kind == "flip" and at < len(content):
            new = bytes([content[at] ^ (1 << draw(st.integers(0, 7)))])
            content = content[:at] + new + content[at + 1 :]
        elif kind in ("write", "insert"):
            new = draw(_EVIL_BYTES | st.binary(min_size=1, max_size=64))
            content = content[:at] + new + content[at + (len(new) if kind == "write" else 0) :]
        elif kind == "remove":
            content = content[:at] + content[at + length :]
        elif kind == "repeat":
            content = content[: at + length] + content[at:]
        else:
            content = content[:at]
    return content


@st.composite
def mutated_json(draw: st.DrawFn, document: Any) -> Any:
    """Change one to three values of a document, at any depth, or drop or rename them."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        parent, key = None, None
        node = document
        while isinstance(node, dict | list) and node and (parent is None or draw(st.integers(0, 4))):
            keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
            parent, key = node, draw(st.sampled_from(keys))
            node = node[key]
        if parent is None:
            return draw(_EVIL_VALUES)
        kind = draw(st.sampled_from(["replace", "replace", "replace", "drop", "rename"]))
        if kind == "replace":
            parent[key] = deepcopy(draw(_EVIL_VALUES))  # it may be changed next
        elif kind == "drop":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=5))] = parent.pop(key)
    return document
