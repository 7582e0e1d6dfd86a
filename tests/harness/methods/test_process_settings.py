"""How OpenMP's threads wait is settled before torch is loaded, in this program and in the processes that it starts."""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection

import pytest

from harness.cli import program
from harness.methods.child_process import Child


def policy() -> tuple[str | None, str | None]:
    return os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT")


def send_policy(there: Connection) -> None:
    there.send((policy(), "torch" in sys.modules))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("passive", None)),
        ({"OMP_WAIT_POLICY": "active"}, ("active", None)),
        ({"GOMP_SPINCOUNT": "1000"}, (None, "1000")),
    ],
)
def test_threads_wait_passively_unless_the_user_says_otherwise(
    given: dict[str, str], expected: tuple[str | None, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with Child(send_policy, seconds=60) as child:
        assert child.receive() == (expected, False)
    seen = []
    monkeypatch.setattr(program, "app", lambda **_: seen.append(policy()))
    with pytest.raises(SystemExit):
        program.main()
    assert seen == [expected]
    monkeypatch.undo()
