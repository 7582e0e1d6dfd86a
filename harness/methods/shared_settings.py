"""The settings that all code in this process shares: what foreign code changes is noticed and set back."""

import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class _Setting:
    name: str  # in notes
    read: Callable[[], Any]
    write: Callable[[Any], object]
    same: Callable[[Any, Any], bool] = lambda one, other: one == other
    fresh: Any = None  # the value right after its library is imported, where that is known


_watchers: list[list[str]] = []


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect the names of the settings that `restored` has to set back while the context lasts.

    Yields:
        A list to which every name is added once, when its setting is set back.
    """
    names: list[str] = []
    _watchers.append(names)
    try:
        yield names
    finally:
        _watchers[:] = [watcher for watcher in _watchers if watcher is not names]


@contextmanager
def restored(random_states: bool = False, interpreter: bool = False) -> Iterator[list[str]]:
    """Set back the shared settings that code changes: the working folder, and numpy's and torch's defaults and modes.

    Torch's settings are watched if torch is imported already; its defaults also if the code is the first to import it.

    Args:
        random_states: Whether the random states of Python, numpy and torch are set back too.
        interpreter: Whether Python's own settings are set back too: warnings filters, signal handlers, logging,
            environment variables, sys.path, the recursion limit, and functions of torch in which others were put.
            A library that is imported late may need its own.

    Yields:
        A list that holds the name of every setting that was changed, once the block has ended.
    """
    before = [(setting, setting.read()) for setting in _settings(random_states, interpreter)]
    torch_was_there = "torch" in sys.modules
    with watched() as changed:
        try:
            yield changed
        finally:
            if not torch_was_there and "torch" in sys.modules:
                before += [(setting, setting.fresh) for setting in _torch_settings() if setting.fresh is not None]
            for setting, value in before:
                if not setting.same(setting.read(), value):
                    setting.write(value)
                    for names in _watchers:
                        names += [setting.name] * (setting.name not in names)


def _settings(random_states: bool, interpreter: bool) -> list[_Setting]:
    """Return the settings of the libraries that are imported already."""
    settings = [
        _Setting("the working folder", Path.cwd, os.chdir),
        _Setting("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        _Setting("the thresholds of garbage collection", gc.get_threshold, lambda values: gc.set_threshold(*values)),
    ]
    if "numpy" in sys.modules:
        import numpy as np

        settings.append(_Setting("numpy's error state", np.geterr, lambda state: np.seterr(**state)))
    if "torch" in sys.modules:
        settings += _torch_settings()
    return settings + (_interpreter() if interpreter else []) + (_random_states() if random_states else [])


def _interpreter() -> list[_Setting]:
    """Return the settings of Python itself."""

    def set_filters(filters: list[Any]) -> None:
        warnings.resetwarnings()  # without it the warnings that were shown or hidden in between would count as seen
        # The list must be changed in place, since Python's C code holds this very object. At run time it is a list;
        # typeshed declares a Sequence, so that nobody assigns to it by accident.
        warnings.filters[:] = filters  # type: ignore[index]  # a list at run time, a Sequence in typeshed

    def handlers() -> dict[int, Any]:
        return {number: signal.getsignal(number) for number in signal.valid_signals()}

    def set_handlers(before: dict[int, Any]) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None and signal.getsignal(number) is not handler:  # None: it is none of Python's
                    signal.signal(number, handler)

    def logs() -> tuple[int, int, list[logging.Handler]]:
        return logging.root.level, logging.root.manager.disable, list(logging.root.handlers)

    def set_logs(before: tuple[int, int, list[logging.Handler]]) -> None:
        logging.root.setLevel(before[0])
        logging.disable(before[1])
        logging.root.handlers[:] = before[2]

    def set_environment(variables: dict[str, str]) -> None:
        os.environ.clear()
        os.environ.update(variables)

    torch_functions = _Setting("functions of torch", _functions_of_torch, _set_functions, _same_functions)
    return [
        _Setting("the warnings filters", lambda: list(warnings.filters), set_filters, _same_for_all),
        _Setting("signal handlers", handlers, set_handlers),
        _Setting("the root logger", logs, set_logs),
        _Setting("environment variables", lambda: dict(os.environ), set_environment, _same_to_others),
        _Setting("sys.path", lambda: list(sys.path), lambda path: sys.path.__setitem__(slice(None), path)),
        _Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
        *([torch_functions, _hooks_of_all_modules()] if "torch" in sys.modules else []),
    ]


def _hooks_of_all_modules() -> _Setting:
    from torch.nn.modules import module

    hooks = {
        name: kept for name, kept in vars(module).items() if name.startswith("_global_") and isinstance(kept, dict)
    }

    def set_back(before: dict[str, dict[Any, Any]]) -> None:
        for name, kept in hooks.items():
            kept.clear()
            kept.update(before[name])

    return _Setting("hooks of all modules", lambda: {name: dict(kept) for name, kept in hooks.items()}, set_back)


_Functions = dict[tuple[Any, str], Any]


def _functions_of_torch() -> _Functions:
    """Return what torch's modules hold, and its classes of networks and optimisers, by owner and name."""
    import torch

    modules = (torch, torch.linalg, torch.nn, torch.nn.functional, torch.nn.init, torch.optim)
    classes = {kind for module in (torch.nn, torch.optim) for kind in vars(module).values() if isinstance(kind, type)}
    owners = (*modules, torch.Tensor, *classes)
    return {(owner, name): value for owner in owners for name, value in vars(owner).items() if callable(value)}


