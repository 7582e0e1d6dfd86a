"""The example package is built, installed, found, timed and trained as it stands, without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "examples" / "diagonal_flow"
METHOD = "diagonal-flow-ml"
Harness = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=PACKAGE, check=True, capture_output=True)
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def harness(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Harness:
    """Install the wheel into a folder of its own; run `harness ...` in a process that finds it there."""
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, "--disable-pip-version-check", str(wheel)], check=True, capture_output=True)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    results = tmp_path_factory.mktemp("results")
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "HARNESS_RESULTS_DIR": str(results),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=results)

    return run


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, dict]:
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["metric"]: row for row in found if row["method"] == METHOD}


def test_the_wheel_holds_one_module_and_its_entry_point(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (points,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert [name for name in names if ".dist-info/" not in name] == ["diagonal_flow.py"]
    assert points.split() == ["[ebflow_bench.methods]", "diagonal-flow", "=", "diagonal_flow"]


def test_it_is_listed(harness: Harness) -> None:
    done = harness("list")
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if METHOD in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:2] == [METHOD, "ml"]
    assert cells[4] == "available"


def test_it_is_timed(harness: Harness) -> None:
    found = rows(harness("runtime", "--dims", "4", "--methods", METHOD, "--repeats", "1", "--json"))
    assert found["seconds_per_iteration"]["status"] == "ok"
    assert found["seconds_per_iteration"]["value"] > 0
    assert found["seconds_per_iteration"]["parameters"] == 4 * 4


def test_it_is_trained(harness: Harness) -> None:
    found = rows(harness("train", "--method", METHOD, "--dataset", "digits", "--epochs", "1", "--json"))
    assert found["nll"]["status"] == "ok"
    assert found["nll"]["n"] == 10
    assert found["nll"]["parameters"] == 4 * 64
