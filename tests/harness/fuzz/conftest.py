"""How much is tried: a few fixed cases in every run of the tests, thousands of random ones in `tox -e fuzz`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings

from harness.methods.calls import guarded

_SHARED = {
    "deadline": None,  # a hang is what `within_time` ends
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("few", max_examples=40, derandomize=True, **_SHARED)
settings.register_profile("fuzz", max_examples=1500, print_blob=True, **_SHARED)
settings.load_profile("few")


@pytest.fixture
def within_time(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Guard one case: what takes two minutes hangs."""
    monkeypatch.setenv("HARNESS_CALL_LIMIT", "120")
    return lambda: guarded("one case of the fuzz")


@pytest.fixture
def empty_folder(tmp_path: Path) -> Callable[..., object]:
    """Make an empty folder the current one, for one case."""

    @contextmanager
    def made() -> Iterator[Path]:
        before = Path.cwd()
        with TemporaryDirectory(dir=tmp_path) as folder:
            os.chdir(folder)
            try:
                yield Path(folder)
            finally:
                os.chdir(before)

    return made
