"""What a check is, and how one is run: whatever a method does, the check ends as a finding."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from harness.conformance.findings import Finding
from harness.conformance.subject import Broken, Inapplicable, Subject
from harness.errors import one_line
from harness.methods import Method
from harness.methods.density import refusal
from harness.methods.registry import why_unavailable
from harness.methods.shared_settings import restored


@dataclass(frozen=True)
class Check:
    """One promise of a method, and how it is tested.

    Args:
        name: Name of the check for `harness check`.
        promise: A sentence that says what must hold.
        cause: A sentence that says what usually breaks the promise.
        test: Function that raises `Broken` or `Inapplicable`; any other exception counts as broken too.
    """

    name: str
    promise: str
    cause: str
    test: Callable[[Subject], None]


CHECKS: dict[str, Check] = {}
"""All checks by name, in the order in which they run."""


def check(
    promise: str, cause: str, first: bool = False
) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Enter the function below into the catalogue, under its own name with dashes.

    Args:
        promise: A sentence that says what must hold.
        cause: A sentence that says what usually breaks the promise.
        first: Whether the check runs before all others, because it needs a process where the method has built nothing.
    """

    def enter(test: Callable[[Subject], None]) -> Callable[[Subject], None]:
        name = test.__name__.replace("_", "-")
        others = dict(CHECKS)
        if first:
            CHECKS.clear()
        CHECKS[name] = Check(name, promise, cause, test)
        CHECKS.update(others)
        return test

    return enter


def run_check(method: Method, check: Check) -> Finding:
    """Run one check of a method in this process, and return how it ended."""
    why_unavailable(method)  # imports the method's libraries, and undoes what they do to the process
    try:
        refusal.cache_clear()  # an earlier check has built what this one must see built
        with restored(random_states=True, interpreter=True):  # what is left on must not reach the next check
            check.test(Subject(method))
    except Inapplicable as reason:
        return Finding(method.name, check.name, "inapplicable", str(reason))
    except (Exception, SystemExit) as error:
        fault = str(error) if isinstance(error, Broken) else f"{one_line(error)}{_place(error)}"
        text = f"{check.promise}. Found: {fault}. Usual cause: {check.cause}."
        return Finding(method.name, check.name, "broken", text)
    return Finding(method.name, check.name, "passed")


def _place(error: BaseException) -> str:
    """Name the last line outside torch and this package that ran before an exception, as the place to look at."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/torch/" not in frame.filename and "/harness/" not in frame.filename]
    return f" (at {own[-1].filename}:{own[-1].lineno})" if own else ""
