"""A sealed file: read by its format's own readers, and refused after any change."""

from __future__ import annotations

import io

import polars as pl
import pytest
import torch
from safetensors.torch import load, save

from harness.results.seal import BLANK, KEY, check_seal, seal


def a_parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"value": [0.1, 0.2]}).write_parquet(buffer, metadata={KEY: BLANK})
    return buffer.getvalue()


def some_weights() -> bytes:
    return save({"weight": torch.arange(6.0)}, {KEY: BLANK})


@pytest.mark.parametrize("blank", [a_parquet(), some_weights()], ids=["parquet", "safetensors"])
def test_every_byte_is_under_the_seal(blank: bytes) -> None:
    sealed = seal(blank)
    check_seal(sealed)
    assert len(sealed) == len(blank)
    for place in range(len(sealed)):
        with pytest.raises(ValueError, match=r"it has no seal|its SHA-256 differs"):
            check_seal(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :])
        with pytest.raises(ValueError, match=r"it has no seal|its SHA-256 differs"):
            check_seal(sealed[:place])


def test_other_readers_see_an_ordinary_file() -> None:
    assert pl.read_parquet(io.BytesIO(seal(a_parquet())))["value"].to_list() == [0.1, 0.2]
    assert torch.equal(load(seal(some_weights()))["weight"], torch.arange(6.0))


@pytest.mark.parametrize("content", [b"", b"no blank", 2 * BLANK.encode(), seal(BLANK.encode())])
def test_only_one_blank_is_filled(content: bytes) -> None:
    with pytest.raises(ValueError, match="one blank seal"):
        seal(content)


def test_what_was_never_sealed() -> None:
    for content in (b"", b"PAR1", a_parquet(), 2 * seal(a_parquet())):
        with pytest.raises(ValueError, match=r"it has no seal|its SHA-256 differs"):
            check_seal(content)
