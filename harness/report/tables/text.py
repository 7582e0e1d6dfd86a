"""Frames as text: Markdown, LaTeX, HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import polars as pl
from markupsafe import Markup
from tabulate import tabulate

from harness.errors import printable

_LONG = 32
"""From how many characters on a column of HTML may break its lines."""


def render(frame: pl.DataFrame, style: str) -> str:
    """Write a frame as text.

    Args:
        frame: Any table of this package.
        style: As tabulate names it: github (Markdown) or latex_booktabs; or html.
    """
    if style == "html":
        return str(to_html(frame))
    bar = "\\|" if style == "github" else "|"
    rows = [["" if value is None else text_of(value).replace("|", bar) for value in row] for row in frame.rows()]
    alignment = ["right" if holds_numbers(column) else "left" for column in frame]
    return tabulate(rows, headers=frame.columns, tablefmt=style, disable_numparse=True, colalign=alignment)


def file_stem(*parts: str) -> str:
    """Name a file after values of rows, which may be anything, such as the path of a dataset or ``../``."""
    return quote("-".join(parts), safe=" ,+=()")


def to_html(frame: pl.DataFrame, extra: Mapping[str, Sequence[Markup]] | None = None) -> Markup:
    """Write a frame as an HTML table; whatever its values are, none becomes markup.

    Args:
        frame: Any table of this package.
        extra: Columns to add on the right whose values are markup already, by name; one value a row.
    """
    kinds = [_kind(column) for column in frame]
    extra = extra or {}
    names = [*zip(kinds, frame.columns, strict=True), *(("markup", name) for name in extra)]
    head = Markup("").join(Markup('<th scope="col"{}>{}</th>').format(_class(kind), name) for kind, name in names)
    body = []
    for index, row in enumerate(frame.iter_rows()):
        texts = ["" if value is None else text_of(value) for value in row]
        cells = [*zip(kinds, texts, strict=True), *(("markup", column[index]) for column in extra.values())]
        body.append(Markup("").join(Markup("<td{}>{}</td>").format(_class(kind), cell) for kind, cell in cells))
    lines = Markup("\n").join(Markup("<tr>{}</tr>").format(line) for line in body)
    return Markup("<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>").format(head, lines)


def _kind(column: pl.Series) -> str:
    if holds_numbers(column):
        return "number"
    return "long" if column.dtype == pl.String and (column.str.len_chars().max() or 0) > _LONG else ""


def _class(kind: str) -> Markup:
    return Markup(' class="{}"').format(kind) if kind else Markup("")


def split_constants(frame: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Take the settings that are the same in every row out of a table, and say them in one line instead."""
    settings = [
        "dataset",
        "architecture",
        "recipe",
        "EMA",
        "L",
        "B",
        "dtype",
        "device",
        "threads",
        "seeds",
        "cpu",
        "gpu",
        "torch",
        "commit",
    ]
    same = [name for name in settings if name in frame.columns and frame[name].n_unique() == 1]
    said = ", ".join(f"{name} = {text_of(frame[name][0])}" for name in same if frame[name][0] is not None)
    return frame.drop(same), said


def text_of(value: object) -> str:
    """Write one value: four digits of a number below a hundred, one decimal of a larger one."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else printable(" ".join(str(value).split()))


def holds_numbers(column: pl.Series) -> bool:
    """Whether a column is of numbers, or of text that is one, or starts with one and a space, in every row."""
    if column.dtype != pl.String:
        return column.dtype.is_numeric()
    return column.count() > 0 and bool(column.drop_nulls().str.contains(r"^[\d,.]+( |$)").all())
