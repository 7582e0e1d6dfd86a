"""Runs a sweep of cells: one after another, side by side in processes, or on the workers of a cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from harness.cells.base import Cell, Outcome, Progress, finished_rows, is_finished
from harness.cells.likelihood import LikelihoodCell
from harness.cells.own_process import Limits, alone
from harness.cells.workers import Crew
from harness.errors import InputError, one_line
from harness.methods.process_settings import prepare
from harness.results import Row, Store
from harness.results.provenance import code_digest
from harness.training.checkpoints import TrainingCheckpoint


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
        cells: The cells, in the order of the rows that are returned.
        store: Where finished cells lie; those that were unavailable or failed are tried again.
        on_start: Told of each cell and whether it is already there; returns the callback for its progress. With a crew
            it is called in other threads; of a remote one, when the cell has ended.
        on_end: Told of each cell that has ended, in this thread, and its rows.
        fresh: Whether everything is measured anew, from the beginning.
        crew: Who runs the cells; all run in this process if not given.
        limits: What every cell may use; each has a process of its own then.

    Raises:
        InputError: If a result cannot be kept, or the cluster is lost.
    """
    crew, threads = crew or Crew(), torch.get_num_threads()
    sweep = _Sweep(cells, store, on_start, on_end, fresh)
    together = [number for number, cell in enumerate(cells) if crew.executor is not None and not cell.exclusive]
    keys = _keys([cells[number] for number in together], crew, threads)
    asked = [sweep.job(number, key) for number, key in zip(together, keys, strict=True)]
    jobs = [job for job in asked if job is not None]
    with _submitted(jobs, crew, threads, limits or Limits(), on_start) as futures:
        for future in as_completed(futures):
            job = futures.pop(future)
            try:
                outcome = future.result()
            except CancelledError:
                raise InputError("the cluster is lost; the same command goes on with what is missing") from None
            except Exception as error:  # Dask has tried other workers before it gave up
                outcome = Outcome(job.cell.without_result("failed", one_line(error)), cut_off=True)
            # A cluster computes again what it has lost with a worker, as long as somebody holds the future.
            del future
            if crew.remote:
                on_start(job.cell, False)
            sweep.keep(job, outcome)
    for number, cell in enumerate(cells):
        if number in sweep.rows or (waiting := sweep.job(number, cell.key())) is None:
            continue
        progress = on_start(cell, False)
        if limits is None:
            sweep.keep(waiting, cell.run(progress, waiting.resume))
        else:
            sweep.keep(waiting, alone(cell, limits, threads, waiting.resume, progress))
    return [row for _, rows in sorted(sweep.rows.items()) for row in rows]


@dataclass(frozen=True)
class _Job:
    """A cell that is to run, its place in the sweep, and where its training is saved."""

    number: int
    cell: Cell
    resume: TrainingCheckpoint


@dataclass
class _Sweep:
    """The cells of a sweep, and the rows of those that have ended, by their number."""

    cells: Sequence[Cell]
    store: Store
    on_start: Callable[[Cell, bool], Progress]
    on_end: Callable[[Cell, list[Row]], None]
    fresh: bool
    rows: dict[int, list[Row]] = field(default_factory=dict)

    def job(self, number: int, key: str) -> _Job | None:
        """Return what is to run for a cell of this key; None if its rows are there, and tell so."""
        cell = self.cells[number]
        if not self.fresh and (rows := finished_rows(cell, self.store, key)):
            self.on_start(cell, True)
            self.rows[number] = rows
            self.on_end(cell, rows)
            return None
        resume = _resumed_from(cell, key, self.store)
        if self.fresh:
            resume.discard()
        return _Job(number, cell, resume)

    def keep(self, job: _Job, outcome: Outcome) -> None:
        """Write what a cell has made, and let go of the state of its training."""
        self.store.write(outcome.rows, outcome.arrays)
        statuses = {row.status for row in outcome.rows}
        unscored = "ok" in statuses and not is_finished(job.cell, outcome.rows)
        # What was cut off can go on, and so can what lacks its data today, or was trained and could not be scored.
        if not (outcome.cut_off or unscored or statuses == {"unavailable"}):
            job.resume.discard()
        self.rows[job.number] = outcome.rows
        self.on_end(job.cell, outcome.rows)


def follow(cell: LikelihoodCell, store: Store, fresh: bool) -> None:
    """Take part in the training of a cell that another process runs by `run_cells`, and write nothing."""
    if fresh or not finished_rows(cell, store):
        resume = _resumed_from(cell, cell.key(), store, follows=True)
        replace(cell, save=None).run(resume=resume)


def _resumed_from(cell: Cell, key: str, store: Store, follows: bool = False) -> TrainingCheckpoint:
    """Return the place of a cell's training: the same cell by other code is another training."""
    path = store.folder.absolute() / "checkpoints" / cell.experiment / f"{key}.safetensors"
    return TrainingCheckpoint(path, {"cell": key, "code": code_digest()}, follows)


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
            assert crew.executor is not None
            # Neither progress nor the event can travel to another machine.
            call = partial(alone, job.cell, limits, threads, job.resume) if crew.remote else partial(here, job)
            futures[crew.executor.submit(call)] = job
        yield futures
    finally:
        for future in futures:
            future.cancel()
        stopped.set()


def _keys(cells: Sequence[Cell], crew: Crew, threads: int) -> list[str]:
    """Return the keys of cells where they run: processor and versions of a cluster's workers are part of them."""
    if not crew.remote or not cells:
        return [cell.key() for cell in cells]
    assert crew.executor is not None
    try:
        return crew.executor.submit(_keys_here, cells, threads).result()
    except Exception as error:  # an installation that differs raises anything at all
        raise InputError(f"the workers of the cluster cannot run these cells ({one_line(error)})") from None


def _keys_here(cells: Sequence[Cell], threads: int) -> list[str]:
    prepare("cpu", threads)
    return [cell.key() for cell in cells]
