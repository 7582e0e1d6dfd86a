"""Ctrl-C and SIGTERM as requests: running work goes on to a point where it can be saved, and then stops."""

import signal
import threading
from types import FrameType
from typing import Any, Self


class Stopped(KeyboardInterrupt):
    """The user or the system asked the program to stop, and the running work is saved.

    Args:
        saved: A sentence that says what was saved, and how far it had come.
        signal_number: Number of the signal that asked.
    """

    def __init__(self, saved: str, signal_number: int) -> None:
        super().__init__(saved)
        self.status = 128 + signal_number
        """The exit status of a program that this signal ends, as shells count."""


class StopRequest:
    """While this context is open, the first SIGINT or SIGTERM is only noted; a second signal acts as ever.

    The code inside looks at `number`, the noted signal, now and then, and answers it by raising what `answer` returns.
    A signal that nobody has answered when the context closes acts then. Signals arrive in the main thread: in any other
    thread none is noted.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def answer(self, number: int, saved: str) -> Stopped:
        """Return the exception to raise once the work is saved, for a signal to this process or to one beside it."""
        self.number = None
        return Stopped(saved, number)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # A signal that is ignored stays ignored: a shell's background job gets no Ctrl-C.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note) or signal.SIG_DFL
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()
        if self.number is not None:
            signal.raise_signal(self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
