"""A process of its own for code that may crash, hang or end its process; it never outlives the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

_TIME_TO_SAVE = 10.0  # seconds; the largest state of a training is written in one


class Child:
    """A fresh Python process that runs one function; use as a context, at whose end it is killed.

    It is no `multiprocessing.Process`, because a worker of Dask is a daemon, and may have no such child. What it prints
    goes to standard error. It is the leader of a session: Ctrl-C reaches its parent alone, and whatever processes it
    starts are killed with it.

    Args:
        function: Importable; called with the child's end of the connection, and the arguments.
        arguments: Picklable.
        threads: For the libraries that read OMP_NUM_THREADS when they are imported; None for their own choice.
    """

    def __init__(self, function: Callable[..., object], *arguments: Any, threads: int | None = None) -> None:
        self.connection, there = Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        self._process = subprocess.Popen(
            # -P: what lies in the working folder is no module of the program's. -u: what it says is not lost with it.
            [sys.executable, "-P", "-u", "-c", f"from {__name__} import _main; _main()", str(there.fileno())],
            pass_fds=[there.fileno()],
            stdin=subprocess.PIPE,
            stdout=2,
            env=environment,
            start_new_session=True,
        )
        there.close()
        with suppress(ConnectionError):  # it is dead; the first who listens is told
            self.connection.send((function, arguments))

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def memory(self) -> int:
        """Bytes that it and its descendants hold in memory now; 0 if it has ended."""
        import psutil

        try:
            process = psutil.Process(self._process.pid)
            return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
        except psutil.Error:
            return 0

    def ended(self) -> bool:
        """Whether it has ended, though what it has forked may live on."""
        return self._process.poll() is not None

    def ending(self) -> tuple[int, str]:
        """Wait until it has ended; return its exit status, of a signal the negative, and say so in words."""
        status = self._process.wait()
        if status >= 0:
            return status, f"ended with exit status {status}"
        return status, f"was killed by {signal.Signals(-status).name}"

    def interrupt(self) -> None:
        """Ask it to end, and give it time to save its work."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_TIME_TO_SAVE)

    def stop(self) -> None:
        """End it and its descendants, whatever they do."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self.connection.close()


def _main() -> None:
    """Run in the child what its parent sends."""
    connection = Connection(int(sys.argv[1]))
    sys.argv[:] = ["harness"]
    lifeline = os.dup(0)
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)

    def die_with_parent() -> None:
        os.read(lifeline, 1)  # nobody writes: it returns when the other end is gone
        os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):  # nobody listens any more
        function, arguments = connection.recv()
        function(connection, *arguments)
