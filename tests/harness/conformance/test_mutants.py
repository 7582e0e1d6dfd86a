"""The kit against competitors with one fault each: it names every one, and says nothing against the right one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mutants import MUTANTS, RIGHT
from mutants_declared import MUTANTS as DECLARED_MUTANTS
from mutants_declared import RIGHT as DECLARED_RIGHT

from harness.conformance.checks import CHECKS, run_check
from harness.methods import Method
from harness.methods.registry import registry

ALL = {**MUTANTS, **DECLARED_MUTANTS}


@pytest.mark.parametrize("method", RIGHT, ids=lambda method: method.name)
def test_nothing_is_said_against_the_right_ones(method: Method) -> None:
    findings = [run_check(method, check) for check in CHECKS.values()]
    assert [finding for finding in findings if finding.status == "broken"] == []
    inapplicable = {finding.check for finding in findings if finding.status == "inapplicable"}
    assert inapplicable == {"declared-cost", "declared-fit"} | (
        set() if method.linear == "dense" else {"equal-weights", "declared-start"}
    )


@pytest.mark.parametrize("method", DECLARED_RIGHT, ids=lambda method: method.name)
def test_nothing_is_said_against_other_right_ones(method: Method) -> None:
    checks = {check for _, check in DECLARED_MUTANTS.values()}
    findings = [run_check(method, CHECKS[check]) for check in sorted(checks)]
    assert [finding for finding in findings if finding.status == "broken"] == []


@pytest.mark.parametrize("name", ALL)
def test_the_check_names_the_fault(name: str) -> None:
    method, check = ALL[name]
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
    assert {check for _, check in ALL.values()} == set(CHECKS)
    assert len(MUTANTS) + len(DECLARED_MUTANTS) == len(ALL) >= 15
