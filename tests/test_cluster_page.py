"""What docs/cluster.md says: its script starts workers of one cell each, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dask_jobqueue import SLURMCluster
from typer.testing import CliRunner

from harness.cli import program as cli

PAGE = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text()


def test_its_script_asks_slurm_for_workers_of_one_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[int, str]] = []

    def scale(self: SLURMCluster, jobs: int) -> None:
        asked.append((jobs, self.job_script()))

    monkeypatch.setattr(SLURMCluster, "scale", scale)
    monkeypatch.setattr("signal.pause", lambda: None)
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(script, "slurm.py", "exec"), {"__name__": "__main__"})
    ((jobs, job),) = asked
    assert jobs > 1
    assert "--nthreads 1 " in job
    assert "#SBATCH --cpus-per-task=4" in job
    assert capsys.readouterr().out.startswith("tcp://")


def test_its_options_exist() -> None:
    known = CliRunner().invoke(cli.app, ["reproduce", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    commands = re.findall(r"harness reproduce[^`\n]*", PAGE)
    assert len(commands) > 3
    for option in {option for command in commands for option in re.findall(r"--[a-z-]+", command)}:
        assert option in known
