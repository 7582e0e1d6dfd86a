"""The lowest versions that `tox -e lowest` installs are those that pyproject.toml declares."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
EXTRAS = ("peers", "cluster", "tabular", "test")  # the test extra installs two others


def pins(name: str) -> dict[str, Version]:
    """Read the pins of a file of constraints, by normalized name."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line]
    return {canonicalize_name(dependency): Version(version) for dependency, version in pairs}


def lower_bounds() -> dict[str, set[Version]]:
    """Read the lower bounds of every direct dependency but torch; one that is declared twice may have two."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    extras = [text for extra in EXTRAS for text in project["optional-dependencies"][extra]]
    bounds: dict[str, set[Version]] = {}
    for text in (*pyproject["build-system"]["requires"], *project["dependencies"], *extras):
        requirement = Requirement(text)
        if requirement.name not in ("torch", project["name"]):
            lowest = [Version(bound.version) for bound in requirement.specifier if bound.operator in (">=", "==")]
            bounds.setdefault(canonicalize_name(requirement.name), set()).update(lowest)
    return bounds


def test_every_direct_dependency_is_pinned_at_its_lower_bound() -> None:
    pinned = pins("requirements/lowest.txt")
    assert {name: {pinned.get(name)} for name in lower_bounds()} == lower_bounds()


def test_tox_constrains_pip_by_paths_that_no_space_divides() -> None:
    """pip splits the variable PIP_CONSTRAINT at spaces, as in the path of a clone."""
    text = (ROOT / "tox.ini").read_text()
    assert not re.search("^ *PIP_CONSTRAINT *=", text, flags=re.MULTILINE)
    tox = configparser.ConfigParser(interpolation=None)
    tox.read_string(text)
    commands = {name: tox[name]["install_command"].split() for name in tox if "install_command" in tox[name]}
    constraints = {
        name: [word.removeprefix("--constraint=") for word in command if word.startswith("--constraint=")]
        for name, command in commands.items()
        if not command[0].startswith("{")  # that of another environment
    }
    assert constraints == {
        "testenv": ["constraints.txt"],
        "testenv:py311": ["constraints.txt"],
        "testenv:lowest": ["requirements/lowest.txt"],
    }


def test_torch_is_the_version_of_the_constraints() -> None:
    assert pins("requirements/lowest.txt")["torch"] == pins("constraints.txt")["torch"]
