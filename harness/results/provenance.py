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


@dataclass(frozen=True)
class Environment:
    """The machine and the software that made a measurement.

    Args:
        cpu: Name of the processor and number of its cores.
        gpu: Name of the GPU; None if the measurement was made without one.
        threads: Number of torch's threads; 0 if torch was not imported.
        versions: Versions of Python, torch and the method's libraries, by name.
        commit: Commit of this project's checkout, a + where files differ from it; None outside a checkout.
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
    for package in ("baselines", "ebflow", "harness"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


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
    """Return the commit of this project's checkout, with a + where files differ from it; None outside a checkout."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        # A checkout of something else may surround the installed package: its commit would be no provenance, and its
        # index does not have this file.
        commit = git("rev-parse", "HEAD", f":./{here.name}").splitlines()[0]
        return commit + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
