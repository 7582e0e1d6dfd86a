"""Runs a cell in a process of its own, under limits: however the process ends, there are rows that say so."""

from __future__ import annotations

import math
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from harness.cells.base import Cell, Outcome, Progress
from harness.methods.child_process import Child, Ended
from harness.methods.process_settings import prepare
from harness.training.checkpoints import TrainingCheckpoint

_LOOK = 0.1  # seconds between two looks at the memory of a process
_FROM_OUTSIDE = (-9, -15)  # SIGKILL and SIGTERM: an operator, or a machine out of memory, ended the process


@dataclass(frozen=True)
class Limits:
    """What a cell may use.

    Args:
        seconds: Seconds from the start of the cell's process to its end; None for no limit.
        memory: Bytes that the cell's process and its descendants may hold in memory, looked at ten times a second; None
            for no limit. (The system's own limits are on address space, of which torch reserves more than it uses.)
    """

    seconds: float | None = None
    memory: int | None = None


class Abandoned(Exception):
    """The sweep was stopped while the cell ran; the cell has no result."""


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
        cell: The cell. It can be pickled, and so can all that it needs.
        limits: Limits of the process, which is killed at the first limit that it passes.
        threads: Number of threads of torch in the process.
        resume: File that a training is saved in and goes on from, or None.
        progress: Function that is told what the cell tells about its progress.
        stopped: Event at which the process is asked to end, and killed if it does not.

    Raises:
        Abandoned: if the event was set while the cell ran.
    """
    reason = ""
    for _ in range(2):
        with Child(_in_child, cell, threads, resume, threads=threads, seconds=limits.seconds) as child:
            try:
                return _listen(child, limits.memory, progress, stopped)
            except TimeoutError:
                reason = f"it took longer than {limits.seconds:g} s, the limit for a cell (--timeout)"
                return Outcome(cell.without_result("failed", reason), cut_off=True)
            except MemoryError as error:
                return Outcome(cell.without_result("failed", f"{error} for a cell (--memory)"), cut_off=True)
            except Ended as end:
                reason = f"its process {end}"
                if end.status not in _FROM_OUTSIDE:
                    return Outcome(cell.without_result("failed", reason))
    return Outcome(cell.without_result("failed", f"{reason}, twice: out of memory, or by hand"), cut_off=True)


def _listen(child: Child, memory: int | None, progress: Progress, stopped: threading.Event | None) -> Outcome:
    """Pass on what a process tells about its progress, and return the outcome that it sends in the end."""
    try:
        while stopped is None or not stopped.is_set():
            message = child.receive(_LOOK, memory)
            if isinstance(message, Outcome):
                return message
            if message is not None:
                progress(*message)
    except KeyboardInterrupt:
        child.interrupt()
        raise
    child.interrupt()
    raise Abandoned


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
        # The state of the training is saved. The parent sees by the signal that the cell did not end itself.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
