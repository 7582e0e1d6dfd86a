"""The adapter that `harness new-adapter` writes: it works as it is, and is meant to be changed into another."""

from __future__ import annotations

import keyword
from importlib.resources import files
from pathlib import Path

from harness.errors import InputError

__all__ = ["method_name", "write_adapter"]


def write_adapter(name: str, folder: Path) -> Path:
    """Write the template as ``name.py`` into a folder, with the class and the method named after it; return the file.

    Raises:
        InputError: if the name is no identifier in ASCII that starts with a letter, or the file cannot be written.
    """
    if not (name.isidentifier() and name.isascii() and name[0] != "_") or keyword.iskeyword(name):
        raise InputError(f"'{name}' cannot name a module of methods: use letters, digits and _, such as my_flow")
    text = files("harness.conformance.template").joinpath("new_adapter.py").read_text(encoding="utf-8")
    text = text.replace("NewAdapter", "".join(part[:1].upper() + part[1:] for part in name.split("_")))
    text = text.replace("new-adapter-ml", method_name(name))
    path = folder / f"{name}.py"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path} is there already; choose another name, or remove it first") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another --folder") from error
    return path


def method_name(name: str) -> str:
    """Return the name of the method in a module of this name."""
    return f"{name.strip('_').replace('_', '-').lower()}-ml"
