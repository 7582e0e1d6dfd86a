"""The kit against competitors with one fault each: it names every one, and says nothing against the right one."""

from __future__ import annotations

from dataclasses import replace

import mutants
import mutants_declared
import mutants_of_training
import pytest

from harness.conformance.checks import CHECKS, run_check
from harness.methods import Method
from harness.methods.registry import registry

FILES = (mutants, mutants_of_training, mutants_declared)
RIGHT = mutants.RIGHT + mutants_of_training.GOOD
MUTANTS = mutants.MUTANTS | mutants_of_training.MUTANTS | mutants_declared.MUTANTS
assert len(MUTANTS) == sum(len(file.MUTANTS) for file in FILES)  # no name hides another


@pytest.mark.parametrize("method", RIGHT, ids=lambda method: method.name)
def test_nothing_is_said_against_the_right_ones(method: Method) -> None:
    findings = [run_check(method, check) for check in CHECKS.values()]
    assert [finding for finding in findings if finding.status == "broken"] == []
    inapplicable = {finding.check for finding in findings if finding.status == "inapplicable"}
    of_dense, of_likelihood = {"equal-weights", "declared-start"}, {"maximum-likelihood"}
    assert inapplicable == {"declared-cost", "declared-fit"} | (
        (set() if method.linear == "dense" else of_dense) | (set() if method.objective == "ml" else of_likelihood)
    )


@pytest.mark.parametrize("method", mutants_declared.RIGHT, ids=lambda method: method.name)
def test_nothing_is_said_against_other_right_ones(method: Method) -> None:
    checks = {check for _, check in mutants_declared.MUTANTS.values()}
    findings = [run_check(method, CHECKS[check]) for check in sorted(checks)]
    assert [finding for finding in findings if finding.status == "broken"] == []


@pytest.mark.parametrize("name", MUTANTS)
def test_the_check_names_the_fault(name: str) -> None:
    method, check = MUTANTS[name]
    finding = run_check(method, CHECKS[check])
    assert finding.status == "broken"
    assert (finding.method, finding.check) == (method.name, check)
    assert finding.text.startswith(CHECKS[check].promise)
    assert f"Usual cause: {CHECKS[check].cause}" in finding.text
    assert "\n" not in finding.text


@pytest.mark.parametrize("architectures", [("cnn", "fc"), ("toy", "fc")])
def test_the_order_of_architectures_is_no_fault(architectures: tuple[str, ...]) -> None:
    method = replace(registry().find("ebflow-ml"), architectures=architectures)
    assert run_check(method, CHECKS["log-det"]).status == "passed"


def test_every_check_has_a_mutant() -> None:
    assert {check for _, check in MUTANTS.values()} == set(CHECKS)
