"""Rows and their store: whole or absent, whatever happens, and nobody else's file in the way."""

from __future__ import annotations

import dataclasses
import io
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from harness.errors import InputError
from harness.results import SCHEMA, Row, Store, cell_key, to_frame

MakeRow = Callable[..., Row]


def test_every_column_has_a_type() -> None:
    assert list(SCHEMA) == [field.name for field in dataclasses.fields(Row)]
    assert SCHEMA["value"] == pl.Float64
    assert SCHEMA["D"] == pl.Int64
    assert SCHEMA["n"] == pl.Int64
    assert SCHEMA["reason"] == pl.String


def test_frame_keeps_every_value(make_row: MakeRow) -> None:
    rows = [make_row(), make_row(value=None, ci_low=None, n=None, status="failed", reason="so")]
    frame = to_frame(rows)
    assert frame.schema == pl.Schema(SCHEMA)
    assert [Row(**entry) for entry in frame.iter_rows(named=True)] == rows
    assert to_frame([]).schema == pl.Schema(SCHEMA)


def test_store_gives_back_what_it_keeps(tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path / "not" / "yet")
    rows = [make_row(value=0.1), make_row(method="other", value=1e-300)]
    path = store.write(rows)
    assert path == tmp_path / "not" / "yet" / "cells" / "runtime" / "0123456789abcdef.parquet"
    assert store.read("runtime", "0123456789abcdef") == rows
    assert store.read("runtime", "another") == []
    other = store.write([make_row(experiment="train", cell="f" * 16)])
    assert sorted(store.folder.rglob("*.parquet")) == sorted([path, other])
    frame, damaged = store.frame()
    assert frame["experiment"].to_list() == ["runtime", "runtime", "train"]
    assert damaged == []
    # Other users of the machine may read results.
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_empty_store_is_an_empty_frame(tmp_path: Path) -> None:
    frame, damaged = Store(tmp_path / "nothing").frame()
    assert frame.is_empty()
    assert damaged == []


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file(
    broken: str, tmp_path: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    path = store.write([make_row(value=1.0)])

    def fail(*arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(*{"fsync": (os, "fsync", fail), "replace": (Path, "replace", fail)}[broken])
    with pytest.raises(InputError, match=r"cannot be written \(no space left on device\); make room"):
        store.write([make_row(value=2.0)])
    assert store.read("runtime", path.stem) == [make_row(value=1.0)]
    assert list(path.parent.iterdir()) == [path]


def test_the_new_file_is_whole_before_it_takes_its_place(
    tmp_path: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        renamed.append((self.parent == target.parent, self.suffix, pl.read_parquet(self)["value"].item()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    Store(tmp_path).write([make_row(value=3.0)])
    # In the same folder, so that the rename is atomic; of no suffix that a reader takes for a cell.
    assert renamed == [(True, "", 3.0)]


def test_a_killed_writer_leaves_nothing_that_is_read(tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path)
    path = store.write([make_row()])
    (path.parent / f".{path.stem}-abc123").write_text('[{"cell": "012')
    frame, damaged = store.frame()
    assert len(frame) == 1
    assert damaged == []


def parquet(row: Row, **columns: object) -> bytes:
    buffer = io.BytesIO()
    to_frame([replace(row, cell="bad")]).with_columns(**columns).write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda row: b"", "no Parquet file"),
        (lambda row: parquet(row)[:-40], "no Parquet file"),
        (lambda row: parquet(row)[:200] + b"?" * 300 + parquet(row)[500:], "no Parquet file|no readable|columns"),
        (lambda row: b"[{}]", "no Parquet file"),
        (lambda row: b"\xff\xfe\x00", "no Parquet file"),
        (lambda row: parquet(row, new_column=pl.lit(1)), "its rows have other columns than this version writes"),
        (lambda row: parquet(row, cell=pl.lit("good")), "it holds rows of cell good, which belong elsewhere"),
        (lambda row: parquet(row, experiment=pl.lit("x")), "it holds rows of experiment x, which belong elsewhere"),
        (lambda row: parquet(row, value=pl.lit(math.inf)), "it holds a number that is not finite"),
        (lambda row: parquet(row, value=pl.lit(None, pl.Float64)), "status and value contradict each other"),
        (lambda row: parquet(row, status=pl.lit("failed")), "status and value contradict each other"),
        (lambda row: parquet(row, status=pl.lit("great")), "status and value contradict each other"),
        (lambda row: parquet(row, value=pl.lit("fast")), "its rows have other columns than this version writes"),
    ],
)
def test_a_file_that_is_no_cell_is_named_and_the_others_are_read(
    content: Callable[[Row], bytes], reason: str, tmp_path: Path, make_row: MakeRow
) -> None:
    store = Store(tmp_path)
    store.write([make_row()])
    bad = store.write([make_row(cell="bad")])
    bad.write_bytes(content(make_row()))
    frame, damaged = store.frame()
    assert frame["cell"].to_list() == ["0123456789abcdef"]
    assert len(damaged) == 1
    aside = tmp_path / "damaged" / "runtime" / "bad.parquet"
    assert damaged[0].startswith(f"{bad}: not a readable cell (")
    assert damaged[0].endswith(f"): moved to {aside}")
    assert aside.read_bytes() == content(make_row())
    assert not bad.exists()
    assert "\n" not in damaged[0]
    assert any(part in damaged[0] for part in reason.split("|"))
    # Asked for by itself it counts as never measured.
    assert store.read("runtime", "bad") == []


def test_a_cell_without_rows_is_named(tmp_path: Path, make_row: MakeRow) -> None:
    bad = Store(tmp_path).write([make_row()])
    to_frame([]).write_parquet(bad)
    assert Store(tmp_path).frame()[1][0].startswith(f"{bad}: not a readable cell (it holds no rows)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_not_written(value: float, tmp_path: Path, make_row: MakeRow) -> None:
    with pytest.raises(ValueError, match="a row of ebflow-ml holds a number that is not finite"):
        Store(tmp_path).write([make_row(value=value)])
    assert list(tmp_path.rglob("*.parquet")) == []


def test_key_is_of_the_content_and_not_of_its_order() -> None:
    assert cell_key({"a": 1, "b": (2,)}) == cell_key({"b": [2], "a": 1})
    assert cell_key({"a": 1}) != cell_key({"a": 2})
    assert cell_key({"a": 1}) != cell_key({"b": 1})
    assert len(cell_key({})) == 16


def test_a_cell_from_before_a_column_was_added_is_read(tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path)
    path = store.write([make_row(limits="it cannot draw samples")])
    pl.read_parquet(path).drop("limits").write_parquet(path)
    (row,) = store.read(path.parent.name, path.stem)
    assert row == make_row(limits=None)
