"""Imports foreign code and leaves this process as it was."""

import io
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from harness.methods.calls import guarded

_QUIET_BY_DEFAULT = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
_LONGEST_QUOTE = 60  # characters of a printed text or a warning


@dataclass(frozen=True)
class _Setting:
    name: str  # in notes
    read: Callable[[], Any]
    write: Callable[[Any], object]
    same: Callable[[Any, Any], bool] = lambda one, other: one == other
    fresh: Any = None  # the value right after its library is imported, where that is known


@contextmanager
def contained(call: str) -> Iterator[list[str]]:
    """Import foreign code, undo what it does to the process, and take note of it.

    Undone are printing, warnings and their filters, and all settings that `restored` watches.

    Args:
        call: What the code does, for messages.

    Yields:
        A list that holds a line for everything undone, once the block has ended.

    Raises:
        TimeoutError: if the code took longer than `harness.methods.calls.guarded` allows.
        RuntimeError: if the code called sys.exit.
    """
    notes: list[str] = []
    try:
        with restored() as changed, _muted(notes), _unwarned(notes), guarded(call):
            yield notes
    finally:
        notes += [f"changed {name}: undone" for name in changed]


@contextmanager
def restored() -> Iterator[list[str]]:
    """Set back global settings that code changes: the working folder, random states, and torch's defaults and modes.

    Settings of numpy and torch are watched if the library is imported already; torch's defaults also if the code is the
    first to import it.

    Yields:
        A list that holds the name of every setting that was changed, once the block has ended.
    """
    changed: list[str] = []
    before = [(setting, setting.read()) for setting in _settings()]
    torch_was_there = "torch" in sys.modules
    try:
        yield changed
    finally:
        if not torch_was_there and "torch" in sys.modules:
            before += [(setting, setting.fresh) for setting in _torch_settings() if setting.fresh is not None]
        for setting, value in before:
            if not setting.same(setting.read(), value):
                setting.write(value)
                changed.append(setting.name)


def _settings() -> list[_Setting]:
    """Return the settings of the libraries that are imported already."""
    settings = [
        _Setting("Python's random state", random.getstate, random.setstate),
        _Setting("the working folder", Path.cwd, os.chdir),
    ]
    if "numpy" in sys.modules:
        import numpy as np

        def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
            return all(map(np.array_equal, one, other))

        settings.append(_Setting("numpy's random state", np.random.get_state, np.random.set_state, same))
    if "torch" in sys.modules:
        settings += _torch_settings()
    return settings


def _torch_settings() -> list[_Setting]:
    import torch
    from torch.distributions import Distribution

    def set_device(device: torch.device) -> None:
        # A default device that is set costs every new tensor a detour, so cpu is left unset.
        torch.set_default_device(None if device.type == "cpu" else device)

    products = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    algorithms = torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    return [
        _Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype, fresh=torch.float32),
        _Setting("the default device", torch.get_default_device, set_device, fresh=torch.device("cpu")),
        _Setting("the gradient mode", torch.is_grad_enabled, torch.set_grad_enabled, fresh=True),
        _Setting(
            "the validation of torch's distributions",
            lambda: Distribution._validate_args,
            Distribution.set_default_validate_args,
            fresh=__debug__,
        ),
        _Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
        _Setting("the precision of float32 products", *products),
        _Setting("the use of deterministic algorithms", *algorithms),
        _Setting("torch's random state", torch.get_rng_state, torch.set_rng_state, torch.equal),
        # zuko changes them: https://github.com/probabilists/zuko, distributions.py.
        _Setting(
            "the constraints of torch's distributions",
            lambda: vars(Distribution)["arg_constraints"],
            lambda value: setattr(Distribution, "arg_constraints", value),
            lambda one, other: one is other,
        ),
    ]


@contextmanager
def _unwarned(notes: list[str]) -> Iterator[None]:
    """Collect the warnings that Python shows by default, and keep the filters, whatever the code does to either."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for category in _QUIET_BY_DEFAULT:
            warnings.simplefilter("ignore", category)
        filters = list(warnings.filters)
        try:
            yield
        finally:
            if caught:
                more = f" and {len(caught) - 1} more" if len(caught) > 1 else ""
                notes.append(f"warned {_quote(str(caught[0].message))}{more}")
            if warnings.filters != filters:
                notes.append("changed the warnings filters: undone")


@contextmanager
def _muted(notes: list[str]) -> Iterator[None]:
    """Collect everything that is printed, by Python or below it."""
    # A stream that is the descriptor's own stays in place: a logging handler, say, may keep it and write to it later.
    above = io.StringIO()
    out = sys.stdout if _is_descriptor(sys.stdout, 1) else above
    err = sys.stderr if _is_descriptor(sys.stderr, 2) else above
    with TemporaryFile() as below, redirect_stdout(out), redirect_stderr(err):
        _flush()
        saved = {}
        for descriptor in (1, 2):
            with suppress(OSError):  # the descriptor is closed
                saved[descriptor] = os.dup(descriptor)
                os.dup2(below.fileno(), descriptor)
        try:
            yield
        finally:
            _flush()
            for descriptor, copy in saved.items():
                os.dup2(copy, descriptor)
                os.close(copy)
            below.seek(0)
            printed = (above.getvalue() + below.read().decode(errors="replace")).strip()
            if printed:
                notes.append(f"printed {_quote(printed)}")


def _is_descriptor(stream: Any, descriptor: int) -> bool:
    try:
        return bool(stream.fileno() == descriptor)
    except (OSError, AttributeError):
        return False


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return f"'{line if len(line) <= _LONGEST_QUOTE else line[: _LONGEST_QUOTE - 3] + '...'}'"
