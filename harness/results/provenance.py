"""What a row says about the machine, the software and the commit that made it."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """Where a measurement was made."""

    cpu: str
    gpu: str | None
    threads: int
    versions: dict[str, str]
    commit: str | None


def capture(device: str, libraries: Iterable[str] = ()) -> Environment:
    """Describe this process: the versions are those of Python, torch and the given libraries."""
    import torch

    on_gpu = torch.device(device).type == "cuda"
    return Environment(
        cpu=_cpu(),
        gpu=torch.cuda.get_device_name(device) if on_gpu else None,
        threads=torch.get_num_threads(),
        versions=_versions(libraries),
        commit=_commit(),
    )


def glance(libraries: Iterable[str] = ()) -> Environment:
    """Describe this process without importing anything: of threads and GPUs nothing is known."""
    return Environment(cpu=_cpu(), gpu=None, threads=0, versions=_versions(libraries), commit=_commit())


def _versions(libraries: Iterable[str]) -> dict[str, str]:
    packages = ("torch", *(library.split(".")[0] for library in libraries))
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


@cache
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"


@cache
def code_digest() -> str:
    """Return 16 hexadecimal digits that stand for this project's Python files as they are now, committed or not."""
    root, found = Path(__file__).parent.parent, hashlib.sha256()
    for package in ("baselines", "ebflow", "harness"):
        for path in sorted((root / package).rglob("*.py")):
            found.update(f"\0{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


@cache
def _cpu() -> str:
    """Name the processor and its number of cores; two machines that differ in either are never mixed."""
    info = Path("/proc/cpuinfo")
    name = platform.processor() or platform.machine()
    if info.exists():
        lines = info.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"


@cache
def _commit() -> str | None:
    """Return the commit of the checkout that runs, with a + where files differ from it; None outside a checkout."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        # A checkout of something else may surround the installed package: its commit would be no provenance.
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changes.strip() else "")
