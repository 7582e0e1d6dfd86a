"""What a row says about the machine, the software and the commit that made it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.errors import InputError
from harness.guard import call_limit

__all__ = ["Environment", "capture", "check", "code_digest", "glance", "prepare"]

_MOST_THREADS = 1024  # torch starts as many as it is told to, until the system's memory is gone


@dataclass(frozen=True)
class Environment:
    """Where a measurement was made."""

    cpu: str
    gpu: str | None
    threads: int
    versions: dict[str, str]
    commit: str | None


def prepare(device: str, threads: int | None) -> None:
    """Check device and call limit, and fix threads, precision and the handling of memory for the whole process.

    Raises:
        InputError: As `check` has it.
    """
    import torch

    from harness.precision import only_full_precision

    check(device, threads)
    if threads is not None:
        torch.set_num_threads(threads)
    only_full_precision()
    _keep_freed_memory()


def check(device: str, threads: int | None) -> None:
    """Check device, threads and call limit; torch is asked for any device but cpu, and not imported for that one.

    Raises:
        InputError: The device does not exist here, threads is below one or absurd, or the limit for one call is no
            number.
    """
    call_limit()
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
    if threads is not None and threads > _MOST_THREADS:
        raise InputError(f"threads must be at most {_MOST_THREADS}, not {threads}")
    if device == "cpu":
        return
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise InputError(f"'{device}' is no device; use cpu, cuda or cuda:N") from None
    if kind not in ("cpu", "cuda"):
        raise InputError(f"device '{device}' is not supported; use cpu, cuda or cuda:N")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise InputError("CUDA was asked for, but torch finds none here; use --device cpu")
        index = torch.device(device).index
        if index is not None and index >= torch.cuda.device_count():
            raise InputError(f"there is no {device} here: torch finds {torch.cuda.device_count()} CUDA device(s)")


def _keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next step, as the allocator of a GPU does.

    By default a large tensor's pages go back to the system when it is freed and are faulted in, one by one, when the
    next is made: at D = 3072 that costs denoising score matching more than a quarter of its iteration. All methods
    gain.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(-4, 0)  # M_MMAP_MAX: nothing is mapped on its own
        library.mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing is given back


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
