"""The settings of this process: device, threads and how they wait, precision, how the C library handles memory."""

import ctypes
import platform
from collections.abc import MutableMapping

from harness.errors import InputError
from harness.methods.calls import call_limit

_LOOK = 0.1  # seconds for which a process looks at the load of the machine before it starts
_BUSY = 0.5  # cores that others use
_MOST_THREADS = 1024  # torch starts as many threads as it is told to, until the system's memory is gone


def prepare(device: str, threads: int | None) -> None:
    """Check device, threads and call limit, and fix threads, precision and memory handling for the whole process.

    Raises:
        InputError: if `check` finds a mistake.
    """
    import torch

    from harness.methods.precision import allow_tf32

    check(device, threads)
    if threads is not None:
        torch.set_num_threads(threads)
    allow_tf32(False)
    _keep_freed_memory()


def check(device: str, threads: int | None) -> None:
    """Check device, threads and call limit; torch is imported for any device but cpu.

    Raises:
        InputError: if the device does not exist here, if the number of threads is below one or absurd, or if the limit
            for one call is no number.
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
        wanted = torch.device(device)
    except RuntimeError:
        raise InputError(f"'{device}' is no device; use cpu, cuda or cuda:N") from None
    if wanted.type not in ("cpu", "cuda"):
        raise InputError(f"device '{device}' is not supported; use cpu, cuda or cuda:N")
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise InputError("CUDA was asked for, but torch finds none here; use --device cpu")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise InputError(f"there is no {device} here: torch finds {torch.cuda.device_count()} CUDA device(s)")


def settle_waiting(environment: MutableMapping[str, str]) -> None:
    """Have OpenMP's threads sleep while they wait, if other processes keep a core busy when a process starts.

    Threads that spin take the core of another process and lose theirs to it, and a step takes many times as long;
    threads that sleep take twice as long for a small step on an idle machine, where they spin therefore, as by default.
    A user's own OMP_WAIT_POLICY or GOMP_SPINCOUNT stays as it is.

    Args:
        environment: The environment variables of a process that has not imported torch yet, `os.environ` for this one.
    """
    if environment.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        return
    import psutil

    busy = sum(psutil.cpu_percent(interval=_LOOK, percpu=True)) / 100  # cores
    if busy > _BUSY:
        environment["OMP_WAIT_POLICY"] = "passive"


def give_back_memory() -> None:
    """Return to the system what the C library keeps since `prepare`, once a cell is done and nobody needs it again."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step, as the allocator of a GPU does.

    By default a large tensor's pages go back to the system when it is freed, and are faulted in one by one when the
    next tensor is made: at D = 3072 that costs denoising score matching more than a quarter of its iteration. All
    methods gain.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(-4, 0)  # M_MMAP_MAX: nothing is mapped on its own
        library.mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing is given back
