"""`harness results`: what is there, whether it is whole, and several folders made one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.results import Row, Store

Run = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path, make_cell_row: Callable[..., Row]) -> Store:
    """Three cells: two timings and a training that failed."""
    store = Store(tmp_path / "store")
    for number, columns in enumerate(
        (
            {"method": "ebflow-dsm"},
            {"method": "ebflow-ml"},
            {"experiment": "train", "metric": "nll", "value": None, "status": "failed", "reason": "no\nkernel"},
        )
    ):
        store.write([make_cell_row(number, **columns)])
    return store


@pytest.mark.parametrize(
    ("options", "methods"),
    [
        ((), ["ebflow-dsm", "ebflow-ml", "ebflow-ml"]),
        (("--method", "ebflow-ml"), ["ebflow-ml", "ebflow-ml"]),
        (("--method", "ebflow-ml,ebflow-dsm", "--experiment", "runtime"), ["ebflow-dsm", "ebflow-ml"]),
        (("--status", "failed,unavailable"), ["ebflow-ml"]),
        (("--profile", "custom", "--metric", "nll", "--method", "ebflow-dsm"), []),
    ],
)
def test_show_filters(options: tuple[str, ...], methods: list[str], run: Run, store: Store) -> None:
    ended = run("results", "show", *options, "--results-dir", str(store.folder), "--json")
    assert ended.status == 0
    assert sorted(row["method"] for row in ended.rows) == methods
    table = run("results", "show", *options, "--results-dir", str(store.folder))
    assert table.status == 0
    assert f"{len(methods)} rows of {len(methods)} cells in {store.folder}" in table.out
    assert table.out.count("| ebflow-") == len(methods)


@pytest.mark.parametrize(
    ("option", "name", "hint"),
    [
        ("metric", "nil", "did you mean nll?"),
        ("metric", "NLL", "did you mean nll?"),
        ("method", "ebflow-dsms", "did you mean ebflow-dsm or ebflow-ml?"),
        ("method", "ebflow-ml,xyz", "known: ebflow-dsm, ebflow-ml"),
        ("dataset", "digits", "known: normal"),
        ("profile", "papers", "known: custom"),
        ("experiment", "tran", "did you mean train?"),
        ("status", "faild,unavailable", "did you mean failed?"),
        ("cell", "0", "known: "),
    ],
)
def test_a_name_that_no_row_has_is_an_error(option: str, name: str, hint: str, run: Run, store: Store) -> None:
    ended = run("results", "show", f"--{option}", name, "--results-dir", str(store.folder))
    wrong = next(part for part in name.split(",") if part not in ("ebflow-ml", "unavailable"))
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"harness: unknown {option} in these rows '{wrong}': {hint}")


def test_rows_show_how_they_came_about(run: Run, store: Store) -> None:
    (row, *_) = run("results", "show", "--results-dir", str(store.folder), "--json").rows
    shown = run("results", "show", "--cell", row["cell"], "--results-dir", str(store.folder)).out
    assert "1 rows of 1 cells" in shown
    for column in ("recipe", "profile", "commit", "cpu", "gpu", "threads"):
        assert f" {column} " in shown
        assert str(row[column] or "") in shown


def test_verify_says_what_is_wrong(run: Run, store: Store) -> None:
    assert run("results", "verify", "--results-dir", str(store.folder)) == (
        0,
        "3 cells are as they were written, 0 files are not\n",
        "",
    )
    (bad,) = store.folder.glob("cells/train/*")
    bad.write_bytes(bad.read_bytes()[:-1])
    ended = run("results", "verify", "--results-dir", str(store.folder))
    assert (ended.status, ended.out) == (1, "2 cells are as they were written, 1 files are not\n")
    assert ended.err.startswith(f"{bad}: not a readable cell (it has no seal") or "SHA-256 differs" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_merge_fills_a_folder(run: Run, store: Store, tmp_path: Path) -> None:
    into = str(tmp_path / "all")
    ended = run("results", "merge", str(store.folder), "--into", into)
    assert (ended.status, ended.out) == (0, f"{store.folder}: 3 cells taken, 0 were there, 0 left out\n")
    assert Store(Path(into)).frame()[0].equals(store.frame()[0])
    next(store.folder.glob("cells/train/*")).write_bytes(b"")
    ended = run("results", "merge", str(store.folder), "--into", into)
    assert (ended.status, ended.out) == (1, f"{store.folder}: 0 cells taken, 2 were there, 1 left out\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "--results-dir", "nowhere"),
        ("verify", "--results-dir", "nowhere"),
        ("pack", "--results-dir", "nowhere"),
        ("merge", "nowhere", "--into", "x"),
    ],
)
def test_no_results_are_one_line(arguments: tuple[str, ...], run: Run) -> None:
    ended = run("results", *arguments)
    assert ended.status == 2
    assert ended.err == (
        "harness: nowhere holds no results: it has no folder cells/; give a folder that a run has written\n"
    )
    assert not Path("x").exists()


def test_a_page_of_damaged_files_alone_names_one(run: Run, tmp_path: Path) -> None:
    cells = tmp_path / "r" / "cells" / "train"
    cells.mkdir(parents=True)
    (cells / "abc.parquet").write_text("junk")
    ended = run("report", "--results-dir", str(tmp_path / "r"), "--output", "p.html")
    assert ended.status == 2
    assert "abc.parquet: not a readable cell" in ended.err
    assert not Path("p.html").exists()


def test_pack_makes_few_files_and_changes_nothing_else(run: Run, store: Store) -> None:
    before, folder = store.frame()[0], str(store.folder)
    ended = run("results", "pack", "--results-dir", folder)
    assert (ended.status, ended.out, ended.err) == (0, "3 cells were packed\n", "")
    assert sorted(path.name for path in (store.folder / "cells").iterdir()) == ["runtime.parquet", "train.parquet"]
    assert store.frame()[0].equals(before)
    assert (
        run("results", "verify", "--results-dir", folder).out == "3 cells are as they were written, 0 files are not\n"
    )
    assert run("results", "pack", "--results-dir", folder).out == "0 cells were packed\n"
    bad = store.folder / "cells" / "train.parquet"
    bad.write_bytes(bad.read_bytes()[:-1])
    ended = run("results", "verify", "--results-dir", folder)
    assert (ended.status, ended.out) == (1, "2 cells are as they were written, 1 files are not\n")
    assert ended.err.startswith(f"{bad}: not a readable pack (")
