"""No call of a competitor runs for ever or ends the program; Ctrl-C and all other errors go through."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from harness.errors import InputError
from harness.methods.calls import call_limit, guarded
from harness.methods.process_settings import prepare

MESSAGE = r"^build of m took longer than 0\.1 s, the limit for one call \(HARNESS_CALL_LIMIT\)$"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CALL_LIMIT", "0.1")


def stubborn() -> None:
    """Swallow whatever it can."""
    while True:
        try:
            time.sleep(60)
        except Exception:
            continue


@pytest.mark.parametrize("hang", [stubborn, lambda: time.sleep(60)])
def test_a_call_that_hangs_is_ended(hang: object) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeoutError, match=MESSAGE), guarded("build of m"):
        hang()
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_an_alarm_that_was_swallowed_rings_again() -> None:
    def swallows() -> None:
        try:
            time.sleep(60)
        except BaseException:
            time.sleep(60)

    with pytest.raises(TimeoutError, match=MESSAGE), guarded("build of m"):
        swallows()


def test_the_limit_is_for_one_call() -> None:
    with guarded("calls") as renew:
        for _ in range(5):
            renew()
            time.sleep(0.04)
    time.sleep(0.1)  # and nothing rings afterwards


@pytest.mark.parametrize("inside", [0, 0.15])
def test_an_inner_guard_leaves_the_outer_limit_as_it_was(inside: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def nested() -> None:
        monkeypatch.setenv("HARNESS_CALL_LIMIT", "50")
        with guarded("inner"):
            time.sleep(inside)
        time.sleep(60)

    with pytest.raises(TimeoutError, match=r"^outer took longer than 0\.1 s"), guarded("outer"):
        nested()


@pytest.mark.parametrize(("code", "said"), [("", ""), ("3", "3"), ("'bye'", "'bye'")])
def test_an_exit_is_an_error(code: str, said: str) -> None:
    with pytest.raises(RuntimeError) as caught, guarded("build of m"):
        exec(f"import sys\nsys.exit({code})")
    assert str(caught.value) == f"build of m called sys.exit({said})"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, InputError])
def test_everything_else_goes_through(error: type[BaseException]) -> None:
    with pytest.raises(error, match="mine"), guarded("build of m"):
        raise error("mine")


def test_other_threads_have_no_limit() -> None:
    seen: list[object] = []

    def work() -> None:
        with guarded("build of m") as renew:
            renew()
            time.sleep(0.15)
            seen.append(signal.getitimer(signal.ITIMER_REAL))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(0, 0)]


def test_the_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert call_limit() == 0.1
    monkeypatch.delenv("HARNESS_CALL_LIMIT")
    assert call_limit() == 600


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan", ""])
def test_a_limit_that_is_none_is_the_user_s_mistake(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CALL_LIMIT", text)
    with pytest.raises(InputError) as caught:
        prepare("cpu", None)
    assert str(caught.value) == f"HARNESS_CALL_LIMIT must be a number of seconds above 0, not '{text}'"
