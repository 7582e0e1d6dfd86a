"""Runs a sweep of cells: one after another, side by side in processes, or on the workers of a cluster."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from harness.cells import Cell, LikelihoodCell, Progress, finished_rows
from harness.checkpoints import FollowedCheckpoint, TrainingCheckpoint
from harness.environment import code_digest, prepare
from harness.errors import InputError, one_line, unknown
from harness.isolation import Limits, Outcome, alone, attempt
from harness.results import Row, Store, cell_key

__all__ = ["EXECUTORS", "Crew", "follow", "hire", "run_cells"]

if TYPE_CHECKING:
    from distributed import Client

EXECUTORS = ("serial", "processes", "dask")

_ADDRESS = re.compile(r"((tcp|tls)://)?([\w.-]+|\[[0-9a-fA-F:.]+\]):\d+")


@dataclass(frozen=True)
class Crew:
    """Who runs the cells of a sweep that may run side by side.

    Args:
        executor: Each of its calls takes until the process of one cell ends; None to run all in this process.
        threads: Of torch in every worker, and in this process for the cells that run alone; None for torch's choice.
        remote: Whether workers may be on other machines.
        note: What to tell the user about it.
    """

    executor: Executor | None = None
    threads: int | None = None
    remote: bool = False
    note: str = ""


@contextmanager
def hire(name: str, workers: int | None, threads: int | None, scheduler: str | None) -> Iterator[Crew]:
    """Find those who run the cells, for as long as the context lasts.

    Args:
        name: One of `EXECUTORS`.
        workers: How many processes; None for as many as there are cores for their threads.
        threads: Of each; None for the cores shared among the processes, one on a cluster, torch's choice in this
            process.
        scheduler: Address of a Dask scheduler.

    Raises:
        InputError: An option is missing or out of place, Dask is not installed, or nobody answers at the address.
    """
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    if workers is not None and name != "processes":
        raise InputError("--workers is for --executor processes; a Dask cluster has as many as were started")
    if (scheduler is not None) != (name == "dask"):
        raise InputError("--executor dask and --scheduler ADDRESS go together; give both or neither")
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, not {workers}")
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
    if name == "serial":
        yield Crew(threads=threads)
    elif name == "dask":
        with _dask(str(scheduler)) as client:
            told = f"cells run on the workers of {scheduler}, threads of each: {threads or 1}"
            if not client.nthreads():  # of a queue they may come hours later
                told += f"; it has none yet, and cells wait for the first (dask worker {scheduler})"
            yield Crew(client.get_executor(), threads or 1, remote=True, note=told)
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = workers or max(1, cores // (threads or 1))
        threads = threads or max(1, cores // workers)
        crowded = f"; that is more than {cores} cores, and seconds mean little" if workers * threads > cores else ""
        # Its threads only wait, each for the process of one cell.
        with ThreadPoolExecutor(workers) as executor:
            yield Crew(executor, threads, note=f"{workers} processes, threads of each: {threads}{crowded}")


@contextmanager
def _dask(address: str) -> Iterator[Client]:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("Dask is not installed: pip install 'ebflow-bench[cluster]'") from None
    # Of what is no address Dask makes a client that cannot be closed.
    if not _ADDRESS.fullmatch(address):
        raise InputError(f"'{address}' is no address of a Dask scheduler; give what it prints, tcp://HOST:PORT")
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it has to say is an error here too
    try:
        client = Client(address, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"no Dask scheduler answers at {address} ({one_line(error)}); start one first") from None
    with client:
        yield client


def run_cells(
    cells: Sequence[Cell],
    store: Store,
    on_start: Callable[[Cell, bool], Progress],
    on_end: Callable[[Cell, list[Row]], None] = lambda cell, rows: None,
    fresh: bool = False,
    crew: Crew | None = None,
    limits: Limits | None = None,
) -> list[Row]:
    """Run the cells that the store lacks, keeping each as soon as it is done.

    This process alone writes results. The training of a running cell is saved beside the cells, by the process that
    runs it, until its result is there, and a stopped one goes on. Cells that need the machine to themselves run on this
    one, one by one, after the others.

    Args:
        cells: In the order of the rows that are returned.
        store: Where finished cells lie; those that were unavailable or failed are tried again.
        on_start: Told of each cell and whether it is already there; returns the callback for its progress. With a crew
            it is called in other threads; of a remote one, when the cell has ended.
        on_end: Told of each cell that has ended, in this thread, and its rows.
        fresh: Measure everything anew, from the beginning.
        crew: Who runs them; all run in this process if not given.
        limits: Of every cell, which then has a process of its own.

    Raises:
        InputError: A result cannot be kept, or the cluster is lost.
    """
    crew, threads = crew or Crew(), torch.get_num_threads()
    found: dict[int, list[Row]] = {}

    def tell(number: int, rows: list[Row]) -> None:
        found[number] = rows
        on_end(cells[number], rows)

    def to_run(number: int, key: str) -> _Job | None:
        cell = cells[number]
        if not fresh and (rows := finished_rows(cell, store, key)):
            on_start(cell, True)
            tell(number, rows)
            return None
        resume = _resumed_from(cell, key, store)
        if fresh:
            resume.discard()
        return _Job(number, cell, resume)

    def keep(job: _Job, outcome: Outcome) -> None:
        store.write(outcome.rows, outcome.arrays)
        # What was cut off can go on, and so can what lacks its data today.
        if not outcome.cut_off and any(row.status != "unavailable" for row in outcome.rows):
            job.resume.discard()
        tell(job.number, outcome.rows)

    together = [number for number, cell in enumerate(cells) if crew.executor is not None and not cell.exclusive]
    keys = zip(together, _keys([cells[number] for number in together], crew, threads), strict=True)
    jobs = [job for number, key in keys if (job := to_run(number, key)) is not None]
    with _submitted(jobs, crew, threads, limits or Limits(), on_start) as futures:
        for future in as_completed(futures):
            job = futures.pop(future)
            outcome = _outcome(future, job.cell)
            # A cluster computes again what it has lost with a worker, as long as somebody holds the future.
            del future
            if crew.remote:
                on_start(job.cell, False)
            keep(job, outcome)
    for number, cell in enumerate(cells):
        if number not in found and (job := to_run(number, cell_key(cell.identity()))) is not None:
            progress = on_start(cell, False)
            if limits is None:
                keep(job, attempt(cell, progress, job.resume))
            else:
                keep(job, alone(cell, limits, threads, job.resume, progress))
    return [row for _, rows in sorted(found.items()) for row in rows]


@dataclass(frozen=True)
class _Job:
    """A cell that is to run, its place in the sweep, and where its training is saved."""

    number: int
    cell: Cell
    resume: TrainingCheckpoint


def follow(cell: LikelihoodCell, store: Store, fresh: bool) -> None:
    """Take part in a training whose results another process writes: `run_cells` of this cell, in that process."""
    if fresh or not finished_rows(cell, store):
        resume = _resumed_from(cell, cell_key(cell.identity()), store, FollowedCheckpoint)
        replace(cell, checkpoint=None).run(lambda done, total, note: None, resume=resume)


def _resumed_from(
    cell: Cell, key: str, store: Store, kind: type[TrainingCheckpoint] = TrainingCheckpoint
) -> TrainingCheckpoint:
    """Return the place of a cell's training: the same cell by other code is another training."""
    path = store.folder.absolute() / "checkpoints" / cell.experiment / f"{key}.safetensors"
    return kind(path, {"cell": key, "code": code_digest()})


