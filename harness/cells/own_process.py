"""A cell in a process of its own, under limits: however it ends, there are rows that say so."""

from __future__ import annotations

import math
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from harness.cells.base import Cell, Outcome, Progress
from harness.methods.child_process import Child
from harness.methods.process_settings import prepare
from harness.training.checkpoints import TrainingCheckpoint

_LOOK = 0.1  # seconds between two looks at the memory of a process
_FROM_OUTSIDE = (-9, -15)
"""SIGKILL and SIGTERM: a machine that ran out of memory or an operator ended the process, and not what it did."""


@dataclass(frozen=True)
class Limits:
    """What a cell may use; None for no limit.

    Args:
        seconds: From the start of its process.
        memory: Bytes that its process and that one's descendants hold in memory, looked at ten times a second. (The
            system's own limits are on address space, of which torch reserves much more than it uses.)
    """

    seconds: float | None = None
    memory: int | None = None


class Abandoned(Exception):
    """The sweep is being ended; the cell has no result."""


def alone(
    cell: Cell,
    limits: Limits,
    threads: int,
    resume: TrainingCheckpoint | None = None,
    progress: Progress = lambda done, total, note: None,
    stopped: threading.Event | None = None,
) -> Outcome:
    """Run a cell in a fresh process.

    A process that somebody else killed is started again, once, and goes on from the last state of its training: the
    next kill may not be meant for it. Nothing else is tried twice, because it would end in the same way.

    Args:
        cell: Picklable, and so is all it needs.
        limits: Its process is killed at the first that it passes.
        threads: Of torch.
        resume: Where a training is saved and goes on from.
        progress: Told what the cell tells.
        stopped: Once set, the process is asked to end, and killed if it does not.

    Raises:
        Abandoned: It was.
    """
    reason = ""
    for _ in range(2):
        with Child(_in_child, cell, threads, resume, threads=threads) as child:
            ended = _listen(child, limits, progress, stopped)
            if isinstance(ended, Outcome):
                return ended
            if ended is not None:
                return Outcome(cell.without_result("failed", ended), cut_off=True)
            status, words = child.ending()
        reason = f"its process {words}"
        if status not in _FROM_OUTSIDE:
            return Outcome(cell.without_result("failed", reason))
    return Outcome(cell.without_result("failed", f"{reason}, twice: out of memory, or by hand"), cut_off=True)


def _listen(child: Child, limits: Limits, progress: Progress, stopped: threading.Event | None) -> Outcome | str | None:
    """Return what a process sends in the end, or which limit it passed, or None if it ended without a word."""
    deadline = math.inf if limits.seconds is None else time.monotonic() + limits.seconds
    while True:
        try:
            ended = child.ended()
            if child.connection.poll(_LOOK):
                message = child.connection.recv()
                if isinstance(message, Outcome):
                    return message
                progress(*message)
            elif ended:  # and the connection is held open by a process that it has forked
                return None
        except (EOFError, ConnectionError):
            return None
        except KeyboardInterrupt:
            child.interrupt()
            raise
        if stopped is not None and stopped.is_set():
            child.interrupt()
            raise Abandoned
        if time.monotonic() > deadline:
            return f"it took longer than {limits.seconds:g} s, the limit for a cell (--timeout)"
        if limits.memory is not None and (used := child.memory()) > limits.memory:
            return f"it used {used / 2**30:.1f} GiB, and {limits.memory / 2**30:.1f} is the limit for a cell (--memory)"


def _in_child(connection: Connection, cell: Cell, threads: int, resume: TrainingCheckpoint | None) -> None:
    prepare("cpu", threads)  # the device is the cell's own matter
    last = -math.inf

    def progress(done: int, total: int, note: str) -> None:
        nonlocal last
        if time.monotonic() > last + _LOOK or done == total:
            last = time.monotonic()
            connection.send((done, total, note))

    try:
        connection.send(cell.run(progress, resume))
    except KeyboardInterrupt:
        # Asked to end, and the state of its training is saved: the parent sees that it was not the cell's doing.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
