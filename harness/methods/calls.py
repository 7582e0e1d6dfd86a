"""Calls into a competitor's code: none runs for ever, ends the program, or leaves a shared setting changed."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from harness.errors import InputError
from harness.methods.shared_settings import restored

VARIABLE = "HARNESS_CALL_LIMIT"
_DEFAULT = 600.0  # seconds; the slowest single call of the published protocol takes minutes
_AGAIN = 1.0  # seconds until the alarm rings again, in case a competitor's bare `except:` has swallowed it


class _Expired(BaseException):
    """The exception that the alarm raises; a competitor's `except Exception` does not catch it."""


def call_limit() -> float:
    """Return the seconds that one call of a competitor may take: the value of the environment variable, or 600.

    Raises:
        InputError: if the variable holds no number above 0.
    """
    text = os.environ.get(VARIABLE, str(_DEFAULT))
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise InputError(f"{VARIABLE} must be a number of seconds above 0, not '{text}'")
    return limit


@contextmanager
def guarded(call: str, limit: float = math.inf) -> Iterator[Callable[[], None]]:
    """Run a competitor's code under the time limit for one call, and outlive its `sys.exit`.

    The limit works in the main thread on systems with interval timers; elsewhere there is none. It ends code that
    returns to Python now and then, but no single operation of a library. Guards may be nested. A guard takes a
    tenth of a millisecond, so timed code is guarded from outside. Settings that all code shares are set back at its
    end; `harness.methods.shared_settings.watched` tells which.

    Args:
        call: Name of the call, for the message.
        limit: Limit in seconds, if it is shorter than the limit for all calls.

    Yields:
        A function that starts the limit anew, for many short calls under one guard.

    Raises:
        TimeoutError: if the code took longer than the limit.
        RuntimeError: if the code wanted to end the program.
    """
    limit = min(limit, call_limit())
    expired = _Expired()
    try:
        with restored(), _alarm(limit, expired) as renew:
            yield renew
    except _Expired as alarm:
        if alarm is not expired:  # the alarm of a guard around this one
            raise
        raise TimeoutError(f"{call} took longer than {limit:g} s, the limit for one call ({VARIABLE})") from None
    except SystemExit as end:
        raise RuntimeError(f"{call} called sys.exit({'' if end.code is None else repr(end.code)})") from None


@contextmanager
def _alarm(limit: float, expired: _Expired) -> Iterator[Callable[[], None]]:
    """Raise the exception after so many seconds; an alarm that was set before is set again afterwards."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield lambda: None
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise expired

    def renew() -> None:
        signal.setitimer(signal.ITIMER_REAL, limit, _AGAIN)

    started = time.monotonic()
    before = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, limit, _AGAIN)
    try:
        yield renew
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            # Zero would switch the timer off: an alarm that fell due in between rings at once.
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 1e-6), interval)
