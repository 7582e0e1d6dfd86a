"""A process of its own for code that may crash, hang or end its process; it never outlives the one that started it."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Self

from harness.methods.process_settings import settle_waiting

_TIME_TO_SAVE = 10.0  # seconds; the largest state of a training is written in one


class Ended(Exception):
    """A child process ended, and its parent waits for a message. The text says how the process ended."""

    def __init__(self, status: int) -> None:
        how = f"ended with exit status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"
        super().__init__(how)
        self.status = status
        """Exit status of the process, or the negative number of the signal that killed it."""


class Child:
    """A fresh Python process that runs one function and exchanges messages with this one.

    Use it as a context, at whose end the process and its descendants are killed. The process prints to standard error.
    It leads a session of its own, so that Ctrl-C reaches its parent alone. It is no `multiprocessing.Process`, because
    a worker of Dask is a daemon, which may have no such child.

    Args:
        function: Importable function, called in the process with its end of the connection and the arguments.
        arguments: Further arguments of the function, which can be pickled.
        threads: Number of threads of the libraries that read OMP_NUM_THREADS; None for their own choice.
        seconds: Seconds in which the function must end, or be sent a new message; None for no limit.
    """

    def __init__(
        self, function: Callable[..., object], *arguments: Any, threads: int | None = None, seconds: float | None = None
    ) -> None:
        self.connection, there = Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        settle_waiting(environment)
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        self._process = subprocess.Popen(
            # -P: the working folder holds no modules of the program. -u: what is printed is not lost in a crash.
            [sys.executable, "-P", "-u", "-c", f"from {__name__} import _main; _main()", str(there.fileno())],
            pass_fds=[there.fileno()],
            stdin=subprocess.PIPE,
            stdout=2,
            env=environment,
            start_new_session=True,
        )
        there.close()
        self.send((function, arguments), seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def send(self, message: Any, seconds: float | None) -> None:
        """Send a message whose answer is due in so many seconds. If the process has ended, `receive` tells so."""
        self.deadline = math.inf if seconds is None else time.monotonic() + seconds
        with suppress(ConnectionError):
            self.connection.send(message)

    def receive(self, timeout: float | None = None, memory: int | None = None) -> Any:
        """Return the next message of the process, or None if none comes in time.

        Args:
            timeout: Seconds to wait for a message; None to wait until there is one.
            memory: Bytes that the process and its descendants may hold in memory; None for no limit.

        Raises:
            Ended: if the process has ended; processes that it has forked may live on and hold the connection open.
            TimeoutError: if the answer to the last message is overdue.
            MemoryError: if the process holds more memory than it may.
        """
        ended = self._process.poll() is not None
        with suppress(EOFError, ConnectionError):
            if self.connection.poll(0):  # what has come in time counts, however late it is read
                return self.connection.recv()
            if time.monotonic() > self.deadline:
                raise TimeoutError
            if memory is not None and (used := self._memory()) > memory:
                raise MemoryError(f"it used {used / 2**30:.1f} GiB, and {memory / 2**30:.1f} is the limit")
            if self.connection.poll(timeout):
                return self.connection.recv()
            if not ended:
                return None
        raise Ended(self._process.wait())

    def interrupt(self) -> None:
        """Ask the process to end, and give it time to save its work."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_TIME_TO_SAVE)

    def stop(self) -> None:
        """Kill the process and its descendants."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self.connection.close()

    def _memory(self) -> int:
        import psutil

        try:
            process = psutil.Process(self._process.pid)
            return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
        except psutil.Error:  # it has ended
            return 0


def _main() -> None:
    """Run in the child what its parent sends."""
    connection = Connection(int(sys.argv[1]))
    sys.argv[:] = ["harness"]
    lifeline = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def die_with_parent() -> None:
        os.read(lifeline, 1)  # nobody writes: it returns when the other end is gone
        os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):  # nobody listens any more
        function, arguments = connection.recv()
        function(connection, *arguments)
