"""Who runs the cells of a sweep: this process, several processes, or the workers of a cluster."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import InputError, one_line, unknown

if TYPE_CHECKING:
    from distributed import Client

EXECUTORS = ("serial", "processes", "dask")

_ADDRESS = re.compile(r"((tcp|tls)://)?([\w.-]+|\[[0-9a-fA-F:.]+\]):\d+")


@dataclass(frozen=True)
class Crew:
    """Who runs the cells of a sweep that may run side by side.

    Args:
        executor: What runs the cells; each of its calls takes until the process of one cell ends. None to run all cells
            in this process.
        threads: The number of torch's threads in every worker, and in this process for the cells that run alone; None
            for torch's choice.
        remote: Whether workers may be on other machines.
        note: A line that tells the user who runs the cells.
    """

    executor: Executor | None = None
    threads: int | None = None
    remote: bool = False
    note: str = ""


@contextmanager
def hire(name: str, workers: int | None, threads: int | None, scheduler: str | None) -> Iterator[Crew]:
    """Find who runs the cells, for as long as the context lasts.

    Args:
        name: The name of the executor, one of `EXECUTORS`.
        workers: The number of processes; None for as many as there are cores for their threads.
        threads: The number of threads of each worker; None for the cores shared among the processes, one on a cluster,
            torch's choice in this process.
        scheduler: The address of a Dask scheduler, or None.

    Raises:
        InputError: If an option is missing or out of place, Dask is not installed, or nobody answers at the address.
    """
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    if workers is not None and name != "processes":
        raise InputError("--workers is for --executor processes; a Dask cluster has as many as were started")
    if (scheduler is not None) != (name == "dask"):
        raise InputError("--executor dask and --scheduler ADDRESS go together; give both or neither")
    for noun, count in (("workers", workers), ("threads", threads)):
        if count is not None and count < 1:
            raise InputError(f"{noun} must be at least 1, not {count}")
    if name == "serial":
        yield Crew(threads=threads)
    elif name == "dask":
        with _dask(str(scheduler)) as client:
            told = f"cells run on the workers of {scheduler}, threads of each: {threads or 1}"
            if not client.nthreads():  # workers that wait in a queue may come hours later
                told += f"; it has none yet, and cells wait for the first (dask worker {scheduler})"
            yield Crew(client.get_executor(), threads or 1, remote=True, note=told)
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = workers or max(1, cores // (threads or 1))
        threads = threads or max(1, cores // workers)
        crowded = f"; that is more than {cores} cores, and seconds mean little" if workers * threads > cores else ""
        # The threads only wait, each for the process of one cell.
        with ThreadPoolExecutor(workers) as executor:
            yield Crew(executor, threads, note=f"{workers} processes, threads of each: {threads}{crowded}")


@contextmanager
def _dask(address: str) -> Iterator[Client]:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("Dask is not installed: pip install 'ebflow-bench[cluster]'") from None
    # Dask makes a client that cannot be closed of a text that is no address.
    if not _ADDRESS.fullmatch(address):
        raise InputError(f"'{address}' is no address of a Dask scheduler; give what it prints, tcp://HOST:PORT")
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what the client says is an error here too
    try:
        client = Client(address, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"no Dask scheduler answers at {address} ({one_line(error)}); start one first") from None
    with client:
        yield client
