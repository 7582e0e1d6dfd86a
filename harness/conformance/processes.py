"""Runs the conformance kit in processes of its own: a method that hangs, exits or crashes is reported like any other.

The process that asks imports no torch; those that check do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

from harness.conformance.findings import Finding
from harness.errors import InputError
from harness.methods.child_process import Child
from harness.methods.registry import load_file, registry, why_unavailable

SECONDS_A_CHECK = 30.0
"""A check that has not ended by then hangs; the slowest of the shipped methods takes a quarter of it."""

_PROCESSES = 2
_LOST_AT_MOST = 2


def findings(method: str, file: Path | None = None, seconds: float = SECONDS_A_CHECK) -> Iterator[Finding]:
    """Run all checks on a method, two at a time, and yield each finding as it comes.

    A check that kills its process or does not end is broken, and a new process goes on with the next one; at the second
    such check the rest is left out, but for what is running beside it.

    Args:
        method: Name.
        file: Where it is declared, if not in a module that the registry reads.
        seconds: Time limit of one check.

    Raises:
        InputError: What the method needs is not there, or importing it kills a process.
    """
    workers = [_Worker(method, file, seconds) for _ in range(_PROCESSES)]
    try:
        waiting, lost = workers[0].names(), 0
        while True:
            for worker in workers:
                if worker.check is None and waiting and lost < _LOST_AT_MOST:
                    worker.give(waiting.pop(0))
            running = [worker for worker in workers if worker.check is not None]
            if not running:
                break
            soonest = min(worker.deadline for worker in running) - time.monotonic()
            wait([worker.connection for worker in running], max(soonest, 0))
            for worker in running:
                if (finding := worker.finding()) is not None:
                    yield finding
                if worker.lost:
                    lost += 1
                    worker.stop()
                    workers[workers.index(worker)] = _Worker(method, file, seconds)
    finally:
        for worker in workers:
            worker.stop()
    for name in waiting:
        yield Finding(method, name, "broken", "Not run: two checks before it hung or killed their process.")


class _Worker:
    """A process that runs one check after another.

    Args:
        method: Name.
        file: Where it is declared, if not in a module that the registry reads.
        seconds: Time limit of one check.
    """

    def __init__(self, method: str, file: Path | None, seconds: float) -> None:
        self.method, self.seconds = method, seconds
        self.check: str | None = None
        self.lost = self.told = False
        self.deadline = math.inf
        self.child = Child(_run, method, file)
        self.connection = self.child.connection

    def names(self) -> list[str]:
        """Wait until the process is ready, and return the names of all checks.

        Raises:
            InputError: What the method needs is not there, or importing it kills the process.
        """
        self.told = True
        try:
            names, reason = self.connection.recv()
        except EOFError:
            reason = f"importing it ends the process with exit status {self.child.ending()[0]}"
        if reason:
            raise InputError(f"{self.method} is unavailable: {reason}")
        return names

    def give(self, check: str) -> None:
        """Start a check."""
        if not self.told:
            self.names()
        self.check, self.deadline = check, time.monotonic() + self.seconds
        with suppress(ConnectionError):  # told when the finding is asked for
            self.connection.send(check)

    def finding(self) -> Finding | None:
        """Return how the check ended, or nothing while it runs."""
        found = None
        try:
            if self.connection.poll():
                found = self.connection.recv()
            elif time.monotonic() > self.deadline:
                self.lost = True
                found = self._broken(f"The check must end within {self.seconds:g} s and does not: the method hangs.")
        except (EOFError, ConnectionError):
            self.lost = True
            found = self._broken(f"The check must end, and its process died with status {self.child.ending()[0]}.")
        if found is not None:
            self.check = None
        return found

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.child.stop()

    def _broken(self, text: str) -> Finding:
        return Finding(self.method, str(self.check), "broken", text)


def _run(there: Connection, method: str, file: Path | None) -> None:
    import torch

    from harness.conformance.checks import CHECKS, run_check

    torch.set_num_threads(1)  # the problems are small: more threads would only wait for each other

    declared = (registry() if file is None else load_file(file)).find(method)
    there.send((list(CHECKS), why_unavailable(declared)))
    while True:
        there.send(run_check(declared, CHECKS[there.recv()]))
