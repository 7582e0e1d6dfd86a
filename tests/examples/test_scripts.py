"""The example scripts run as they stand, shortened by their own options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def run(script: str, folder: Path, *options: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(EXAMPLES / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short(script: Path) -> None:
    assert len(script.read_text().splitlines()) < 40


def test_there_are_three() -> None:
    assert len(SCRIPTS) == 3


def test_a_density_is_fitted_and_drawn(tmp_path: Path) -> None:
    printed = run("fit_density.py", tmp_path, "--steps", "20")
    (divergence,) = re.findall(r"KL divergence (\S+) nats", printed)
    assert float(divergence) > 0
    assert matplotlib.image.imread(tmp_path / "density.png").std() > 0.1


def test_score_matching_ends_below_the_gaussian_on_digits(tmp_path: Path) -> None:
    printed = run("digits_likelihood.py", tmp_path, "--steps", "20")
    nll = {name: float(value) for name, value in re.findall(r"^(\w+) +(\S+) nats an image", printed, re.MULTILINE)}
    assert nll["flow"] < nll["Gaussian"]
    assert "log Z" in printed


def test_missing_pixels_are_filled_in(tmp_path: Path) -> None:
    printed = run("impute_pixels.py", tmp_path, "--steps", "50", "--output", "filled.png")
    (error,) = re.findall(r"off by (\S+) of 16", printed)
    assert 0 < float(error) < 8  # a guess at random is further off
    assert matplotlib.image.imread(tmp_path / "filled.png").std() > 0.1
