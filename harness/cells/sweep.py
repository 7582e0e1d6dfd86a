"""Runs a sweep of cells: one after another, side by side in processes, or on the workers of a cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch

from harness.cells.base import Cell, Outcome, Progress, finished_rows
from harness.cells.likelihood import LikelihoodCell
from harness.cells.own_process import Limits, alone
from harness.cells.workers import Crew
from harness.errors import InputError, one_line
from harness.methods.process_settings import prepare
from harness.results import Row, Store
from harness.results.provenance import code_digest
from harness.training.checkpoints import FollowedCheckpoint, TrainingCheckpoint


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
        if number not in found and (job := to_run(number, cell.key())) is not None:
            progress = on_start(cell, False)
            if limits is None:
                keep(job, cell.run(progress, job.resume))
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
        resume = _resumed_from(cell, cell.key(), store, FollowedCheckpoint)
        replace(cell, checkpoint=None).run(resume=resume)


def _resumed_from(
    cell: Cell, key: str, store: Store, kind: type[TrainingCheckpoint] = TrainingCheckpoint
) -> TrainingCheckpoint:
    """Return the place of a cell's training: the same cell by other code is another training."""
    path = store.folder.absolute() / "checkpoints" / cell.experiment / f"{key}.safetensors"
    return kind(path, {"cell": key, "code": code_digest()})


@contextmanager
def _submitted(
    jobs: Sequence[_Job], crew: Crew, threads: int, limits: Limits, on_start: Callable[[Cell, bool], Progress]
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
        return [cell.key() for cell in cells]
    try:
        return crew.executor.submit(_keys_here, cells, threads).result()
    except Exception as error:  # an installation that differs raises anything at all
        raise InputError(f"the workers of the cluster cannot run these cells ({one_line(error)})") from None


def _keys_here(cells: Sequence[Cell], threads: int) -> list[str]:
    prepare("cpu", threads)
    return [cell.key() for cell in cells]
