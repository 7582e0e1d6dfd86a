"""How OpenMP's threads wait is settled before torch is loaded, in this program and in the processes that it starts."""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection

import psutil
import pytest

from harness.cli import program
from harness.methods.child_process import Child


def policy() -> tuple[str | None, str | None]:
    return os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT")


def send_policy(there: Connection) -> None:
    there.send((policy(), "torch" in sys.modules))


@pytest.mark.parametrize(
    ("given", "busy", "expected"),
    [
        ({}, [90.0, 3.0], ("passive", None)),
        ({}, [20.0, 20.0], (None, None)),
        ({"OMP_WAIT_POLICY": "active"}, [90.0, 90.0], ("active", None)),
        ({"GOMP_SPINCOUNT": "1000"}, [90.0, 90.0], (None, "1000")),
    ],
)
def test_threads_sleep_beside_other_load_unless_the_user_says_otherwise(
    given: dict[str, str], busy: list[float], expected: tuple[str | None, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(psutil, "cpu_percent", lambda **_: busy)
    with Child(send_policy, seconds=60) as child:
        assert child.receive() == (expected, False)
    seen = []
    monkeypatch.setattr(program, "app", lambda **_: seen.append(policy()))
    for argv in (["harness", "list"], ["harness"], ["harness", "train"]):
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit):
            program.main()
    # Only commands that measure look at the load.
    assert seen == [(given.get("OMP_WAIT_POLICY"), given.get("GOMP_SPINCOUNT"))] * 2 + [expected]
    monkeypatch.undo()
