"""The quick NLL sweep of the digits on four workers of Dask, one of which is killed every ten seconds.

Run by ``tox -e survival`` alone: it takes minutes.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

import dask
import torch
from distributed import Client, LocalCluster

from harness.cells.sweep import run_cells
from harness.cells.workers import hire
from harness.paper.experiments import Context, select
from harness.results import Store, reproducible

SECONDS = 10


def test_a_worker_is_killed_every_ten_seconds(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    cells = [cell for experiment in select(["digits-fc"], "quick") for cell in experiment.cells(Context("quick"))]
    serial, remote = Store(tmp_path / "serial"), Store(tmp_path / "remote")
    run_cells(cells, serial, lambda cell, finished: lambda *step: None)
    over, kills = threading.Event(), []
    with (
        # As docs/cluster.md has it: a cell has a process of its own, and its worker's death is not its fault.
        dask.config.set({"distributed.scheduler.allowed-failures": 100}),
        LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=":0", silence_logs="CRITICAL") as cluster,
    ):

        def kill() -> None:
            chance = random.Random(0)
            with Client(cluster, set_as_default=False) as client:
                while not over.wait(SECONDS):
                    pid = chance.choice(sorted(client.run(os.getpid, on_error="ignore").values()))
                    os.kill(pid, signal.SIGKILL)
                    kills.append(pid)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with hire("dask", None, 1, cluster.scheduler_address) as crew:
                run_cells(cells, remote, lambda cell, finished: lambda *step: None, crew=crew)
        finally:
            over.set()
            killer.join()
    print(f"{len(cells)} cells, {len(kills)} kills")
    assert kills
    assert set(remote.frame()[0]["status"]) <= {"ok", "unavailable"}
    assert reproducible(remote.frame()[0]).equals(reproducible(serial.frame()[0]))
