"""Rows and their store: whole or absent, whatever happens, and nobody else's file in the way."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness.errors import InputError
from harness.results import SCHEMA, Row, Store, cell_key, to_frame
from harness.results import store as store_module
from harness.results.file import SCHEMA_VERSION, dump
from harness.results.seal import BLANK, KEY, seal

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
        renamed.append((self.parent == target.parent, self.match("*.parquet"), pl.read_parquet(self)["value"].item()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    Store(tmp_path).write([make_row(value=3.0)])
    # In the same folder, so that the rename is atomic; of no name that a reader takes for a cell.
    assert renamed == [(True, False, 3.0)]


def test_a_killed_writer_leaves_nothing_that_is_read(tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path)
    path = store.write([make_row()])
    (path.parent / f".{path.stem}-abc123").write_text('[{"cell": "012')
    frame, damaged = store.frame()
    assert len(frame) == 1
    assert damaged == []


def parquet(row: Row, **columns: object) -> bytes:
    return dump(to_frame([replace(row, cell="bad")]).with_columns(**columns))


def unsealed(row: Row) -> bytes:
    buffer = io.BytesIO()
    to_frame([replace(row, cell="bad")]).write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda row: b"", "no Parquet file"),
        (lambda row: parquet(row)[:-40], "its SHA-256 differs"),
        (lambda row: parquet(row)[:200] + b"?" * 300 + parquet(row)[500:], "its SHA-256 differs"),
        (lambda row: unsealed(row)[:-40], "no Parquet file"),
        (lambda row: unsealed(row)[:200] + b"?" * 300 + unsealed(row)[500:], "no Parquet file"),
        (lambda row: unsealed(row), "its rows are not of version 1 of the schema"),
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
    assert damaged[0].startswith(f"{bad}: not a readable cell (")
    assert damaged[0].endswith("): left where it is, until a run needs it or harness results verify sets it aside")
    assert "\n" not in damaged[0]
    assert any(part in damaged[0] for part in reason.split("|"))
    assert bad.read_bytes() == content(make_row())
    # A run that asks for it counts it as never measured, and keeps it elsewhere.
    assert store.read("runtime", "bad") == []
    aside = tmp_path / "damaged" / "runtime" / "bad.parquet"
    assert store.notes[-1].endswith(f"): moved to {aside}")
    assert aside.read_bytes() == content(make_row())
    assert not bad.exists()


def test_a_cell_without_rows_is_named(tmp_path: Path, make_row: MakeRow) -> None:
    bad = Store(tmp_path).write([make_row()])
    to_frame([]).write_parquet(bad)
    assert Store(tmp_path).frame()[1][0].startswith(f"{bad}: not a readable cell (it holds no rows)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_not_written(value: float, tmp_path: Path, make_row: MakeRow) -> None:
    with pytest.raises(ValueError, match="the rows of ebflow-ml cannot be kept: it holds a number that is not finite"):
        Store(tmp_path).write([make_row(value=value)])
    assert list(tmp_path.rglob("*.parquet")) == []


@pytest.mark.parametrize("column", ["method", "config", "D"])
def test_rows_that_lack_something_are_not_written_nor_read(column: str, tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match=f"it holds a row without {column}$"):
        store.write([make_row(**{column: None})])
    path = store.write([make_row()])
    path.write_bytes(dump(to_frame([replace(make_row(), cell=path.stem, **{column: None})])))
    assert store.frame()[1][0].startswith(f"{path}: not a readable cell (it holds a row without {column})")


def test_a_file_beyond_any_size_is_named_and_not_read_whole(
    tmp_path: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    path = store.write([make_row()], {"x": np.zeros(3)})
    monkeypatch.setattr(store_module, "_LARGEST", 100)
    assert store.arrays(path.parent.name, path.stem) == {}
    assert store.verify() == 0
    assert len(store.notes) == 2


def test_a_note_is_one_line(tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path)
    (store.write([make_row()]).parent / "a\nb").touch()
    store.verify()
    (note,) = (note for note in store.notes if "not a cell's file" in note)
    assert "a\\nb" in note


def test_key_is_of_the_content_and_not_of_its_order() -> None:
    assert cell_key({"a": 1, "b": (2,)}) == cell_key({"b": [2], "a": 1})
    assert cell_key({"a": 1}) != cell_key({"a": 2})
    assert cell_key({"a": 1}) != cell_key({"b": 1})
    assert len(cell_key({})) == 16


VERSION_1 = [name for name in SCHEMA if name not in ("iteration", "seconds", "limits")]


VERSION_1_CONFIG = {
    "kind": "RuntimeCell",
    "experiment": "runtime",
    "profile": "custom",
    "problem": {"dtype": "float32", "device": "cpu", "seed": 0, "shape": [256]},
    "config": {"epochs": 10_000},
    "methods": ["ebflow-ml"],
    "repeats": 7,
    "threads": 2,
    "cpu": "a cpu, 2 cores",
    "gpu": None,
    "versions": {},
    "project": "0.1.0",
}


@pytest.mark.parametrize("columns", [VERSION_1, [*VERSION_1, "iteration", "seconds"], list(SCHEMA)])
def test_files_of_version_1_are_read_and_renamed_where_they_are_merged(
    columns: list[str], tmp_path: Path, make_row: MakeRow
) -> None:
    store, into, row = Store(tmp_path / "old"), Store(tmp_path / "new"), make_row(config=json.dumps(VERSION_1_CONFIG))
    path = store.write([row], {"samples": np.arange(3)})
    to_frame([row]).select(columns).write_parquet(path)
    (migrated,) = store.read(path.parent.name, path.stem)
    assert replace(migrated, cell=row.cell, config=row.config) == row
    assert migrated.cell == cell_key(json.loads(migrated.config)["identity"]) != path.stem
    for packed in (False, True):
        assert store.frame()[0].select(*SCHEMA).equals(to_frame([migrated]))
        assert (store.frame()[1], store.verify()) == ([], 1)
        if not packed:
            assert into.merge(store).taken == 1
            assert into.read("runtime", migrated.cell) == [migrated]
            assert into.arrays("runtime", migrated.cell)["samples"].tolist() == [0, 1, 2]
            store.pack()
    # Packed, the arrays have the name that their rows have now.
    assert store.arrays("runtime", migrated.cell)["samples"].tolist() == [0, 1, 2]


def test_of_an_old_and_a_new_name_of_a_cell_the_new_one_counts(tmp_path: Path, make_row: MakeRow) -> None:
    store, row = Store(tmp_path), make_row(config=json.dumps(VERSION_1_CONFIG))
    old = store.write([row])
    to_frame([row]).write_parquet(old)
    (migrated,) = store.read("runtime", old.stem)
    store.write([replace(migrated, value=7.0)])
    assert store.frame()[0]["value"].to_list() == [7.0]
    assert store.pack() == 1
    assert store.frame()[0]["value"].to_list() == [7.0]


def test_the_reference_results_are_as_they_were_written(tmp_path: Path) -> None:
    reference = Path(__file__).parents[3] / "results" / "reference"
    shutil.copytree(reference / "cells", tmp_path / "cells")
    store = Store(tmp_path)
    assert store.verify() == store.frame()[0]["cell"].n_unique() > 100
    assert store.notes == []


def test_a_file_of_a_later_version_stays_where_it_is(tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path)
    path = store.write([make_row()])
    metadata = {"schema": str(SCHEMA_VERSION + 1), KEY: BLANK}
    buffer = io.BytesIO()
    to_frame([make_row()]).with_columns(quite_new=pl.lit(1)).write_parquet(buffer, metadata=metadata)
    later = seal(buffer.getvalue())
    path.write_bytes(later)
    reason = f"it is of version {SCHEMA_VERSION + 1} of the schema, and this program reads up to {SCHEMA_VERSION}"
    assert store.frame()[1] == [f"{path}: not read: {reason}: upgrade it"]
    # Nothing takes its place unasked.
    with pytest.raises(InputError, match=reason):
        store.read(path.parent.name, path.stem)
    assert path.read_bytes() == later


def test_every_flipped_byte_is_found(tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path)
    path = store.write([make_row()])
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert store.read(path.parent.name, path.stem) == []
    assert len(list(tmp_path.glob("damaged/runtime/*"))) == len(range(0, len(whole), 97))


def test_altered_rows_are_found_out_by_their_key(tmp_path: Path, make_cell_row: MakeRow) -> None:
    store = Store(tmp_path)
    row = make_cell_row(0)
    good = store.write([row])
    changed = store.write([replace(row, cell=(other := 16 * "a"))])
    senseless = store.write([replace(row, cell=16 * "b", config="{")])
    disagreeing = store.write([replace(make_cell_row(1), D=17)])
    stray = good.with_name("notes.txt")
    stray.write_text("mine")
    assert len(store.frame()[0]) == 4
    assert store.verify() == 1
    reasons = {
        changed: f"its configuration is that of cell {row.cell}",
        senseless: "its configuration is not that of a cell",
        disagreeing: "its configuration and its rows disagree in D",
    }
    aside = tmp_path / "damaged" / "runtime"
    assert sorted(store.notes) == sorted(
        [
            *(f"{path}: not a readable cell ({reasons[path]}): moved to {aside / path.name}" for path in reasons),
            f"{stray}: not a cell's file; left where it is",
        ]
    )
    assert other not in store.frame()[0]["cell"]
    assert stray.exists()


def test_of_a_folder_that_cannot_be_written_damage_is_named(
    tmp_path: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    bad = store.write([make_row()])
    bad.write_bytes(b"PAR1")

    def refuse(self: Path, *arguments: object, **named: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert store.verify() == 0
    assert store.notes[0].endswith("it cannot be moved; delete it to have it measured again")
    assert bad.exists()


def test_a_whole_file_that_comes_in_between_is_not_set_aside(
    tmp_path: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    path = store.write([make_row()])
    path.write_bytes(b"PAR1")
    mkdir = Path.mkdir

    def meanwhile(self: Path, *mode: int, **named: bool) -> None:
        mkdir(self, *mode, **named)
        if self.name == "runtime" and self.parent.name == "damaged":
            Store(tmp_path).write([make_row(value=2.0)])

    monkeypatch.setattr(Path, "mkdir", meanwhile)
    assert store.read("runtime", path.stem) == []
    assert store.read("runtime", path.stem) == [make_row(value=2.0)]


def test_the_later_write_counts_whatever_the_clock_says(tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path)
    store.write([make_row(value=1.0, started_at="2025-01-02T00:00:00+00:00")])
    store.write([make_row(value=2.0, started_at="1970-01-01T00:00:00+00:00")])
    assert store.frame()[0]["value"].to_list() == [2.0]


def test_arrays_lie_beside_and_their_damage_is_named(tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path)
    path = store.write([make_row()], {"samples": np.arange(6.0)})
    assert store.arrays("runtime", path.stem)["samples"].tolist() == [0, 1, 2, 3, 4, 5]
    beside = path.with_suffix(".safetensors")
    beside.write_bytes(beside.read_bytes()[:-1])
    assert store.arrays("runtime", path.stem) == {}
    assert store.notes[0].startswith(f"{beside}: no readable arrays (")
    store.write([make_row()])
    assert not beside.exists()


def test_eight_processes_fill_one_store(tmp_path: Path, eight_writers: Callable[[Path], Any]) -> None:
    assert [process.wait() for process in eight_writers(tmp_path)] == [0] * 8
    store = Store(tmp_path)
    assert store.verify() == 40
    assert store.notes == []
    assert sorted(store.frame()[0]["value"]) == list(range(1, 41))
    # And nothing is left that was written beside.
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 80


def test_merging_takes_what_is_missing_and_says_what_differs(tmp_path: Path, make_cell_row: MakeRow) -> None:
    def row(number: int, **columns: Any) -> Row:
        return make_cell_row(number, metric="nll", unit="nats", **columns)

    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    same, other_result, unfinished_here, unfinished_there, new, bad = range(6)
    for number in (same, other_result, unfinished_there):
        here.write([row(number, value=1.0)])
    here.write([row(unfinished_here, value=None, status="failed", reason="so")])
    there.write([row(same, value=1.0, started_at="2030-01-01T00:00:00+00:00", commit="d" * 40)])
    differing = there.write([row(other_result, value=2.0)])
    there.write([row(unfinished_here, value=3.0)])
    there.write([row(unfinished_there, value=None, status="unavailable", reason="so")])
    there.write([row(new, value=4.0)], {"samples": np.arange(3)})
    damaged = there.write([row(bad, value=5.0)])
    damaged.write_bytes(b"")
    merged = here.merge(there)
    assert (merged.taken, merged.known, merged.left_out) == (2, 3, 1)
    assert {line.split(": ")[0]: line.split(": ")[1] for line in merged.notes} == {
        str(differing): f"other results than the same cell has in {here.folder}, which stay",
        str(damaged): "left out",
    }
    assert damaged.exists()
    assert sorted(here.frame()[0]["value"]) == [1.0, 1.0, 1.0, 3.0, 4.0]
    assert here.arrays("runtime", row(new).cell)["samples"].tolist() == [0, 1, 2]
    assert here.verify() == 5
    # A second time nothing is new.
    assert here.merge(there).taken == 0


def test_arrays_lie_beside_the_rows_of_their_cell(tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path)
    kept = {"samples": np.arange(6, dtype=np.uint8).reshape(1, 2, 3), "extent": np.array([-1.0, 1.0])}
    path = store.write([make_row()], kept)
    beside = path.with_suffix(".safetensors")
    assert sorted(path.parent.iterdir()) == [path, beside]
    found = store.arrays("runtime", path.stem)
    assert found.keys() == kept.keys()
    assert all(np.array_equal(found[name], kept[name]) and found[name].dtype == kept[name].dtype for name in kept)
    assert store.frame()[1] == []
    beside.write_bytes(b"torn")
    assert store.arrays("runtime", path.stem) == {}
    assert store.arrays("runtime", "another") == {}
    # What was measured anew and has none does not keep those of before.
    store.write([make_row()], kept)
    store.write([make_row(status="failed", value=None, reason="so")])
    assert list(path.parent.iterdir()) == [path]
