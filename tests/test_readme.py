"""What the README and the documents show is run as it stands there."""

from __future__ import annotations

import doctest
import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness import datasets
from harness.conformance import CHECKS, run_check
from harness.likelihood import fit_and_score
from harness.problem import Problem
from harness.registry import Registry, read_modules
from harness.runtime import measure
from harness.training import TrainingConfig

README = Path(__file__).parents[1] / "README.md"
GUIDE = README.parent / "docs" / "adding-a-baseline.md"


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The guide's competitor, found in a module of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (tmp_path / "guide_adapter.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    return read_modules(["guide_adapter"])


def test_snippet_runs() -> None:
    outcome = doctest.testfile(str(README), module_relative=False)
    assert outcome.attempted >= 9
    assert outcome.failed == 0


def test_adapter_is_timed_and_trained(adapter: Registry) -> None:
    assert adapter.broken_modules == {}
    method = adapter.find("plain-dense-ml")
    config = TrainingConfig(epochs=3, evaluate_every=1, learning_rate=0.003)

    (timing,) = measure([method], Problem(shape=(6,)), repeats=2, config=config).timings
    assert timing.failure is None
    assert len(timing.seconds) == 2

    digits = datasets.load("digits")
    problem = Problem(shape=digits.shape)
    untrained = replace(config, epochs=1, learning_rate=1e-12)
    before = fit_and_score(method, problem, digits, digits, untrained, draws=1).test_nll[0]
    after = fit_and_score(method, problem, digits, digits, config, draws=1).test_nll[0]
    assert after < before - 10


def test_adapter_keeps_the_contract(adapter: Registry) -> None:
    findings = [run_check(adapter.find("plain-dense-ml"), check) for check in CHECKS.values()]
    assert [finding for finding in findings if finding.status != "passed"] == []


def test_quoted_tables_are_those_of_the_reference_results() -> None:
    """Every number in a table of the README stands in a generated table, to the letter."""
    quoted = [line for line in README.read_text().splitlines() if line.startswith("| ebflow-") or "flows-" in line[:12]]
    generated = "\n".join(path.read_text() for path in (README.parent / "results/reference/tables").glob("*.md"))
    assert len(quoted) == 5
    assert [line for line in quoted if line not in generated.splitlines()] == []


def test_pictures_and_links_exist() -> None:
    targets = re.findall(r"\]\((?!https)([^)]+)\)", README.read_text())
    assert len(targets) >= 4
    assert [target for target in targets if not (README.parent / target).exists()] == []


def test_length() -> None:
    """A README is read to its end only while it is short."""
    assert len(README.read_text().splitlines()) <= 125
