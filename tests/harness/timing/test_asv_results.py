"""What asv leaves behind: its NaNs, its cut-off columns, its failures, and files that are no results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.report import publish
from harness.results import to_frame
from harness.results.derived import derived
from harness.timing import asv_results

ITERATION = "iteration.TrainingIteration.time_iteration"
COLUMNS = [
    "result",
    "params",
    "version",
    "started_at",
    "duration",
    "stats_ci_99_a",
    "stats_ci_99_b",
    "stats_q_25",
    "stats_q_75",
    "stats_number",
    "stats_repeat",
    "samples",
    "profile",
]
PARAMS = [["'ebflow-dsm'", "'nflows-lu-ml'"], ["16", "64"], ["2"]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a result file as asv 0.6 does: NaN as a bare word, columns that hold nothing cut off at the end."""

    def write(results: dict[str, list[Any]], name: str = "0123abcd-env.json", **changes: Any) -> Path:
        content = {
            "commit_hash": "c" * 40,
            "env_name": "virtualenv-py3.11",
            "date": 1_700_000_000_000,
            "params": {"machine": "box", "cpu": "a cpu", "num_cpu": "2", "os": "Linux"},
            "python": "3.11",
            "requirements": {"torch": "2.13.0"},
            "env_vars": {"OMP_NUM_THREADS": "1"},
            "result_columns": COLUMNS,
            "results": results,
            "durations": {},
            "version": 2,
            **changes,
        }
        path = tmp_path / "box" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        (path.parent / "machine.json").write_text("{}")
        (tmp_path / "benchmarks.json").write_text("not for us")
        return path

    return write


def full(*seconds: float | None) -> list[Any]:
    known = [None if s is None or s != s else s for s in seconds]
    low = [None if s is None else 0.9 * s for s in known]
    high = [float("nan") if s is None else 1.1 * s for s in known]
    return [list(seconds), PARAMS, "v", 1_700_000_000_000, 3.2, low, high, low, high, [1] * 4, [10] * 4]


def test_numbers_come_over(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write({ITERATION: full(0.1, 0.2, float("nan"), None), "something.else": [1]})
    assert "NaN" in path.read_text()
    rows, damaged = asv_results.read(tmp_path)
    assert damaged == []
    # NaN: a point that this run of asv left out. null: one that failed.
    assert [(row.method, row.D, row.value, row.status) for row in rows] == [
        ("ebflow-dsm", 16, 0.1, "ok"),
        ("ebflow-dsm", 64, 0.2, "ok"),
        ("nflows-lu-ml", 64, None, "failed"),
    ]
    good, _, bad = rows
    assert (good.ci_low, good.ci_high, good.n) == (pytest.approx(0.09), pytest.approx(0.11), 10)
    assert (bad.ci_low, bad.ci_high) == (None, None)
    assert bad.reason == "asv has no value: see the output of asv run"
    assert (good.metric, good.unit, good.objective, good.linear) == ("seconds_per_iteration", "s", "dsm", "dense")
    assert (good.experiment, good.L, good.B, good.threads, good.shape) == ("asv", 2, 100, 1, "16")
    assert (good.commit, good.started_at, good.cpu) == ("c" * 40, "2023-11-14T22:13:20+00:00", "a cpu, 2 cores")
    assert json.loads(good.versions) == {"torch": "2.13.0"}
    # A frame of the one schema, which joins the rows of the store.
    frame, notes = publish.with_asv(derived(to_frame([])), tmp_path)
    assert frame["value"].to_list() == [0.1, 0.2, None]
    assert notes == []
    assert dict(publish.pages(frame).__next__().frame.select("method", "D = 16").rows()) == {
        "ebflow-dsm": "100.0",
        "nflows-lu-ml": None,
    }


@pytest.mark.parametrize(("variables", "threads"), [({}, 1), ({"OMP_NUM_THREADS": "4"}, 4)])
def test_threads_without_a_matrix_are_those_that_the_suite_takes(
    variables: dict[str, str], threads: int, write: Callable[..., Path], tmp_path: Path
) -> None:
    write({ITERATION: full(0.1, 0.2, 0.3, 0.4)}, env_vars=variables, env_name="existing-py")
    assert {row.threads for row in asv_results.read(tmp_path)[0]} == {threads}


def test_columns_may_be_cut_off(write: Callable[..., Path], tmp_path: Path) -> None:
    write({ITERATION: [None, PARAMS, "v", 1_700_000_000_000]}, env_vars={})
    rows, damaged = asv_results.read(tmp_path)
    assert [row.status for row in rows] == ["failed"] * 4
    assert {(row.ci_low, row.n, row.threads) for row in rows} == {(None, None, 1)}
    assert damaged == []


def test_a_method_that_is_gone_keeps_its_numbers(write: Callable[..., Path], tmp_path: Path) -> None:
    write({ITERATION: [[0.1], [["'old-method'"], ["16"], ["2"]], "v", 1_700_000_000_000]})
    rows, _ = asv_results.read(tmp_path)
    assert [(row.method, row.objective, row.linear, row.value) for row in rows] == [("old-method", "", "", 0.1)]


def test_the_newest_commit_of_every_machine_counts(write: Callable[..., Path], tmp_path: Path) -> None:
    write({ITERATION: full(3.0, 3, 3, 3)}, "b.json", date=3)
    write({ITERATION: full(2.0, 2, 2, 2)}, "c.json", date=2)
    write({ITERATION: full(1.0, 1, 1, 1)}, "a.json", date=1)
    write({ITERATION: full(9.0, 9, 9, 9)}, "d.json", date=0, env_name="another")
    rows, _ = asv_results.read(tmp_path)
    assert {row.value for row in rows} == {3.0, 9.0}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text(path.read_text()[:100]),
        lambda path: path.write_bytes(b"\xff\xfe\0"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("{}"),
        lambda path: path.write_text(path.read_text().replace('"result_columns"', '"columns"')),
        lambda path: path.write_text(path.read_text().replace('"started_at"', '"began"')),
        lambda path: path.write_text(path.read_text().replace("'ebflow-dsm'", "not a literal")),
        lambda path: path.write_text(path.read_text().replace('["16", "64"], ', "")),
        lambda path: path.write_text(path.read_text().replace("[0.1, ", "[")),
    ],
)
def test_a_damaged_file_is_named_and_the_others_are_read(
    spoil: Callable[[Path], object], write: Callable[..., Path], tmp_path: Path
) -> None:
    write({ITERATION: full(1.0, 1, 1, 1)}, "a.json", date=1)
    bad = write({ITERATION: full(0.1, 0.2, 0.3, 0.4)}, "b.json", date=2)
    spoil(bad)
    rows, damaged = asv_results.read(tmp_path)
    assert [row.value for row in rows] == [1.0] * 4
    (note,) = damaged
    assert note.startswith(f"{bad}: not a readable asv result (")
    assert note.endswith("; delete it")
    assert "\n" not in note


