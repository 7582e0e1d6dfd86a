"""On a Dask cluster of real worker processes: the rows of a serial run, whoever is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
import torch
from distributed import Client, LocalCluster
from endings import Ending, quiet

from harness.cells.own_process import Limits
from harness.cells.sweep import run_cells
from harness.cells.workers import hire
from harness.errors import InputError
from harness.results import Row, Store, reproducible

SWEEP = [Ending("draw", number) for number in range(4)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs="CRITICAL") as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_killed_worker_changes_no_row(cluster: LocalCluster, tmp_path: Path) -> None:
    serial, remote = Store(tmp_path / "serial"), Store(tmp_path / "remote")
    run_cells(SWEEP, serial, lambda cell, finished: quiet)
    told: list[bool] = []
    with Client(cluster, set_as_default=False) as client:
        workers = iter(client.run(os.getpid).values())

    def kill_one(cell: Any, rows: list[Row]) -> None:
        if (pid := next(workers, None)) is not None and len(told) == 1:
            os.kill(pid, signal.SIGKILL)

    def start(cell: Any, finished: bool) -> Any:
        told.append(finished)
        return quiet

    with hire("dask", None, 1, cluster.scheduler_address) as crew:
        rows = run_cells(SWEEP, remote, start, kill_one, crew=crew)
    assert [row.status for row in rows] == ["ok"] * 4
    assert reproducible(remote.frame()[0]).equals(reproducible(serial.frame()[0]))
    assert told == [False] * 4
    # The names of the cells are those of the workers' machine, which know them again.
    with hire("dask", None, 1, cluster.scheduler_address) as crew:
        run_cells(SWEEP, serial, start, crew=crew)
    assert told[4:] == [True] * 4


def test_what_is_done_is_not_computed_again(cluster: LocalCluster, tmp_path: Path) -> None:
    sweep = [Ending("draw", number, folder=tmp_path) for number in range(6)]
    ended: list[int] = []

    def kill_all(cell: Any, rows: list[Row]) -> None:
        ended.append(cell.number)
        if len(ended) == 3:
            with Client(cluster, set_as_default=False) as client:
                for pid in client.run(os.getpid).values():
                    os.kill(pid, signal.SIGKILL)

    with hire("dask", None, 1, cluster.scheduler_address) as crew:
        rows = run_cells(sweep, Store(tmp_path / "store"), lambda cell, finished: quiet, kill_all, crew=crew)
    assert [row.status for row in rows] == ["ok"] * 6
    assert [(tmp_path / f"{number}.runs").read_text() for number in ended[:3]] == ["x"] * 3


def test_limits_hold_on_a_worker(cluster: LocalCluster, tmp_path: Path) -> None:
    with hire("dask", None, 1, cluster.scheduler_address) as crew:
        (row,) = run_cells(
            [Ending("hang")], Store(tmp_path), lambda cell, finished: quiet, crew=crew, limits=Limits(seconds=3)
        )
    assert (row.status, row.reason) == ("failed", "it took longer than 3 s, the limit for a cell (--timeout)")


def test_timings_stay_on_this_machine(cluster: LocalCluster, tmp_path: Path) -> None:
    with hire("dask", None, 1, cluster.scheduler_address) as crew:
        (row,) = run_cells([Ending("pid", alone=True)], Store(tmp_path), lambda cell, finished: quiet, crew=crew)
    assert row.value == os.getpid()


def test_a_scheduler_that_goes_away_is_one_line(tmp_path: Path) -> None:
    sweep = [Ending("draw", 0), Ending("hang", 1)]
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs="CRITICAL")
    store = Store(tmp_path)
    with (
        cluster,
        pytest.raises(InputError, match="the cluster is lost; the same command goes on with what is missing"),
        hire("dask", None, 1, cluster.scheduler_address) as crew,
    ):
        run_cells(sweep, store, lambda cell, finished: quiet, lambda cell, rows: cluster.close(), crew=crew)
    assert len(store.frame()[0]) == 1


def test_cells_wait_for_workers_and_the_user_is_told() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address=":0", silence_logs="CRITICAL") as cluster,
        hire("dask", None, 1, cluster.scheduler_address) as crew,
    ):
        assert f"it has none yet, and cells wait for the first (dask worker {cluster.scheduler_address})" in crew.note


def test_nobody_at_the_address_is_one_line() -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"),
        hire("dask", None, 1, "tcp://127.0.0.1:1"),
    ):
        pass


@pytest.mark.parametrize(
    "address", ["", "nowhere", "tcp://", "tcp://127.0.0.1:abc", "tcp://[::1", "foo://x:1", "inproc://x", "/etc/passwd"]
)
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(InputError, match="is no address of a Dask scheduler"), hire("dask", None, 1, address):
        pass