def _set_functions(functions: _Functions) -> None:
    for (owner, name), value in functions.items():
        if vars(owner).get(name) is not value:
            setattr(owner, name, value)


def _same_functions(now: _Functions, before: _Functions) -> bool:
    """Compare the functions that were there; torch adds to them, and wraps some of them, at their first use."""
    import torch

    def of_torch(function: Any) -> bool:
        code = getattr(function, "__code__", None)
        return code is not None and Path(torch.__file__).parent in Path(code.co_filename).parents

    return all(now.get(key) is value or of_torch(now.get(key)) for key, value in before.items())


def _same_for_all(filters: list[Any], others: list[Any]) -> bool:
    """Compare filters of Python's own categories; many a library adds one for a warning of its own when it is used."""

    def of_all(filters: list[Any]) -> list[Any]:
        return [each for each in filters if not each[1] and not each[3] and each[2].__module__ == "builtins"]

    return of_all(filters) == of_all(others)


def _same_to_others(now: dict[str, str], before: dict[str, str]) -> bool:
    """Compare the variables that were there, and those that numerical libraries read; a library may add its own."""
    added = now.keys() - before.keys()
    return before.items() <= now.items() and not any(name.startswith(_READ_BY_ALL) for name in added)


_READ_BY_ALL = ("OMP_", "MKL_", "OPENBLAS_", "CUDA_", "CUBLAS_", "PYTHON", "PYTORCH_", "HARNESS_")


def _random_states() -> list[_Setting]:
    states = [_Setting("Python's random state", random.getstate, random.setstate)]
    if "numpy" in sys.modules:
        import numpy as np

        def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
            return all(map(np.array_equal, one, other))

        states.append(_Setting("numpy's random state", np.random.get_state, np.random.set_state, same))
    if "torch" in sys.modules:
        import torch

        states.append(_Setting("torch's random state", torch.get_rng_state, torch.set_rng_state, torch.equal))
    return states


def _torch_settings() -> list[_Setting]:
    import torch
    from torch.distributions import Distribution

    def default_device() -> torch.device:
        # torch.get_default_device tells that of a context around the call, such as that of a build on the meta device.
        context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
        return torch.device("cpu") if context is None else context.device

    def set_device(device: torch.device) -> None:
        # A default device that is set costs every new tensor a detour, so cpu is left unset.
        torch.set_default_device(None if device.type == "cpu" else device)

    def anomaly() -> tuple[bool, bool]:
        return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()

    def flushes_denormals() -> bool:
        return sys.float_info.min / 2 == 0  # torch has no function that tells it, but the processor does

    libraries = ("mkldnn.enabled", "cudnn.enabled", "cudnn.benchmark", "cudnn.deterministic", "cudnn.allow_tf32")
    products = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    algorithms = torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    return [
        _Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype, fresh=torch.float32),
        _Setting("the default device", default_device, set_device, fresh=torch.device("cpu")),
        _Setting("the gradient mode", torch.is_grad_enabled, torch.set_grad_enabled, fresh=True),
        _Setting("anomaly mode", anomaly, lambda modes: torch.autograd.set_detect_anomaly(*modes), fresh=(False, True)),
        _Setting("warning every time", torch.is_warn_always_enabled, torch.set_warn_always, fresh=False),
        *(
            _Setting(
                f"autocast on {device}",
                partial(torch.is_autocast_enabled, device),
                partial(torch.set_autocast_enabled, device),
                fresh=False,
            )
            for device in ("cpu", "cuda")
        ),
        _Setting(
            "the validation of torch's distributions",
            lambda: Distribution._validate_args,
            Distribution.set_default_validate_args,
            fresh=__debug__,
        ),
        _Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
        _Setting("the precision of float32 products", *products),
        _Setting("the use of deterministic algorithms", *algorithms),
        _Setting("the flushing of denormal numbers", flushes_denormals, torch.set_flush_denormal, fresh=False),
        *(
            _Setting(f"torch.backends.{name}", *_attribute(getattr(torch.backends, library), attribute))
            for name in libraries
            for library, attribute in [name.split(".")]
        ),
        # zuko changes them: https://github.com/probabilists/zuko, distributions.py.
        _Setting(
            "the constraints of torch's distributions",
            lambda: vars(Distribution)["arg_constraints"],
            lambda value: setattr(Distribution, "arg_constraints", value),
            lambda one, other: one is other,
        ),
    ]


def _attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """Return the functions that read and write an attribute."""
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)
