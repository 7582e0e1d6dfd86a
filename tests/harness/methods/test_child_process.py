"""A function in a process of its own, and what it answers."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

import pytest

from harness.methods.child_process import Child


def answer(there: Connection, message: str) -> None:
    """Answer at once, and then never again."""
    there.send(message)
    while True:
        time.sleep(1)


def test_an_answer_that_came_in_time_counts_however_late_it_is_read() -> None:
    with Child(answer, "done", seconds=60) as child:
        assert child.connection.poll(60)
        child.deadline = time.monotonic() - 1
        assert child.receive(0) == "done"
        with pytest.raises(TimeoutError):
            child.receive(0)
