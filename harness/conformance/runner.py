"""Runs checks in processes of their own, so that a method that hangs, exits or crashes is reported like any other."""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from multiprocessing.connection import Connection, wait
from pathlib import Path

from harness.conformance.catalogue import CHECKS, Finding, run_check
from harness.errors import InputError
from harness.registry import load_file, registry, why_unavailable

__all__ = ["SECONDS_A_CHECK", "findings"]

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
        InputError: What the method needs is not there.
    """
    waiting, lost = list(CHECKS), 0
    workers: dict[Connection, _Worker] = {}
    try:
        while workers or (waiting and lost < _LOST_AT_MOST):
            while waiting and lost < _LOST_AT_MOST and len(workers) < _PROCESSES:
                started = _Worker(method, file, seconds)
                started.give(waiting.pop(0))
                workers[started.connection] = started
            soonest = min(worker.deadline for worker in workers.values()) - time.monotonic()
            wait(workers, timeout=None if math.isinf(soonest) else max(soonest, 0))
            for worker in list(workers.values()):
                finding = worker.finding()
                if finding is None:
                    continue
                yield finding
                lost += worker.lost
                if waiting and lost < _LOST_AT_MOST and not worker.lost:
                    worker.give(waiting.pop(0))
                else:
                    workers.pop(worker.connection).stop()
    finally:
        for worker in workers.values():
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
        self.lost, self.ready, self.deadline = False, False, math.inf
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self.process = context.Process(target=_run, args=(there, method, file), daemon=True)
        self.process.start()
        there.close()

    def give(self, check: str) -> None:
        """Start a check; its time begins once the process has imported what it needs."""
        self.check = check
        try:
            self.connection.send(check)
        except BrokenPipeError:
            return  # told when the finding is asked for
        if self.ready:
            self.deadline = time.monotonic() + self.seconds

    def finding(self) -> Finding | None:
        """Return how the check ended, or nothing while it runs.

        Raises:
            InputError: What the method needs is not there.
        """
        try:
            if not self.connection.poll():
                late = time.monotonic() > self.deadline
                return self._broken(f" within {self.seconds:g} s and does not: the method hangs") if late else None
            if self.ready:
                return self.connection.recv()
            if reason := self.connection.recv():
                raise InputError(f"{self.method} is unavailable: {reason}")
        except (EOFError, ConnectionError):
            self.process.join()
            return self._broken(f", and its process died with exit status {self.process.exitcode}")
        self.ready, self.deadline = True, time.monotonic() + self.seconds
        return None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()

    def _broken(self, how: str) -> Finding:
        self.lost = True
        return Finding(self.method, self.check, "broken", f"The check must end{how}.")


def _run(there: Connection, method: str, file: Path | None) -> None:
    import torch

    import harness.conformance  # noqa: F401 - fills the catalogue in the new process

    torch.set_num_threads(1)  # the problems are small: more threads would only wait for each other

    declared = (registry() if file is None else load_file(file)).find(method)
    # Imported here, and not in the parent too: a library and torch take seconds.
    there.send(why_unavailable(declared))
    with redirect_stdout(sys.stderr):  # what a method prints must not lie among the findings
        while True:
            there.send(run_check(declared, CHECKS[there.recv()]))
