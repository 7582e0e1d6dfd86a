"""Finds methods: every module of our `baselines` package, and the entry points of other people's packages."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from harness.errors import InputError, one_line, unknown
from harness.method import Method

__all__ = ["ENTRY_POINT_GROUP", "Registry", "registry", "why_unavailable"]

ENTRY_POINT_GROUP = "ebflow_bench.methods"
"""Other packages name a module that declares ``METHODS`` under this entry-point group."""


@dataclass(frozen=True)
class Registry:
    """All methods by name, and the modules that could not be read, each with its reason."""

    methods: dict[str, Method]
    broken_modules: dict[str, str]

    def find(self, name: str) -> Method:
        """Return the method of this name.

        Raises:
            InputError: There is none; the message has near matches.
        """
        if name in self.methods:
            return self.methods[name]
        raise unknown("method", name, self.methods)

    def select(self, names: str) -> list[Method]:
        """Return the methods of a comma-separated list, in its order, each once."""
        wanted = list(dict.fromkeys(part.strip() for part in names.split(",") if part.strip()))
        if not wanted:
            raise InputError("no method named; `harness list` shows them")
        return [self.find(name) for name in wanted]

    def available(self, architecture: str) -> list[Method]:
        """Return the iterative methods that can run this architecture here."""
        return [
            method
            for method in self.methods.values()
            if method.iterative and architecture in method.architectures and why_unavailable(method) is None
        ]


@cache
def registry() -> Registry:
    """Read all modules of methods once."""
    import baselines

    found = [module.name for module in pkgutil.iter_modules(baselines.__path__)]
    names = [f"baselines.{name}" for name in found if not name.startswith("_")]
    names += [point.value for point in entry_points(group=ENTRY_POINT_GROUP)]
    return read_modules(names)


def read_modules(names: list[str]) -> Registry:
    """Import each module and collect its ``METHODS``; one that fails is noted and left out."""
    methods: dict[str, Method] = {}
    broken: dict[str, str] = {}
    for name in names:
        try:
            declared = [(method.name, method) for method in importlib.import_module(name).METHODS]
        except Exception as error:  # a foreign module may fail in any way, and must not take the others down
            broken[name] = one_line(error)
            continue
        for method_name, method in declared:
            if method_name in methods:
                broken[name] = f"its method {method_name} is already declared elsewhere; rename it"
            else:
                methods[method_name] = method
    return Registry(methods, broken)


def why_unavailable(method: Method) -> str | None:
    """Return why the method cannot run here, in one line, or None."""
    for library in method.requires:
        reason = _import_failure(library)
        if reason:
            return reason
    return None


@cache
def _import_failure(library: str) -> str | None:
    package = library.split(".")[0]
    try:
        importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name == package:
            return f"{package} is not installed: pip install {package}"
        return f"{library} is broken: {one_line(error)}"
    except Exception as error:  # a broken installation raises anything at all
        return f"{library} is broken: {one_line(error)}"
    return None
