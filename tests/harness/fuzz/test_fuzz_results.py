"""Results: what was altered is named and never read; hostile rows crash no table and lead out of no folder."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import mutated_bytes, mutated_json

from harness.cli import program as cli
from harness.results import SCHEMA, Row, Store, to_frame
from harness.results.file import dump
from harness.timing import asv_results

_ARRAYS = {"samples": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "levels": np.array([17])}
_METRICS = [
    *("seconds_per_iteration", "seconds_per_gradient", "gradient_bound", "iteration_bound", "peak_memory", "flops"),
    *("nll", "bits_per_dim", "validation_nll", "validation_curve", "gradient_norm", "kl", "fisher", "nll_of_draw"),
    *("training_seconds", "training_iterations", "psnr", "log_z_error"),
]


def alter(path: Path, data: st.DataObject) -> bool:
    """Alter a file as damage would, and return whether it is another one now."""
    whole = path.read_bytes()
    path.write_bytes(data.draw(mutated_bytes(whole)))
    return path.read_bytes() != whole


@given(data=st.data(), arrays=st.booleans())
def test_altered_cells_are_named_and_never_read(
    data: st.DataObject,
    arrays: bool,
    make_row: Callable[..., Row],
    within_time: Callable[..., Any],
    empty_folder: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    with empty_folder() as folder, within_time():
        store = Store(folder)
        other = store.write([make_row(cell="f" * 16)])
        rows = [make_row(value=value, metric=metric) for value, metric in ((0.1, "nll"), (1e-300, "kl"))]
        path = store.write(rows, _ARRAYS)
        if arrays:
            path = path.with_suffix(".safetensors")
        altered = alter(path, data)

        frame, notes = store.frame()
        found = [Row(**row) for row in frame.select(*SCHEMA).iter_rows(named=True)]
        assert make_row(cell="f" * 16) in found, "the other cell is read in any case"
        assert other.exists()
        left = store.arrays(rows[0].experiment, rows[0].cell)
        assert all("\n" not in note for note in notes)
        if arrays:
            assert found == [*rows, make_row(cell="f" * 16)]
        elif altered:
            assert len(found) == 1
            assert any(str(path) in note for note in notes)
            assert store.read(rows[0].experiment, rows[0].cell) == []
        if arrays and altered:
            assert left == {}
            assert any(str(path) in note for note in store.notes)
    assert "panicked" not in capfd.readouterr().err


@given(data=st.data(), arrays=st.booleans())
def test_altered_packs_are_named_and_never_read(
    data: st.DataObject,
    arrays: bool,
    make_row: Callable[..., Row],
    within_time: Callable[..., Any],
    empty_folder: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    with empty_folder() as folder, within_time():
        store = Store(folder)
        rows = [make_row(cell=digit * 16, value=0.1) for digit in "abc"]
        for row in rows:
            store.write([row], _ARRAYS)
        store.pack()
        single = make_row(cell="d" * 16)
        store.write([single])
        path = store.pack_path(single.experiment)
        if arrays:
            path = path.with_suffix(".safetensors")
        altered = alter(path, data)

        store = Store(folder)
        frame, notes = store.frame()
        left = [store.arrays(row.experiment, row.cell) for row in rows]
        expected = [*rows, single] if arrays or not altered else [single]
        assert [Row(**row) for row in frame.select(*SCHEMA).iter_rows(named=True)] == expected
        assert all("\n" not in note for note in notes)
        if altered:
            assert any(str(path) in note for note in store.notes)
            if arrays:
                assert left == [{}, {}, {}]
    assert "panicked" not in capfd.readouterr().err


_HOSTILE = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            *("../../up", "/up", "..", "", "a/b", "$\\frac{$", "$$", "_hidden", "x" * 300, "\x1b[2J", "a\nb", "|"),
            *("<script>alert(1)</script>", "{}", "{", "[/b]", "%s", "\u202e", "null", '{"config": 3}', "nflows-ml"),
        ]
    ),
)
# The texts are hostile; numbers are such as can be drawn.
_NUMBERS = st.floats(1e-6, 1e6)
_WHOLE = st.integers(1, 5000)

_KINDS = {float: _NUMBERS, int: _WHOLE, str: _HOSTILE}
_TYPES = {
    name: next(kind for kind in _KINDS if kind in (own, *get_args(own))) for name, own in get_type_hints(Row).items()
}


@st.composite
def hostile_rows(draw: st.DrawFn, make_row: Callable[..., Row]) -> list[Row]:
    """Rows of the right types with anything in them, of one cell."""
    shared: dict[str, Any] = {
        "experiment": draw(st.sampled_from(["runtime", "table1-2d", "$\\frac{$", "<b>", "é %s|"]))
    }
    fixed = ("cell", "experiment", "metric", "value", "status", "reason", "iteration")
    names = [field.name for field in fields(Row) if field.name not in fixed]
    for name in draw(st.lists(st.sampled_from(names), max_size=4, unique=True)):
        shared[name] = draw(_KINDS[_TYPES[name]])
    rows = []
    for index, metric in enumerate(draw(st.lists(st.sampled_from(_METRICS), min_size=1, max_size=4))):
        status = draw(st.sampled_from(["ok", "ok", "ok", "diverged", "failed", "unavailable"]))
        value = draw(_NUMBERS) if status == "ok" else None
        own = {"D": draw(st.sampled_from([16, 64]))} | shared
        own |= {"iteration": index, "reason": None if status == "ok" else draw(_HOSTILE)}
        rows.append(make_row(metric=metric, status=status, value=value, **own))
    return rows


@settings(max_examples=settings().max_examples // 5)  # each draws figures
@given(data=st.data())
def test_hostile_rows_become_text_and_stay_in_their_folder(
    data: st.DataObject,
    make_row: Callable[..., Row],
    within_time: Callable[..., Any],
    empty_folder: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = data.draw(hostile_rows(make_row))
    with empty_folder() as outside, within_time():
        folder = outside / "deep" / "results"
        path = Store(folder).path(rows[0].experiment, rows[0].cell)
        path.parent.mkdir(parents=True)
        path.write_bytes(dump(to_frame(rows)))  # without what the store itself refuses to write
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        page = folder / "report.html"
        commands = [("tables", "--write"), ("figures", "--write"), ("report", "--output", str(page)), ("leaderboard",)]
        for command in (*commands, ("results", "verify", str(folder))):
            monkeypatch.setattr(sys, "argv", ["harness", *command, "--results-dir", str(folder)])
            with pytest.raises(SystemExit) as end:
                cli.main()
            assert end.value.code in (0, 1, 2, None)
        if page.exists():
            assert_only_text(page.read_text())
        assert [place.name for place in outside.iterdir()] == ["deep"]
        assert [place.name for place in (outside / "deep").iterdir()] == ["results"]
        for stream in (out, err):
            stream.seek(0)
            assert all(character.isprintable() or character in "\n\u2009" for character in stream.read())


class _Elements(HTMLParser):
    """Collects what in a page is not text."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.handlers = 0, []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.handlers += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