def test_no_folder_no_rows(tmp_path: Path) -> None:
    assert asv_results.read(tmp_path / "nothing") == ([], [])
    assert publish.with_asv(derived(to_frame([])), tmp_path / "nothing")[0].is_empty()
    assert isinstance(publish.with_asv(derived(to_frame([])), tmp_path)[0], pl.DataFrame)


def test_history_marks_what_changed(write: Callable[..., Path], tmp_path: Path) -> None:
    for day, value in enumerate([0.1, 0.12, 0.2, 0.1]):
        date = 1_700_000_000_000 + 86_400_000 * day
        write({ITERATION: full(value, 0.3, float("nan"), None)}, f"{day}.json", date=date, commit_hash=f"{day}" * 40)
    write({ITERATION: full(9.0, 9, 9, 9)}, "other.json", env_name="another", date=1_900_000_000_000)
    frame = asv_results.history(tmp_path)
    own = frame.filter(pl.col("env") != "another")
    assert dict(frame.select(*asv_results.HISTORY).schema) == asv_results.HISTORY
    # Within a factor of 1.5 nothing has changed; the interval of a failed upper end is none.
    assert own.filter(method="ebflow-dsm", D=16)["commit"].str.slice(0, 1).to_list() == ["0", "1", "2", "3"]
    assert own.filter(method="ebflow-dsm", D=16)["change"].to_list() == [None, None, "slower", "faster"]
    assert own.filter(method="ebflow-dsm", D=16)["ratio"].to_list() == [None, *map(pytest.approx, (1.2, 5 / 3, 0.5))]
    assert own.filter(D=64)["change"].to_list() == [None] * 4
    assert set(own["method"]) == {"ebflow-dsm"}  # what was left out or failed has no history
    assert frame.filter(env="another")["ratio"].to_list() == [None] * 4
    assert asv_results.history(tmp_path / "nothing").is_empty()


def test_intervals_that_overlap_are_no_change(write: Callable[..., Path], tmp_path: Path) -> None:
    for day, value in enumerate([0.1, 0.2]):
        wide = full(value, 0.3, 0.3, 0.3)
        wide[5], wide[6] = [0.05] * 4, [0.5] * 4
        write({ITERATION: wide}, f"{day}.json", date=1_700_000_000_000 + day)
    assert asv_results.history(tmp_path)["change"].to_list() == [None] * 8
