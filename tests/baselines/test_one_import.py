"""An adapter needs one line of ours: `from harness.methods import ...`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import baselines
import harness.conformance.template

ROOT = Path(__file__).parents[2]
TEMPLATE = Path(harness.conformance.template.__file__).with_name("new_adapter.py")
ADAPTERS = [
    *sorted(Path(baselines.__path__[0]).glob("*.py")),
    TEMPLATE,
    ROOT / "examples" / "diagonal_flow" / "diagonal_flow.py",
]


def imports_of_the_harness(source: str) -> Iterator[str]:
    """Every module of the harness that a source imports, anywhere in it, once for each time."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "."]
        yield from (name for name in names if name.split(".")[0] == "harness")


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: path.stem)
def test_an_adapter_imports_one_line_of_the_harness(path: Path) -> None:
    found = list(imports_of_the_harness(path.read_text()))
    assert found in ([], ["harness.methods"])
    assert found or not re.search(r"^METHODS\b", path.read_text(), re.MULTILINE)


def test_so_does_the_adapter_of_the_documentation() -> None:
    page = (ROOT / "docs" / "adding-a-baseline.md").read_text()
    (code,) = (text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "METHODS" in text)
    assert list(imports_of_the_harness(code)) == ["harness.methods"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import harness.datasets", ["harness.datasets"]),
        ("def f():\n    from harness import datasets", ["harness"]),
        ("from harness.methods import A\nfrom harness.methods import B", ["harness.methods"] * 2),
        ("import torch\nfrom harnesses import x", []),
    ],
)
def test_what_is_found(source: str, expected: list[str]) -> None:
    assert list(imports_of_the_harness(source)) == expected
