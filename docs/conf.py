"""The site: the repository's own Markdown and docstrings. Nothing is fetched, neither to build it nor to read it.

The source folder is the repository itself, so a link between two files leads to the same place here and on the web.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

import harness

project = "ebflow-bench"
author = "The ebflow-bench developers"
version = release = harness.__version__
html_title = "ebflow-bench"
html_theme = "furo"
html_copy_source = False
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header", "toc.not_included"]  # the generated tables start at ## and are reached by links
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "results/README.md",
    "results/reference/README.md",
    "results/reference/tables/*.md",
    "examples/diagonal_flow/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
]
default_role = "py:obj"  # a name in backticks is a link where there is something to link to
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # a layer's page shows what it adds, not the whole contract again
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False


def plain_text(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Escape the bars, stars and underscores of a docstring, which are no markup there; `$` stays a formula."""
    code = False
    for index, line in enumerate(lines):
        code = (code and (not line.strip() or line.startswith("    "))) or lines[index - 1 : index] == ["::"]
        if not code:
            parts = re.split(r"(``.*?``|`.*?`|\$.*?\$)", line)
            lines[index] = "".join(_without_markup(part) for part in parts)
        code = code or line.rstrip().endswith("::")


def _without_markup(part: str) -> str:
    if part.startswith("$"):
        return f":math:`{part.strip('$')}`"
    return part if part.startswith("`") else re.sub(r"([|*]|_(?!\w))", r"\\\1", part)


def visit_inline_math(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula inside a line as MathML, which browsers draw by themselves."""
    self.body.append(_mathml(node.astext()))
    raise nodes.SkipNode


def visit_display_math(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on a line of its own as MathML."""
    self.body.append(f'<div class="math">{_mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def _mathml(formula: str, as_block: bool = False) -> str:
    # Browsers draw the sign for "function of" as nothing at all: log p would be one word.
    return tex2mathml(formula, as_block=as_block).replace("<mo>&ApplyFunction;</mo>", '<mspace width="0.17em"/>')


class Commands(SphinxDirective):
    """The commands of the program with their options, as typer writes them in Markdown; examples become code."""

    def run(self) -> list[nodes.Node]:
        """Return the sections of all commands."""
        command = [sys.executable, "-m", "typer", "harness.cli.program", "utils", "docs", "--name", "harness"]
        written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        _, text = written.split("\n", 1)  # the page has a title of its own
        text = re.sub(r"(?m)^Examples:\n((?:  .*\n)+)", r"**Examples**:\n\n```sh\n\1```\n", text)
        text = re.sub(r"(?m)^  (harness|torchrun) ", r"\1 ", text)
        sections = nodes.section()
        self.state.nested_parse(StringList(text.splitlines(), "harness --help"), 0, sections, match_titles=True)
        return sections.children


def setup(app: Sphinx) -> None:
    """Register the treatment of docstrings, the commands, and the two writers of formulas."""
    app.add_directive("commands", Commands)
    app.connect("autodoc-process-docstring", plain_text, priority=400)  # before napoleon
    app.add_html_math_renderer("mathml", (visit_inline_math, None), (visit_display_math, None))
