"""The provenance of a row: the machine, the software and the commit that made it."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("baselines", "ebflow", "harness")


@dataclass(frozen=True)
class Environment:
    """The machine and the software that made a measurement.

    Args:
        cpu: Name of the processor and number of its cores.
        gpu: Name of the GPU; None if the measurement was made without one.
        threads: Number of torch's threads; 0 if torch was not imported.
        versions: Versions of Python, torch and the method's libraries, by name.
        commit: Commit of this project's checkout, a + where its code differs from it; None outside a checkout.
    """

    cpu: str
    gpu: str | None
    threads: int
    versions: dict[str, str]
    commit: str | None


def capture(device: str, libraries: Iterable[str] = ()) -> Environment:
    """Describe this process, with the versions of Python, torch and these libraries."""
    import torch

    gpu = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None
    return replace(glance(libraries), gpu=gpu, threads=torch.get_num_threads())


def glance(libraries: Iterable[str] = ()) -> Environment:
    """Describe this process without importing torch, as if it had no GPU and no threads."""
    packages = ("torch", *(library.split(".")[0] for library in libraries))
    versions = {"python": platform.python_version(), **{name: _version(name) for name in packages}}
    return Environment(_cpu(), None, 0, versions, _commit())


@cache
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"


@cache
def code_digest() -> str:
    """Return 16 hexadecimal digits that stand for this project's Python files as they are now, committed or not."""
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _cpu() -> str:
    """Name the processor and its number of cores; two machines that differ in either are never mixed."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:  # another system, or a sandbox that hides it
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = next(filter(None, named), platform.processor() or platform.machine())
    return f"{name}, {os.cpu_count()} cores"


@cache
def _commit() -> str | None:
    """Return the commit of this project's checkout, with a + where its code differs; None outside a checkout.

    A tracked file that was changed counts, and so does a Python file of the packages that git does not track, even one
    that git ignores: a new adapter in baselines/ is code that runs.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # what surrounds an installed package is a checkout of something else
        return None
    # A repository that is named, and not searched for, is read whoever owns it.
    named = ["git", "--no-optional-locks", f"--git-dir={root / '.git'}", f"--work-tree={root}"]
    # The repository of a hook, or of another shell, is not meant.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        done = subprocess.run([*named, *arguments], cwd=root, env=environment, capture_output=True, check=True)
        return done.stdout.decode(errors="replace")

    try:
        # The package may lie beside somebody else's .git, whose index does not have this file.
        own = Path(__file__).relative_to(root).as_posix()
        commit = git("rev-parse", "HEAD", f":{own}").splitlines()[0]
        untracked = git("ls-files", "-z", "--others", "--", *_PACKAGES).split("\0")
        differs = git("status", "--porcelain", "-uno") or any(name.endswith(".py") for name in untracked)
        return commit + ("+" if differs else "")
    except (OSError, subprocess.CalledProcessError):
        return None
