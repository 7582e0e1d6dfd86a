"""The house stays one that a stranger can draw from memory: few rooms, short functions, no circles, few exemptions."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = ("baselines", "ebflow", "harness")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
ROLES = {"runtime", "likelihood", "curves", "pictures", "sampling", "trainings"}
"""Names that modules of several rooms share, because they are about the same thing: how it is measured, and shown."""


def test_the_harness_has_few_rooms() -> None:
    entries = {path.name for path in (ROOT / "harness").iterdir() if path.name != "__pycache__"}
    assert len(entries) <= 14, sorted(entries)


def test_modules_of_one_name_are_of_one_role() -> None:
    names = Counter(path.stem for path in FILES if path.is_relative_to(ROOT / "harness") and path.stem[:2] != "__")
    assert {name for name, count in names.items() if count > 1} <= ROLES


def test_no_imports_go_in_circles() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imported).prepare()  # a CycleError names the circle


def test_functions_are_short() -> None:
    """No body, signature and docstring apart, has more than 60 lines."""
    long = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                if body and body[-1].end_lineno - body[0].lineno >= 60:
                    long.append(f"{path}: {node.name}")
    assert long == []


def test_the_harness_is_small() -> None:
    assert sum(len(path.read_text().splitlines()) for path in FILES if path.is_relative_to(ROOT / "harness")) <= 22_800


def test_exemptions_are_few_and_have_reasons() -> None:
    exempt = [
        line for path in FILES for line in path.read_text().splitlines() if re.search(r"# (noqa|type: ignore)", line)
    ]
    assert len(exempt) <= 20
    for line in exempt:
        assert re.search(r"# (noqa: [A-Z0-9]+(, [A-Z0-9]+)*|type: ignore\[[a-z-]+\])(  # |  | - )\w+ \w+", line), line


def test_the_reference_results_are_few_files() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    files = [ROOT / name for name in tracked if name] or [
        path for path in (ROOT / "results").rglob("*") if path.is_file()
    ]
    kept = [path for path in files if "reference" in path.parts and path.exists()]
    assert 50 < len(kept) <= 260
    assert sum(path.stat().st_size for path in kept) <= 12 * 2**20
