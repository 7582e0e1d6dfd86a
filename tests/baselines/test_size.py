"""A competitor is one short file."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

import baselines

LARGEST = 80
FILES = sorted(Path(baselines.__path__[0]).glob("*.py"))
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of_code(source: str) -> int:
    """Lines that hold anything but blanks, comments and docstrings."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for t in tokens if t.type not in LAYOUT for line in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def test_lines_of_code_are_counted_as_meant() -> None:
    source = '''"""Two
lines."""

x = 1  # one


def f():
    """One."""
    # none
    return """
    three
    """
'''
    assert lines_of_code(source) == 1 + 1 + 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_competitor_is_short(path: Path) -> None:
    assert lines_of_code(path.read_text()) <= LARGEST
