"""The kit against competitors with one fault each: it names every one, and says nothing against the right one."""

from __future__ import annotations

from dataclasses import replace

import mutants
import mutants_declared
import mutants_elsewhere
import mutants_of_training
import pytest
import torch

from harness.conformance.checks import CHECKS, run_check
from harness.methods import Method, Problem
from harness.methods.density import build
from harness.methods.registry import registry

FILES = (mutants, mutants_of_training, mutants_declared, mutants_elsewhere)
RIGHT = mutants.RIGHT + mutants_of_training.GOOD
MUTANTS = {name: entry for file in FILES for name, entry in file.MUTANTS.items()}
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


def test_a_model_that_is_its_own_module_is_refused_in_one_line() -> None:
    # Such a model has the hooks of torch.nn.Module for extra state, which raise where nobody fills them in.
    class Sequential(torch.nn.Sequential, mutants.Right):
        def __init__(self, problem: Problem) -> None:
            super().__init__(torch.nn.Linear(problem.dimension, problem.dimension))

        @property
        def module(self) -> torch.nn.Module:
            return self

    with pytest.raises(TypeError, match="build returned a Sequential, not a model with"):
        build(mutants.method(Sequential), Problem(shape=(3,)))