def assert_only_text(page: str) -> None:
    """Hold a page to its own script: nothing that rows say has become another."""
    found = _Elements()
    found.feed(page)
    assert (found.scripts, found.handlers) == (1, [])


_ASV = {
    "commit_hash": "c" * 40,
    "env_name": "virtualenv-py3.11",
    "date": 1_700_000_000_000,
    "params": {"machine": "box", "cpu": "a cpu", "num_cpu": "2"},
    "requirements": {"torch": "2.13.0"},
    "env_vars": {"OMP_NUM_THREADS": "1"},
    "result_columns": ["result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b"],
    "results": {
        "iteration.TrainingIteration.time_iteration": [
            [0.1, 0.2, 0.3, 0.4],
            [["'ebflow-dsm'", "'nflows-lu-ml'"], ["16", "64"], ["2"]],
            "v",
            1_700_000_000_000,
            3.2,
            [0.09, 0.19, 0.29, 0.39],
            [0.11, 0.21, 0.31, 0.41],
        ]
    },
}


def _as_bytes(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


@given(content=mutated_json(_ASV).map(_as_bytes) | mutated_bytes(_as_bytes(_ASV)))
@example(content=_as_bytes(_ASV))
def test_asv_s_results_are_rows_or_named(
    content: bytes, within_time: Callable[..., Any], empty_folder: Callable[..., Any]
) -> None:
    with empty_folder() as folder, within_time():
        (folder / "box").mkdir()
        (folder / "box" / "0123-env.json").write_bytes(content)
        rows, damaged = asv_results.read(folder)
        assert all("\n" not in note for note in damaged)
        assert not (rows and damaged)
        frame = to_frame(rows)
        assert [Row(**row) for row in frame.iter_rows(named=True)] == rows
        for row in rows:
            assert row.D >= 1
            assert row.L >= 1
            for number in (row.value, row.ci_low, row.ci_high):
                assert number is None or (number > 0 and math.isfinite(number))
