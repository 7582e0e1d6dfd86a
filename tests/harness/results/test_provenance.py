"""Where a measurement was made: device and threads checked, provenance that says what it knows and nothing else."""

from __future__ import annotations

import ctypes
import hashlib
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness.errors import InputError
from harness.methods.process_settings import prepare
from harness.results import provenance as environment
from harness.results.provenance import capture


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A git repository with a file, which stands for the one that holds this package."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    file = tmp_path / "environment.py"
    file.write_text("one")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", file.name)
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "-m", "one")
    monkeypatch.setattr(environment, "__file__", str(file))
    environment._commit.cache_clear()
    yield file
    environment._commit.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "'gpu' is no device; use cpu, cuda or cuda:N"),
        ("meta", "device 'meta' is not supported; use cpu, cuda or cuda:N"),
        ("cuda", "CUDA was asked for, but torch finds none here; use --device cpu"),
    ],
)
def test_devices_that_cannot_be(device: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"^{message}$"):
        prepare(device, None)


def test_a_card_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    prepare("cuda:1", None)
    with pytest.raises(InputError, match=r"^there is no cuda:2 here: torch finds 2 CUDA device\(s\)$"):
        prepare("cuda:2", None)


def test_threads_are_set_and_recorded(threads: None) -> None:
    prepare("cpu", 3)
    assert capture("cpu").threads == 3
    prepare("cpu", 1)
    assert capture("cpu").threads == 1
    prepare("cpu", None)
    assert capture("cpu").threads == 1
    with pytest.raises(InputError, match=r"^threads must be at least 1, not 0$"):
        prepare("cpu", 0)


@pytest.mark.parametrize(("libc", "settings"), [("glibc", [(-4, 0), (-1, -1)]), ("musl", [])])
def test_freed_memory_is_kept_where_the_c_library_can(
    libc: str, settings: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    class Library:
        def __init__(self, name: None) -> None:
            self.mallopt = lambda *setting: asked.append(setting)

    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(ctypes, "CDLL", Library)
    prepare("cpu", None)
    assert asked == settings


def test_versions_are_those_of_the_libraries() -> None:
    found = capture("cpu", ["numpy.linalg", "no-such-library"])
    assert found.versions.keys() == {"python", "torch", "numpy", "no-such-library"}
    assert found.versions["torch"].startswith(torch.__version__.split("+")[0])
    assert found.versions["no-such-library"] == "unknown"
    assert found.gpu is None
    assert found.cpu.endswith("cores")


def test_commit_is_marked_where_files_differ(checkout: Path) -> None:
    head = git(checkout.parent, "rev-parse", "HEAD")
    assert capture("cpu").commit == head
    checkout.write_text("two")
    environment._commit.cache_clear()
    assert capture("cpu").commit == f"{head}+"


def test_a_surrounding_checkout_of_something_else_is_no_provenance(checkout: Path) -> None:
    git(checkout.parent, "rm", "--cached", "--quiet", checkout.name)
    assert capture("cpu").commit is None


def test_no_git_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert capture("cpu").commit is None


def test_the_code_is_known_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "baselines" / "mine.py"
    source.parent.mkdir()
    of_no_file = hashlib.sha256().hexdigest()[:16]
    assert environment.code_digest.__wrapped__() != of_no_file, "the folders are found from where the module lies"
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "harness" / "results" / "provenance.py"))
    digests = []
    for text in ("one", "other", "one"):
        source.write_text(text)
        (tmp_path / "README.md").write_text(f"{len(digests)} times rewritten")
        digests.append(environment.code_digest.__wrapped__())
    assert digests[0] == digests[2] != digests[1]
    source.rename(source.with_name("yours.py"))
    assert environment.code_digest.__wrapped__() != digests[0]
