"""Odd machines: a locale without letters, a clock elsewhere, a full disk, no shared memory. One line, or no effect."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from harness.results import Store, reproducible

TRAIN = ("train", "--method", "gaussian", "--draws", "2", "--threads", "1", "--results-dir")


def harness(
    *arguments: str, before: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments],
        env={**os.environ, **environment},
        preexec_fn=before,
        capture_output=True,
        check=False,
    )


def small_files(largest: int) -> Callable[[], None]:
    """No file of the process may be larger: the system refuses as it does on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    folder = tmp_path_factory.mktemp("ordinary")
    assert harness(*TRAIN, str(folder)).returncode == 0
    return reproducible(Store(folder).frame()[0])


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "TZ": "Pacific/Kiritimati"},
        # Where the upper case of i is no I, and a comma stands before the decimals.
        {"LC_ALL": "tr_TR.UTF-8", "TZ": "America/New_York"},
    ],
    ids=["C", "Turkish"],
)
def test_locale_time_zone_and_letters_change_no_row(
    environment: dict[str, str], expected: pl.DataFrame, tmp_path: Path
) -> None:
    folder = tmp_path / "résultats ø 数"
    ended = harness(*TRAIN, str(folder), **environment)
    assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False)
    rows, notes = Store(folder).frame()
    assert notes == []
    assert reproducible(rows).equals(expected)
    assert set(rows["started_at"].str.slice(-6)) == {"+00:00"}


@pytest.mark.parametrize("cells", [0, 1], ids=["before the first cell", "before the figures"])
def test_a_full_disk_is_one_line_and_keeps_what_is_whole(cells: int, tmp_path: Path) -> None:
    plain, folder = tmp_path / "plain", tmp_path / "full"
    assert harness(*TRAIN, str(plain)).returncode == 0
    # The files of a cell are smaller than its figure: between them lies a disk that has room for the cell alone.
    cell, figure = (max(path.stat().st_size for path in plain.glob(files)) for files in ("cells/*/*", "figures/*"))
    assert cell < figure
    largest = (cell + figure) // 2 if cells else 4096
    ended = harness(*TRAIN, str(folder), before=small_files(largest))
    assert ended.returncode == 2
    last = ended.stderr.decode().splitlines()[-1]
    assert last.startswith("harness: ")
    assert "File too large" in last
    assert "make room" in last
    assert b"Traceback" not in ended.stderr
    store = Store(folder)
    assert store.frame()[0]["cell"].n_unique() == cells
    assert store.notes == []
    assert [path for path in folder.rglob(".*") if path.is_file()] == []


def test_processes_need_no_shared_memory(tmp_path: Path) -> None:
    # In this process and in all that it starts.
    (tmp_path / "sitecustomize.py").write_text(
        "import _multiprocessing, _posixshmem\n"
        "def refuse(*arguments, **named):\n"
        "    raise FileNotFoundError(2, 'No such file or directory', '/dev/shm')\n"
        "_multiprocessing.SemLock = _posixshmem.shm_open = refuse\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    options = ("--methods", "gaussian", "--executor", "processes", "--workers", "2", "--threads", "1")
    ended = harness("reproduce", "digits-fc", *options, "--results-dir", str(tmp_path / "r"), PYTHONPATH=path)
    assert ended.returncode == 0, ended.stderr.decode()
    assert set(Store(tmp_path / "r").frame()[0]["status"]) == {"ok"}
