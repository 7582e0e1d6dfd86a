"""Finds methods in every module of the `baselines` package, in entry points of other packages, or in a file."""

import importlib
import importlib.machinery
import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from harness.errors import InputError, one_line, separated, unknown
from harness.methods.calls import call_limit
from harness.methods.contract import Method
from harness.methods.imports import contained

ENTRY_POINT_GROUP = "ebflow_bench.methods"
"""Other packages name a module that declares ``METHODS`` under this entry-point group."""


@dataclass(frozen=True)
class Registry:
    """The methods that were found.

    Args:
        methods: Methods by name.
        broken_modules: Reasons why modules could not be read, by module.
        notes: A line for each change of the process that importing a module made and that was undone.
    """

    methods: dict[str, Method]
    broken_modules: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def find(self, name: str) -> Method:
        """Return the method of this name.

        Raises:
            InputError: if there is no such method; the message has near matches.
        """
        if name in self.methods:
            return self.methods[name]
        raise unknown("method", name, self.methods)

    def select(self, names: str) -> list[Method]:
        """Return the methods of a comma-separated list, in its order, each once."""
        wanted = list(dict.fromkeys(separated(names)))
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

    modules = [module.name for module in pkgutil.iter_modules(baselines.__path__)]
    names = [f"baselines.{name}" for name in modules if not name.startswith("_")]
    names += [point.value.split(":")[0] for point in entry_points(group=ENTRY_POINT_GROUP)]
    return read_modules(names)


def read_modules(names: list[str]) -> Registry:
    """Import each module and collect its ``METHODS``; a module that fails is noted and left out."""
    return _collect({name: partial(importlib.import_module, name) for name in names})


def load_file(path: Path) -> Registry:
    """Read the methods of one file, which need not be importable.

    Raises:
        InputError: if there is no such file of Python code, if it cannot be read, or if two methods share a name.
    """
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"{path} is no file of Python code; give the path of a .py file that declares METHODS")
    methods = _collect({str(path): partial(_run_file, path)})
    for reason in methods.broken_modules.values():
        raise InputError(f"{path} is not readable: {reason}")
    return methods


def why_missing(method: Method) -> str | None:
    """Return which of the method's libraries is not installed, in one line, or None; nothing is imported.

    Only `why_unavailable` finds a library that is installed and breaks when it is imported.
    """
    return next(filter(None, map(_not_found, method.requires)), None)


def why_unavailable(method: Method) -> str | None:
    """Import the method's libraries; return why it cannot run here, in one line, or None."""
    return next(filter(None, (_import_failure(library)[0] for library in method.requires)), None)


def import_notes(method: Method) -> list[str]:
    """Return what the method's libraries did to the process when they were imported, one line each; it was undone."""
    return [f"importing {library} {note}" for library in method.requires for note in _import_failure(library)[1]]


def _collect(modules: dict[str, Callable[[], ModuleType]]) -> Registry:
    """Load modules of methods, given by name; a module that fails is noted and left out."""
    call_limit()  # a mistake in the limit is the user's, not a module's
    collected = Registry({}, {})
    places: dict[str, str] = {}
    for name, load in modules.items():
        try:
            with contained(f"importing {name}") as notes:
                module = load()
            declared = getattr(module, "METHODS", None)
            if not isinstance(declared, list | tuple) or not all(isinstance(method, Method) for method in declared):
                raise InputError("it has no list METHODS of harness.methods.Method; declare METHODS = [Method(...)]")
        except Exception as error:  # a foreign module may fail in any way, and must not take the others down
            collected.broken_modules[name] = one_line(error)
            continue
        collected.notes.extend(f"importing {name} {note}" for note in notes)
        for method in declared:
            if method.name in collected.methods:
                collected.broken_modules[name] = (
                    f"its method {method.name} is already declared in {places[method.name]}; rename one of them"
                )
                continue
            places[method.name] = name
            collected.methods[method.name] = method
    return collected


def _run_file(path: Path) -> ModuleType:
    # Dataclasses and pickles look their module up by its name, which must hide no other module.
    name = f"_methods_of_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@cache
def _not_found(library: str) -> str | None:
    """Look for a library part by part: finding a submodule by its whole name would import the package."""
    package, *parts = library.split(".")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # a finder refuses it, or a module without a specification was put in its place
        spec = None
    if spec is None:
        return _install(package)
    for part in parts:
        name = f"{spec.name}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(name, spec.submodule_search_locations or [])
        if spec is None:
            return f"{library} is broken: there is no {name} in the {package} installed here"
    return None


def _install(package: str) -> str:
    return f"{package} is not installed: pip install {package}"


@cache
def _import_failure(library: str) -> tuple[str | None, list[str]]:
    """Import a library; return why that failed, or None, and what the import did to the process."""
    # Every library builds on torch, and a change of torch's settings is seen only if torch was imported before.
    importlib.import_module("torch")
    package = library.split(".")[0]
    notes: list[str] = []
    try:
        with contained(f"importing {library}") as notes:
            importlib.import_module(library)
    except Exception as error:  # a broken installation raises anything at all
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            return _install(package), []
        return f"{library} is broken: {one_line(error)}", notes
    return None, notes
