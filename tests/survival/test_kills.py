"""A sweep that is killed at random moments, again and again, ends with the rows of one that was left alone.

Five kills by default; ``tox -e survival`` makes two hundred.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import polars as pl

from harness.results import DRIFT_METRIC, Store, reproducible

KILLS = int(os.environ.get("SURVIVAL_KILLS", "5"))

# Closed forms, estimates and trainings, whose state is saved several times a second here.
PROGRAM = """
from harness.cli import program
from harness.training import checkpoints
checkpoints._INTERVAL = 0.2
program.main()
"""
SWEEP = ("reproduce", "digits-fc", "log-z", "--methods", "gaussian,ebflow-ml,ebflow-dsm", "--threads", "1", "--quiet")


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, *SWEEP, "--results-dir", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def measured(folder: Path) -> pl.DataFrame:
    """The rows that are kept; nothing was set aside, and no row is there twice."""
    store = Store(folder)
    rows, notes = store.frame()
    assert notes == []
    assert store.verify() == rows["cell"].n_unique()
    assert not rows.select("cell", "method", "metric", "iteration").is_duplicated().any()
    return rows


def test_killed_again_and_again(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    started = time.monotonic()
    assert start(whole).wait() == 0
    duration = time.monotonic() - started
    expected = measured(whole)
    assert set(expected["status"]) == {"ok"}
    chance = random.Random(0)
    folder, kills, ended = tmp_path / "0", 0, 0
    while kills < KILLS:
        program = start(folder)
        try:
            # It may end before, and then another sweep begins.
            assert program.wait(chance.uniform(0.1, duration)) == 0
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
            kills += 1
            measured(folder)
            if kills % 2:  # the next sweep finds its cells in packs, and writes beside them
                Store(folder).pack()
                measured(folder)
        else:
            assert reproducible(measured(folder)).equals(reproducible(expected))
            ended += 1
            folder = tmp_path / str(ended)
    assert start(folder).wait() == 0
    last = measured(folder)
    assert reproducible(last).equals(reproducible(expected))
    # A training that was taken up again was not watched from its start, and has no row of the drift.
    watch = pl.col("metric") == DRIFT_METRIC
    assert len(last.filter(~watch)) == len(expected.filter(~watch))
    # No state of a training is left over, and nothing that was written beside.
    assert [path for path in folder.glob("checkpoints/*/*") if path.is_file()] == []
