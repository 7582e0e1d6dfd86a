"""A pytest plugin: a test that takes the fixture ``conformance_check`` runs once for every check of every method.

pytest finds the plugin wherever this package is installed. Name the methods, or modules or files that declare some::

    [tool.pytest.ini_options]
    conformance = ["my_package.flows"]

and this is the whole test::

    def test_conformance(conformance_check):
        conformance_check()
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.methods import Method


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the setting that names the methods."""
    parser.addini("conformance", "methods, modules or .py files whose methods conformance_check runs over", "args")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the fixture over all checks of all methods."""
    if "conformance_check" not in metafunc.fixturenames:
        return
    from harness.conformance.checks import CHECKS

    names = metafunc.config.getini("conformance")
    if not names:
        raise pytest.UsageError("conformance_check: name methods, modules or files under `conformance` in the settings")
    cases = [(method, check) for name in names for method in _declared(name) for check in CHECKS.values()]
    ids = [f"{method.name}-{check.name}" for method, check in cases]
    metafunc.parametrize("conformance_check", cases, indirect=True, ids=ids)


@pytest.fixture
def conformance_check(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Return a function that runs one check of one method, and fails or skips the test with the finding's text."""
    from harness.conformance.checks import run_check
    from harness.methods.calls import guarded

    method, check = request.param

    def run() -> None:
        with guarded(f"the check {check.name} of {method.name}"):
            finding = run_check(method, check)
        if finding.status == "inapplicable":
            # The method declares that it does not do what the check tests: an author may say samples=False, and then no
            # sample can be compared. A pass would claim that something was compared, and a failure would punish an
            # honest declaration. The reason names the check, the method and what it declares.
            pytest.skip(reason=f"{check.name} does not apply to what {method.name} declares: {finding.text}")
        if finding.status == "broken":
            pytest.fail(finding.text, pytrace=False)

    return run


def _declared(name: str) -> list[Method]:
    from harness.errors import InputError
    from harness.methods.registry import load_file, read_modules, registry, why_unavailable

    if not name.endswith(".py") and name in registry().methods:
        return [registry().find(name)]
    try:
        declared = load_file(Path(name)) if name.endswith(".py") else read_modules([name])
    except InputError as error:
        raise pytest.UsageError(f"conformance: {error}") from None
    if declared.broken_modules:
        raise pytest.UsageError(f"conformance: {name} is not readable: {declared.broken_modules[name]}")
    for method in declared.methods.values():
        if reason := why_unavailable(method):
            raise pytest.UsageError(f"conformance: {method.name} is unavailable: {reason}")
    return list(declared.methods.values())