@contextmanager
def _submitted(
    jobs: Sequence[_Job],
    crew: Crew,
    threads: int,
    limits: Limits,
    on_start: Callable[[Cell, bool], Progress],
) -> Iterator[dict[Future[Outcome], _Job]]:
    """Give cells to a crew; when the context is left early, running ones are stopped and waiting ones cancelled."""
    stopped = threading.Event()

    def here(job: _Job) -> Outcome:
        return alone(job.cell, limits, threads, job.resume, on_start(job.cell, False), stopped)

    futures: dict[Future[Outcome], _Job] = {}
    try:
        for job in jobs:
            # Neither progress nor the event can travel to another machine.
            call = partial(alone, job.cell, limits, threads, job.resume) if crew.remote else partial(here, job)
            futures[crew.executor.submit(call)] = job
        yield futures
    finally:
        for future in futures:
            future.cancel()
        stopped.set()


def _outcome(future: Future[Outcome], cell: Cell) -> Outcome:
    """Return what a worker made of a cell; that it was lost is a row too."""
    try:
        return future.result()
    except CancelledError:
        raise InputError("the cluster is lost; the same command goes on with what is missing") from None
    except Exception as error:  # of Dask, which tried other workers before it gave up
        return Outcome(cell.without_result("failed", one_line(error)), cut_off=True)


def _keys(cells: Sequence[Cell], crew: Crew, threads: int) -> list[str]:
    """Name cells where they run: processor and versions of a cluster's workers are part of the names."""
    if not crew.remote or not cells:
        return [cell_key(cell.identity()) for cell in cells]
    try:
        return crew.executor.submit(_keys_here, cells, threads).result()
    except Exception as error:  # an installation that differs raises anything at all
        raise InputError(f"the workers of the cluster cannot run these cells ({one_line(error)})") from None


def _keys_here(cells: Sequence[Cell], threads: int) -> list[str]:
    prepare("cpu", threads)
    return [cell_key(cell.identity()) for cell in cells]
