"""Who may import whom; and that looking at the methods costs neither torch nor any peer library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
PEERS = {"nflows", "normflows", "zuko", "torch"}


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh Python has imported after running some code."""
    script = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


def test_imports_keep_the_layers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # import-linter puts the working folder in front of the path.
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "4 kept, 0 broken" in printed


def test_listing_methods_imports_no_library() -> None:
    code = """
import harness, harness.cli.program, harness.methods
from harness.methods.registry import registry
assert len(registry().methods) >= 11
"""
    found = modules_after(code)
    assert {"harness", "baselines"} <= found
    assert found & {*PEERS, "ebflow", "numpy", "polars"} == set()


def test_asking_for_one_library_imports_no_other() -> None:
    found = modules_after(
        """
from harness.methods.registry import registry, why_unavailable
assert why_unavailable(registry().find("nflows-lu-ml")) is None
"""
    )
    assert found & {"nflows", "normflows", "zuko"} == {"nflows"}


def test_the_model_library_stands_alone() -> None:
    found = modules_after("import ebflow")
    assert "torch" in found
    assert found & {"harness", "baselines", "polars", "typer", "sklearn"} == set()
