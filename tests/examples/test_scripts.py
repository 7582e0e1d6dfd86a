"""The example scripts run as they stand, shortened by their own options."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a script as a program, in an empty folder; return what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")

    def run(script: str, *options: str) -> str:
        monkeypatch.setattr("sys.argv", [script, *options])
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        plt.close("all")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short(script: Path) -> None:
    assert len(script.read_text().splitlines()) < 40


def test_there_are_three() -> None:
    assert len(SCRIPTS) == 3


def test_a_density_is_fitted_and_drawn(run: Run, tmp_path: Path) -> None:
    printed = run("fit_density.py", "--steps", "20")
    divergences = re.findall(r"KL divergence (\S+) nats", printed)
    assert len(divergences) == 2
    assert min(map(float, divergences)) > 0
    assert plt.imread(tmp_path / "density.png").std() > 0.1


def test_score_matching_ends_below_the_gaussian_on_digits(run: Run) -> None:
    printed = run("digits_likelihood.py", "--steps", "20")
    nll = {name: float(value) for name, value in re.findall(r"^(\w+) +(\S+) nats an image", printed, re.MULTILINE)}
    assert nll["flow"] < nll["Gaussian"]
    assert "log Z" in printed


def test_missing_pixels_are_filled_in(run: Run, tmp_path: Path) -> None:
    printed = run("impute_pixels.py", "--steps", "50", "--output", "filled.png")
    (error,) = re.findall(r"off by (\S+) of 16", printed)
    assert 0 < float(error) < 8  # a guess at random is further off
    assert plt.imread(tmp_path / "filled.png").std() > 0.1
