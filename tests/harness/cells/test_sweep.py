"""A sweep: only what is missing is run, each cell is kept at once, and who runs the cells changes no number."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from endings import Ending, quiet

from harness.cells import Cell, Keep, LikelihoodCell, Progress
from harness.cells.own_process import Limits
from harness.cells.sweep import run_cells
from harness.cells.workers import hire
from harness.errors import InputError
from harness.methods import Problem
from harness.results import Row, Store, cell_key, reproducible
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig


class Counted(Cell):
    """A cell that counts its runs and ends as it is told."""

    kind = "counted"
    main_metric = ("nll", "nats")
    title = "counted"
    method_names = ()

    def __init__(self, make_row: Callable[..., Row], number: int, status: str = "ok") -> None:
        super().__init__(experiment="train", profile="custom", problem=Problem())
        vars(self).update(make_row=make_row, number=number, status=status, runs=0)

    def identity(self) -> dict[str, Any]:
        return {"number": self.number}

    def measure(self, progress: Progress, keep: Keep, resume: TrainingCheckpoint | None) -> list[Row]:
        vars(self)["runs"] += 1
        value = float(self.runs) if self.status == "ok" else None
        return [self.make_row(cell=self.key(), experiment="train", status=self.status, value=value)]


def test_a_second_run_fills_only_what_is_missing(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    store = Store(tmp_path)
    statuses = ["ok", "diverged", "unavailable", "failed", "ok"]
    sweep = [Counted(make_row, number, status) for number, status in enumerate(statuses)]
    first = run_cells(sweep[:-1], store, lambda cell, finished: quiet)
    assert [row.status for row in first] == statuses[:-1]
    told: list[tuple[int, bool]] = []
    shown: list[int] = []

    def start(cell: Any, finished: bool) -> Progress:
        told.append((cell.number, finished))
        return quiet

    second = run_cells(sweep, store, start, lambda cell, rows: shown.append(len(rows)))
    # What has a result stays; what was unavailable or failed is tried again.
    assert told == [(0, True), (1, True), (2, False), (3, False), (4, False)]
    assert [cell.runs for cell in sweep] == [1, 1, 2, 2, 1]
    assert [row.status for row in second] == statuses
    assert shown == [1] * 5
    run_cells(sweep, store, start, fresh=True)
    assert [cell.runs for cell in sweep] == [2, 2, 3, 3, 2]


def test_a_damaged_cell_is_measured_again(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    store = Store(tmp_path)
    cell = Counted(make_row, 0)
    run_cells([cell], store, lambda cell, finished: quiet)
    (path,) = tmp_path.rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:50])
    run_cells([cell], store, lambda cell, finished: quiet)
    assert cell.runs == 2
    assert len(store.frame()[0]) == 1
    assert [line.split(":")[0] for line in store.notes] == [str(path)]


def test_a_kill_loses_the_running_cell_alone(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    class Killed(Counted):
        def measure(self, *unused: Any) -> list[Row]:
            raise KeyboardInterrupt

    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_cells(
            [Counted(make_row, 0), Killed(make_row, 1), Counted(make_row, 2)], store, lambda cell, finished: quiet
        )
    frame, damaged = store.frame()
    assert frame["cell"].to_list() == [cell_key({"number": 0})]
    assert damaged == []


TRAININGS = [
    LikelihoodCell(
        experiment="train",
        profile="custom",
        method=method,
        problem=Problem(shape=(1, 8, 8), layers=1 if method == "gaussian" else 2, seed=seed),
        dataset="digits",
        config=TrainingConfig(epochs=2, evaluate_every=1),
        draws=2,
    )
    for method, seed in (("gaussian", 0), ("ebflow-dsm", 0), ("ebflow-dsm", 1))
]


@pytest.fixture
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_processes_find_what_one_process_finds(tmp_path: Path) -> None:
    serial, parallel = Store(tmp_path / "serial"), Store(tmp_path / "parallel")
    run_cells(TRAININGS, serial, lambda cell, finished: quiet)
    told: list[tuple[int, int]] = []
    with hire("processes", 2, 1, None) as crew:
        rows = run_cells(
            TRAININGS, parallel, lambda cell, finished: lambda done, total, note: told.append((done, total)), crew=crew
        )
    assert reproducible(parallel.frame()[0]).equals(reproducible(serial.frame()[0]))
    assert len(parallel.frame()[0]) == len(rows)
    assert [row.method for row in rows if row.metric == "nll"] == ["gaussian", "ebflow-dsm", "ebflow-dsm"]
    assert (2, 2) in told
    # And knows them again.
    there: list[bool] = []
    with hire("processes", 2, 1, None) as crew:
        run_cells(TRAININGS, serial, lambda cell, finished: there.append(finished) or quiet, crew=crew)
    assert there == [True] * 3


def test_what_needs_the_machine_runs_last_alone_and_here(tmp_path: Path) -> None:
    sweep = [Ending("pid", 0, alone=True), Ending("pid", 1), Ending("pid", 2)]
    running: list[int] = []
    beside: list[int] = []

    def start(cell: Any, finished: bool) -> Progress:
        running.append(cell.number)
        if cell.exclusive:
            beside.extend(number for number in running if number != cell.number)
        return quiet

    with hire("processes", 2, 1, None) as crew:
        rows = run_cells(sweep, Store(tmp_path), start, lambda cell, rows: running.remove(cell.number), crew=crew)
    assert rows[0].value == os.getpid()
    assert len({row.value for row in rows}) == 3
    assert beside == []


def test_limits_hold_without_a_crew(tmp_path: Path) -> None:
    sweep = [Ending("crash", 1), Ending("pid", 2)]
    rows = run_cells(sweep, Store(tmp_path), lambda cell, finished: quiet, limits=Limits(seconds=100))
    assert [row.status for row in rows] == ["failed", "ok"]
    assert os.getpid() not in {row.value for row in rows}


def test_stopping_ends_what_runs_and_keeps_what_is_done(tmp_path: Path) -> None:
    sweep = [Ending("pid", 0), *(Ending("hang", number, tmp_path) for number in range(1, 5))]
    store = Store(tmp_path)

    def stop(cell: Any, rows: list[Row]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), hire("processes", 2, 1, None) as crew:
        run_cells(sweep, store, lambda cell, finished: quiet, on_end=stop, crew=crew)
    assert store.frame()[0]["status"].to_list() == ["ok"]
    for path in tmp_path.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def test_threads_are_shared_among_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for workers, threads, found, note in (
        (None, None, 1, "8 processes, threads of each: 1"),
        (None, 3, 3, "2 processes, threads of each: 3"),
        (2, None, 4, "2 processes, threads of each: 4"),
        (5, 2, 2, "5 processes, threads of each: 2; that is more than 8 cores, and seconds mean little"),
    ):
        with hire("processes", workers, threads, None) as crew:
            assert (crew.threads, crew.note) == (found, note)
    with hire("serial", None, None, None) as crew:
        assert (crew.executor, crew.threads) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("proceses", None, None, None), "unknown executor 'proceses': did you mean processes?"),
        (("serial", 2, None, None), "--workers is for --executor processes"),
        (("dask", None, None, None), "--executor dask and --scheduler ADDRESS go together"),
        (("processes", None, None, "tcp://here:1"), "--executor dask and --scheduler ADDRESS go together"),
        (("processes", 0, None, None), "workers must be at least 1, not 0"),
        (("processes", None, 0, None), "threads must be at least 1, not 0"),
    ],
)
def test_options_that_make_no_crew(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message), hire(*arguments):
        pass
