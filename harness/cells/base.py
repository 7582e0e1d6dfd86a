"""What every cell is, and what cells share: identity, rows, what is finished."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

from harness import __version__
from harness.cells.pictures import Arrays
from harness.errors import InputError
from harness.methods import Method, Problem
from harness.methods.density import refusal
from harness.methods.registry import why_unavailable
from harness.results import Row, Store, cell_key
from harness.results.provenance import capture
from harness.results.statistics import Estimate
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.processes import processes

Progress = Callable[[int, int, str], None]
"""Told how many steps of the running cell are done, of how many, and a note."""

Keep = Callable[[Arrays], None]
"""Given the arrays that are to lie beside a cell's rows."""


def forget(arrays: Arrays) -> None:
    """Keep none."""


class Cell(Protocol):
    """One unit of work."""

    experiment: str
    profile: str

    @property
    def title(self) -> str:
        """What the progress bar says."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether the result depends on the time that things take, so that the cell needs the machine to itself."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what determines the result; equal identities share a file."""
        ...

    def check(self) -> None:
        """Raise the user's own mistakes, quickly, before anything is run.

        Raises:
            InputError: The shape does not fit the architecture, or the method cannot do what is asked.
        """
        ...

    def run(self, progress: Progress, keep: Keep = forget, resume: TrainingCheckpoint | None = None) -> list[Row]:
        """Measure; whatever a method does ends as a row.

        Args:
            progress: Told how far it is.
            keep: Given what it looks like, in arrays.
            resume: Where a training is saved and goes on from; for cells that train.
        """
        ...

    def without_result(self, status: str, reason: str) -> list[Row]:
        """Return the rows of a cell whose run could not end, with the reason."""
        ...


def single(value: float) -> Estimate:
    """A number that was found once."""
    return Estimate(float(value), None, None, 1)


def finished_rows(cell: Cell, store: Store, key: str | None = None) -> list[Row]:
    """Return the rows of a cell that need not run again; none if it is missing, unavailable or failed.

    A cell that is to keep its best weights in a file runs again too: the store has no weights.

    Args:
        cell: What was asked.
        store: Where finished cells lie.
        key: Of the cell where it runs, if that is not this machine.
    """
    if getattr(cell, "checkpoint", None) is not None:
        return []
    rows = store.read(cell.experiment, key or cell_key(cell.identity()))
    return rows if all(row.status in ("ok", "diverged") for row in rows) else []


def check_fit(method: Method, problem: Problem) -> None:
    """Raise InputError if the method is available and does not take the problem."""
    # The seed has no part in it, and a large model is not built once for each.
    if why_unavailable(method) is None and (reason := refusal(method, problem.replace(seed=0))):
        raise InputError(reason)


def identity_of(cell: Any, device: str, libraries: Iterable[str] = (), leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """Return a cell's fields but those left out, its class, and what it runs on, libraries of its methods included.

    This version of the project is part of it, and so are the versions of Python, torch and the method's own libraries,
    the processor and the number of threads: each may change a number, if only in its last digits. The commit is not, or
    the change of a comment would have everything measured again; a change of the code that changes results raises the
    version. Rows name their commit.
    """
    environment = capture(device, libraries)
    # Other processes have other timings, and other rounding; one alone goes without saying.
    parallel = {"processes": processes()} if processes() > 1 else {}
    fields = {key: value for key, value in dataclasses.asdict(cell).items() if key not in leave_out}
    return {
        "kind": type(cell).__name__,
        "project": __version__,
        "versions": environment.versions,
        "cpu": environment.cpu,
        "gpu": environment.gpu,
        "threads": environment.threads,
        **parallel,
        **fields,
    }


def row_maker(cell: Any, method: Method | None, problem: Problem, dataset: str) -> Callable[..., Row]:
    """Return a function that fills in what the rows of one method, or of the machine itself, share in one cell."""
    environment = capture(problem.device, method.requires if method else ())
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    identity = cell.identity()
    shared = {
        "cell": cell_key(identity),
        "experiment": cell.experiment,
        "profile": cell.profile,
        "recipe": getattr(cell, "recipe", "none"),
        "method": method.name if method else "machine",
        "objective": method.objective if method else "none",
        "linear": method.linear if method else "none",
        "limits": method.limits if method else None,
        "dataset": dataset,
        "architecture": problem.architecture,
        "shape": "x".join(map(str, problem.shape)),
        "D": problem.dimension,
        "L": problem.layers,
        "B": problem.batch,
        "seed": problem.seed,
        "dtype": problem.dtype,
        "device": problem.device,
        "threads": environment.threads,
        "config": json.dumps(identity, sort_keys=True),
        "versions": json.dumps(environment.versions, sort_keys=True),
        "cpu": environment.cpu,
        "gpu": environment.gpu,
        "commit": environment.commit,
        "started_at": started_at,
    }

    def row(
        metric: str,
        unit: str,
        estimate: Estimate | None = None,
        *,
        parameters: int | None = None,
        status: str = "ok",
        reason: str | None = None,
        iteration: int | None = None,
        seconds: float | None = None,
    ) -> Row:
        value, low, high, n = (None, None, None, None) if estimate is None else dataclasses.astuple(estimate)
        return Row(
            **shared,
            metric=metric,
            unit=unit,
            parameters=parameters,
            value=value,
            ci_low=low,
            ci_high=high,
            n=n,
            status=status,
            reason=reason,
            iteration=iteration,
            seconds=seconds,
        )

    return row
