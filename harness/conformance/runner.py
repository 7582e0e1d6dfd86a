"""Runs the conformance kit in processes of its own: a method that hangs, exits or crashes is reported like any other.

The process that asks imports no torch; those that check do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

from harness.conformance.findings import Finding
from harness.errors import InputError
from harness.methods.child_process import Child, Ended
from harness.methods.registry import load_file, registry, why_unavailable

SECONDS_A_CHECK = 30.0
"""Seconds after which a check counts as hanging; the slowest of the shipped methods takes a quarter of them."""

_PROCESSES = 2
_LOST_AT_MOST = 2


def findings(method: str, file: Path | None = None, seconds: float = SECONDS_A_CHECK) -> Iterator[Finding]:
    """Run all checks on a method, two at a time, and yield each finding as it comes.

    A check that kills its process or does not end is broken, and a new process goes on with the next one. At the second
    such check the rest is left out, but for what is running beside it.

    Args:
        method: Name of the method.
        file: File that declares the method; None for a method that the registry reads.
        seconds: Time limit of one check.

    Raises:
        InputError: if something that the method needs is not there, or if importing it kills a process.
    """
    workers = [_Worker(method, file) for _ in range(_PROCESSES)]
    try:
        waiting, lost = workers[0].names(), 0
        while True:
            for worker in workers:
                if worker.check is None and waiting and lost < _LOST_AT_MOST:
                    worker.start(waiting.pop(0), seconds)
            running = [worker for worker in workers if worker.check is not None]
            if not running:
                break
            soonest = min(worker.child.deadline for worker in running) - time.monotonic()
            wait([worker.child.connection for worker in running], max(soonest, 0))
            for worker in running:
                try:
                    finding = worker.child.receive(0)
                except (TimeoutError, Ended) as end:
                    finding = Finding(method, str(worker.check), "broken", _lost(end, seconds))
                    lost += 1
                    worker.child.stop()
                    workers[workers.index(worker)] = _Worker(method, file)
                if finding is not None:
                    worker.check = None
                    yield finding
    finally:
        for worker in workers:
            worker.child.stop()
    for name in waiting:
        yield Finding(method, name, "broken", "Not run: two checks before it hung or killed their process.")


class _Worker:
    """A process that runs one check after another, and the name of the check that it is running."""

    def __init__(self, method: str, file: Path | None) -> None:
        self.method = method
        self.child = Child(_run, method, file)
        self.check: str | None = None
        self._names: list[str] = []

    def names(self) -> list[str]:
        """Wait until the process has imported the method, and return the names of all checks."""
        if not self._names:
            try:
                self._names, reason = self.child.receive()
            except Ended as end:
                reason = f"importing it ends the process with exit status {end.status}"
            if reason:
                raise InputError(f"{self.method} is unavailable: {reason}")
        return list(self._names)

    def start(self, check: str, seconds: float) -> None:
        """Start a check, which must end within so many seconds."""
        self.names()
        self.check = check
        self.child.send(check, seconds)


def _lost(end: TimeoutError | Ended, seconds: float) -> str:
    if isinstance(end, Ended):
        return f"The check must end, and its process died with status {end.status}."
    return f"The check must end within {seconds:g} s and does not: the method hangs."


def _run(there: Connection, method: str, file: Path | None) -> None:
    import torch

    from harness.conformance.checks import CHECKS, run_check

    torch.set_num_threads(1)  # the problems are small: more threads would only wait for each other

    declared = (registry() if file is None else load_file(file)).find(method)
    there.send((list(CHECKS), why_unavailable(declared)))
    while True:
        there.send(run_check(declared, CHECKS[there.recv()]))
