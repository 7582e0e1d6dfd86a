"""Where a measurement was made: device and threads checked, provenance that says what it knows and nothing else."""

from __future__ import annotations

import ctypes
import hashlib
import os
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
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "a b" / "é"
    file = root / "harness" / "results" / "provenance.py"
    file.parent.mkdir(parents=True)
    (root / "baselines").mkdir()
    file.write_text("one")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, *_COMMIT)
    monkeypatch.setattr(environment, "__file__", str(file))
    environment._commit.cache_clear()
    yield root
    environment._commit.cache_clear()


_COMMIT = ("-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "-m", "one")


def commit() -> str | None:
    environment._commit.cache_clear()
    return capture("cpu").commit


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
    head = git(checkout, "rev-parse", "HEAD")
    assert commit() == head
    (checkout / "harness/results/provenance.py").write_text("two")
    assert commit() == f"{head}+"


@pytest.mark.parametrize("ignored", ["", "*.py"])
def test_an_untracked_adapter_is_a_difference(ignored: str, checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / ".git/info/exclude").write_text(ignored)
    for harmless in ("notes.py", "baselines/notes.txt", "baselines/old.pyc"):
        (checkout / harmless).write_text("")
    assert commit() == head
    (checkout / "baselines/mine é.py").write_text("METHODS = []")
    assert commit() == f"{head}+"


# The test needs files of another user, and the system lets root alone make some. CI runs as root, so it runs there.
@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user, which only root can make")
def test_a_checkout_of_another_user_is_read(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, 12345, 12345)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        git(checkout, "rev-parse", "HEAD")
    assert b"dubious ownership" in refused.value.stderr.encode()
    assert commit() == head
    assert {path.stat().st_uid for path in (checkout / ".git").rglob("*")} == {12345}


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"])
def test_the_repository_of_a_hook_is_not_ours(
    name: str, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    git(tmp_path, "init", "--quiet", "other")
    monkeypatch.setenv(name, str(tmp_path / "other" / ".git"))
    assert commit() == head


@pytest.mark.parametrize("kind", ["detached", "shallow", "worktree", "submodule"])
def test_every_kind_of_checkout_has_its_commit(
    kind: str, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / "more").write_text("")
    git(checkout, "add", "more")
    git(checkout, *_COMMIT)
    place, url = tmp_path / "place", f"file://{checkout}"
    if kind == "shallow":
        head = git(checkout, "rev-parse", "HEAD")
        git(checkout, "clone", "--quiet", "--depth=1", url, str(place))
    elif kind == "submodule":
        head = git(checkout, "rev-parse", "HEAD")
        git(tmp_path, "init", "--quiet", "outer")
        git(tmp_path / "outer", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", url, "inner")
        place = tmp_path / "outer" / "inner"
    elif kind == "worktree":
        git(checkout, "worktree", "add", "--detach", str(place), head)
    else:
        git(checkout, "checkout", "--quiet", "--detach", head)
        place = checkout
    monkeypatch.setattr(environment, "__file__", str(place / "harness/results/provenance.py"))
    assert commit() == head


def test_a_surrounding_checkout_of_something_else_is_no_provenance(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = checkout / "venv/lib/harness/results/provenance.py"
    monkeypatch.setattr(environment, "__file__", str(inside))
    inside.parent.mkdir(parents=True)
    inside.write_text("one")
    assert commit() is None
    git(checkout, "add", "--force", ".")  # a virtual environment that was committed
    assert commit() is None


def test_a_package_beside_the_repository_of_something_else_has_no_commit(checkout: Path) -> None:
    git(checkout, "rm", "--cached", "--quiet", "harness/results/provenance.py")
    assert commit() is None


def test_no_commit_yet(checkout: Path) -> None:
    git(checkout, "update-ref", "-d", "HEAD")
    assert commit() is None


def test_no_git_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit() is None


@pytest.mark.parametrize(
    ("text", "name"),
    [("model name\t: A: B\nmodel name : C", "A: B"), ("model name\t:\n", "a machine"), (None, "a machine")],
)
def test_the_processor_has_a_name_wherever_it_is(text: str | None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_text(path: Path, errors: str) -> str:
        if text is None:
            raise PermissionError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "a machine")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert environment._cpu.__wrapped__() == f"{name}, 3 cores"


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
