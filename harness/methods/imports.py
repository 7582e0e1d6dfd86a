"""Imports foreign code and leaves this process as it was."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from tempfile import TemporaryFile
from typing import Any

from harness.methods.calls import guarded
from harness.methods.shared_settings import restored

_QUIET_BY_DEFAULT = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
_LONGEST_QUOTE = 60  # characters of a printed text or a warning


@contextmanager
def contained(call: str) -> Iterator[list[str]]:
    """Import foreign code, undo what it does to the process, and take note of it.

    Undone are printing, warnings and their filters, random states, and all settings that
    `harness.methods.shared_settings.restored` watches.

    Args:
        call: What the code does, for messages.

    Yields:
        A list that holds a line for everything undone, once the block has ended.

    Raises:
        TimeoutError: if the code took longer than `harness.methods.calls.guarded` allows.
        RuntimeError: if the code called sys.exit.
    """
    notes: list[str] = []
    try:
        with restored(random_states=True) as changed, _muted(notes), _unwarned(notes), guarded(call):
            yield notes
    finally:
        notes += [f"changed {name}: undone" for name in changed]


@contextmanager
def _unwarned(notes: list[str]) -> Iterator[None]:
    """Collect the warnings that Python shows by default, and keep the filters, whatever the code does to either."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for category in _QUIET_BY_DEFAULT:
            warnings.simplefilter("ignore", category)
        filters = list(warnings.filters)
        try:
            yield
        finally:
            if caught:
                more = f" and {len(caught) - 1} more" if len(caught) > 1 else ""
                notes.append(f"warned {_quote(str(caught[0].message))}{more}")
            if warnings.filters != filters:
                notes.append("changed the warnings filters: undone")


@contextmanager
def _muted(notes: list[str]) -> Iterator[None]:
    """Collect everything that is printed, by Python or below it."""
    # A stream that is the descriptor's own stays in place: a logging handler, say, may keep it and write to it later.
    above = io.StringIO()
    out = sys.stdout if _is_descriptor(sys.stdout, 1) else above
    err = sys.stderr if _is_descriptor(sys.stderr, 2) else above
    with TemporaryFile() as below, redirect_stdout(out), redirect_stderr(err):
        _flush()
        saved = {}
        for descriptor in (1, 2):
            with suppress(OSError):  # the descriptor is closed
                saved[descriptor] = os.dup(descriptor)
                os.dup2(below.fileno(), descriptor)
        try:
            yield
        finally:
            _flush()
            for descriptor, copy in saved.items():
                os.dup2(copy, descriptor)
                os.close(copy)
            below.seek(0)
            printed = (above.getvalue() + below.read().decode(errors="replace")).strip()
            if printed:
                notes.append(f"printed {_quote(printed)}")


def _is_descriptor(stream: Any, descriptor: int) -> bool:
    try:
        return bool(stream.fileno() == descriptor)
    except (OSError, AttributeError):
        return False


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return f"'{line if len(line) <= _LONGEST_QUOTE else line[: _LONGEST_QUOTE - 3] + '...'}'"
