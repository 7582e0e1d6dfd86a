"""Frames as text: Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import polars as pl
from markupsafe import Markup
from tabulate import tabulate

from harness.errors import printable

_LONG = 32
"""From how many characters on a column of HTML may break its lines."""
_SETTINGS = [
    *("dataset", "architecture", "recipe", "EMA", "L", "B"),
    *("dtype", "device", "threads", "seeds", "cpu", "gpu", "torch", "commit"),
]


def to_markdown(frame: pl.DataFrame) -> str:
    """Write a frame as a table in GitHub's Markdown."""
    rows = [["" if value is None else text_of(value).replace("|", "\\|") for value in row] for row in frame.rows()]
    alignment = ["right" if holds_numbers(column) else "left" for column in frame]
    return str(tabulate(rows, headers=frame.columns, tablefmt="github", disable_numparse=True, colalign=alignment))


def file_stem(*parts: str) -> str:
    """Name a file after values of rows, which may be anything, such as the path of a dataset or ``../``."""
    return quote("-".join(parts), safe=" ,+=()")


def to_html(frame: pl.DataFrame, extra: Mapping[str, Sequence[Markup]] | None = None) -> Markup:
    """Write a frame as an HTML table in which no value becomes markup.

    Args:
        frame: Any frame.
        extra: Columns of markup to add on the right, by name, each with one value a row.
    """
    kinds = [_kind(column) for column in frame]
    extra = extra or {}
    names = [*zip(kinds, frame.columns, strict=True), *(("markup", name) for name in extra)]
    head = Markup("").join(Markup('<th scope="col"{}>{}</th>').format(_class(kind), name) for kind, name in names)
    body = []
    for index, row in enumerate(frame.iter_rows()):
        texts = ["" if value is None else text_of(value) for value in row]
        cells = [*zip(kinds, texts, strict=True), *(("markup", column[index]) for column in extra.values())]
        line = Markup("").join(Markup("<td{}>{}</td>").format(_class(kind), cell) for kind, cell in cells)
        body.append(Markup("<tr>{}</tr>").format(line))
    lines = Markup("\n").join(body)
    return Markup("<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>").format(head, lines)


def _kind(column: pl.Series) -> str:
    if holds_numbers(column):
        return "number"
    is_long = column.dtype == pl.String and (column.str.len_chars() > _LONG).any()
    return "long" if is_long else ""


def _class(kind: str) -> Markup:
    return Markup(' class="{}"').format(kind) if kind else Markup("")


def split_constants(frame: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Take the settings that are the same in every row out of a table, and return them as one line instead."""
    same = [name for name in _SETTINGS if name in frame.columns and frame[name].n_unique() == 1]
    line = ", ".join(f"{name} = {text_of(frame[name][0])}" for name in same if frame[name][0] is not None)
    return frame.drop(same), line


def text_of(value: object) -> str:
    """Write one value: four digits of a number below a hundred, one decimal of a larger one."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else printable(" ".join(str(value).split()))


def holds_numbers(column: pl.Series) -> bool:
    """Return whether every value of a column is a number, or text that is one or starts with one and a space."""
    if column.dtype != pl.String:
        return column.dtype.is_numeric()
    return column.count() > 0 and bool(column.drop_nulls().str.contains(r"^[\d,.]+( |$)").all())
