"""`harness check` and the pytest plugin, as an author meets them: in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.conformance.checks import CHECKS
from harness.conformance.findings import Finding
from harness.conformance.runner import findings

BROKEN = """
import os, sys, time
import torch
from harness.methods import Method, Model


class Diagonal(Model):
    def __init__(self, problem):
        self.module = torch.nn.Module()
        self.module.shift = torch.nn.Parameter(torch.zeros(problem.shape))

    def training_loss(self, x, generator=None):
        {fault}
        return 0.5 * (x - self.module.shift).square().flatten(1).sum(1).mean()

    def to_latent(self, x):
        return x - self.module.shift, x.new_zeros(len(x))

    def to_data(self, z):
        return z + self.module.shift


METHODS = [Method("broken-ml", objective="ml", linear="shift", build=Diagonal, summary="broken on purpose")]
"""

RUN_PROGRAM = "from harness.cli.program import main; main()"


def program(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN_PROGRAM, *arguments], capture_output=True, text=True, cwd=cwd, timeout=300
    )


@pytest.fixture
def broken(tmp_path: Path):
    """Write a file of one method with a fault in its loss."""

    def write(fault: str) -> Path:
        path = tmp_path / "broken.py"
        path.write_text(BROKEN.format(fault=fault))
        return path

    return write


def of(found: list[Finding], check: str) -> Finding:
    (finding,) = [finding for finding in found if finding.check == check]
    return finding


def test_a_file_is_checked_and_every_broken_promise_is_told(broken, tmp_path: Path) -> None:
    done = program("check", str(broken("print('loud'); return float('nan') * x.sum()")), "--json", cwd=tmp_path)
    assert done.returncode == 1
    # two processes print to one stream, a line and its end in two pieces, so that lines may run together
    assert set(done.stderr.replace("loud", "loud\n").split()) == {"loud"}
    found = [Finding(**json.loads(line)) for line in done.stdout.splitlines()]
    assert {finding.check for finding in found} == set(CHECKS)
    assert "the loss is nan" in of(found, "gradients").text
    assert of(found, "log-det").status == "passed"
    assert of(found, "equal-weights").status == "inapplicable"


def test_the_text_form_says_what_broke_and_counts(broken, tmp_path: Path) -> None:
    done = program("check", str(broken("1 / 0")), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert any("broken  gradients: " in line and "ZeroDivisionError: division by zero (at " in line for line in lines)
    assert lines[-1].startswith("broken-ml does not keep the contract: ")
    assert "Traceback" not in done.stdout


def test_a_method_that_exits_is_a_finding(broken) -> None:
    found = list(findings("broken-ml", broken("sys.exit(3)")))
    assert "SystemExit: 3" in of(found, "gradients").text
    assert of(found, "log-det").status == "passed"


def test_after_two_crashes_the_rest_is_left_out(broken) -> None:
    found = list(findings("broken-ml", broken("os._exit(9)")))
    assert sorted(finding.check for finding in found) == sorted(CHECKS)
    crashed = [finding for finding in found if "its process died with status 9" in finding.text]
    assert len(crashed) in (2, 3)  # a third may be running beside the second
    left_out = [finding.text.startswith("Not run") for finding in found]
    assert any(left_out)
    assert left_out == sorted(left_out)  # after all that ran


def test_a_method_that_hangs_is_a_finding(broken) -> None:
    found = list(findings("broken-ml", broken("time.sleep(1000)"), seconds=6))
    hung = [finding for finding in found if "the method hangs" in finding.text]
    assert len(hung) in (2, 3)
    assert len(found) == len(CHECKS)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("no-such-method", "unknown method 'no-such-method'"),
        ("nowhere.py", "nowhere.py is no file of Python code"),
        ("empty.py", "it has no list METHODS"),
        ("wrong.py", "SyntaxError"),
    ],
)
def test_what_cannot_be_checked_is_one_line(what: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "wrong.py").write_text("def f(:")
    done = program("check", what, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def pytest_run(tmp_path: Path, settings: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{settings}")
    (tmp_path / "test_mine.py").write_text("def test_conformance(conformance_check):\n    conformance_check()\n")
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", "-rfs"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )


def test_the_plugin_runs_every_check_of_every_method(broken, tmp_path: Path) -> None:
    broken("x = x.detach() * self.module.shift.detach()")
    done = pytest_run(tmp_path, "conformance = broken.py gaussian")
    assert done.returncode == 1
    assert "test_conformance[broken-ml-maximum-likelihood]" in done.stdout
    assert "test_conformance[broken-ml-log-det]" not in done.stdout
    assert "FAILED test_mine.py::test_conformance[gaussian" not in done.stdout
    passed_skipped_failed = done.stdout.splitlines()[-1]
    assert "passed" in passed_skipped_failed
    assert "skipped" in passed_skipped_failed


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("", "name methods, modules or files under `conformance`"),
        ("conformance = no_such_module", "no_such_module is not readable: ModuleNotFoundError"),
    ],
)
def test_the_plugin_says_what_to_name(settings: str, reason: str, tmp_path: Path) -> None:
    done = pytest_run(tmp_path, settings)
    assert done.returncode != 0
    assert reason in done.stdout + done.stderr


def test_what_only_the_first_build_of_a_process_does_is_told(broken) -> None:
    path = broken("pass")
    text = path.read_text().replace(
        "self.module = torch.nn.Module()",
        "self.module = torch.nn.Module(); sys.__dict__.setdefault('seen', torch.set_default_dtype(torch.float64))"
        " if not hasattr(sys, 'seen') else None",
    )
    path.write_text(text)
    finding = of(list(findings("broken-ml", path)), "global-state")
    assert "building changes the default dtype" in finding.text
