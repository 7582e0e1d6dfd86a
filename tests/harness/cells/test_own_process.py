"""However a cell ends, there is a row that says so, and no process is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from endings import Ending, quiet

from harness.cells.own_process import Abandoned, Limits, alone

NONE = Limits()


def wait_until_gone(pid: int) -> None:
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("ending", "limits", "reason"),
    [
        ("raise", NONE, "RuntimeError: no kernel"),
        ("sys.exit", NONE, "SystemExit: 3"),
        ("panic", NONE, "Panic: index out of bounds"),
        ("os._exit", NONE, "its process ended with exit status 3"),
        ("fork, os._exit", NONE, "its process ended with exit status 3"),
        ("crash", NONE, "its process was killed by SIGSEGV"),
        ("killed", NONE, "its process was killed by SIGKILL, twice: out of memory, or by hand"),
        ("hang", Limits(seconds=6), "it took longer than 6 s, the limit for a cell (--timeout)"),
        ("nan", NONE, "its nll is nan"),
    ],
)
def test_a_bad_end_is_a_row(ending: str, limits: Limits, reason: str, tmp_path: Path) -> None:
    cell = Ending(ending, folder=tmp_path)
    (row,) = alone(cell, limits, 1).rows
    assert (row.status, row.value, row.reason) == ("failed", None, reason)
    pid = tmp_path / "0.pid"
    if pid.exists():  # the limit may have come first, on a slow machine
        wait_until_gone(int(pid.read_text()))


def test_memory_has_a_limit() -> None:
    (row,) = alone(Ending("eat"), Limits(memory=2**30), 1).rows
    assert row.status == "failed"
    assert row.reason.endswith(" GiB, and 1.0 is the limit for a cell (--memory)")


@pytest.mark.parametrize("ending", ["killed once", "stopped once"])
def test_a_process_lost_from_outside_is_started_again(ending: str, tmp_path: Path) -> None:
    (row,) = alone(Ending(ending, folder=tmp_path), NONE, 1).rows
    assert (row.status, row.value) == ("ok", 7.0)


def test_a_cell_tells_its_progress_and_prints_where_no_row_is(capfd: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, int, str]] = []
    (row,) = alone(Ending("print"), NONE, 1, None, lambda *step: told.append(step)).rows
    assert row.value == 1.0
    assert told == [(1, 1, "")]
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "not a row" in printed.err
    assert "nor this" in printed.err


def test_threads_are_as_told() -> None:
    (row,) = alone(Ending("threads"), NONE, 3).rows
    assert row.value == row.threads == 3


def test_stopping_ends_the_process(tmp_path: Path) -> None:
    stopped = threading.Event()

    def stop(done: int, total: int, note: str) -> None:
        stopped.set()

    with pytest.raises(Abandoned):
        alone(Ending("hang", folder=tmp_path), NONE, 1, None, stop, stopped)
    wait_until_gone(int((tmp_path / "0.pid").read_text()))


def test_no_cell_outlives_the_program(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from endings import Ending, quiet
from harness.cells.own_process import Limits, alone
alone(Ending("hang", folder=Path({str(tmp_path)!r})), Limits(), 1)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ) as program:
        pid = tmp_path / "0.pid"
        while not pid.exists() or not pid.read_text():
            assert program.poll() is None
            time.sleep(0.05)
        program.kill()
    wait_until_gone(int(pid.read_text()))


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ("raise", "RuntimeError: no kernel"),
        ("sys.exit", "SystemExit: 3"),
        ("panic", "Panic: index out of bounds"),
        ("nan", "its nll is nan"),
    ],
)
def test_in_this_process_too(ending: str, reason: str) -> None:
    (row,) = Ending(ending).run(quiet).rows
    assert (row.status, row.reason) == ("failed", reason)
