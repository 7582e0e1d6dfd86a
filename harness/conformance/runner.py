"""Runs checks in a process of their own, so that a method that hangs, exits or crashes is reported like any other."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from harness.conformance.catalogue import CHECKS, Finding, run_check
from harness.errors import InputError
from harness.registry import load_file, registry, why_unavailable

__all__ = ["SECONDS_A_CHECK", "findings"]

SECONDS_A_CHECK = 30.0
"""A check that has not ended by then hangs; the slowest of the shipped methods takes about half of it."""

_LOST = "The check must end"


def findings(method: str, file: Path | None = None, seconds: float = SECONDS_A_CHECK) -> Iterator[Finding]:
    """Run all checks on a method and yield each finding as it comes.

    A check that kills its process or does not end is broken, and a new process goes on with the next one; at the second
    such check the rest is left out.

    Args:
        method: Name.
        file: Where it is declared, if not in a module that the registry reads.
        seconds: Time limit of one check.

    Raises:
        InputError: What the method needs is not there.
    """
    waiting = list(CHECKS)
    for _ in range(2):  # processes; one that leaves checks waiting was lost with the last that it reports
        for finding in _in_a_process(method, file, tuple(waiting), seconds):
            waiting.remove(finding.check)
            yield finding
        if not waiting:
            return
    for name in waiting:
        yield Finding(method, name, "broken", "Not run: two checks before it hung or killed their process.")


def _in_a_process(method: str, file: Path | None, checks: Sequence[str], seconds: float) -> Iterator[Finding]:
    """Yield findings until the process has run all checks, or one is lost."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(there, method, file, checks), daemon=True)
    process.start()
    there.close()
    try:
        with suppress(EOFError):  # a process that did not start is told by the first check
            if reason := here.recv():
                raise InputError(f"{method} is unavailable: {reason}")
        for name in checks:
            if not here.poll(seconds):
                yield Finding(method, name, "broken", f"{_LOST} within {seconds:g} s and does not: the method hangs.")
                return
            try:
                yield here.recv()
            except EOFError:
                process.join()
                yield Finding(
                    method, name, "broken", f"{_LOST}, and its process died with exit status {process.exitcode}."
                )
                return
    finally:
        process.kill()
        process.join()


def _run(there: Connection, method: str, file: Path | None, checks: Sequence[str]) -> None:
    import torch

    import harness.conformance  # noqa: F401 - fills the catalogue in the new process

    torch.set_num_threads(1)  # the problems are small: more threads would only wait for each other

    declared = (registry() if file is None else load_file(file)).find(method)
    # Imported here, and not in the parent too: a library and torch take seconds.
    there.send(why_unavailable(declared))
    with redirect_stdout(sys.stderr):  # what a method prints must not lie among the findings
        for name in checks:
            there.send(run_check(declared, CHECKS[name]))
