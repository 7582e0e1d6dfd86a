"""Frames as text: Markdown and HTML."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import polars as pl
from markupsafe import Markup
from tabulate import tabulate

from harness.errors import one_line, printable

_LONG = 32
"""From how many characters on a column of HTML may break its lines."""
_LONGEST_STEM = 200
"""Characters of a file's name without its suffix; most file systems hold 255 bytes."""
_SETTINGS = [
    *("dataset", "architecture", "recipe", "EMA", "L", "B"),
    *("dtype", "device", "threads", "seeds", "cpu", "gpu", "torch", "commit"),
]


def to_markdown(frame: pl.DataFrame) -> str:
    """Write a frame as a table in GitHub's Markdown."""
    rows = [[_shown(value).replace("|", "\\|") for value in row] for row in frame.rows()]
    alignment = ["right" if holds_numbers(column) else "left" for column in frame]
    return str(tabulate(rows, headers=frame.columns, tablefmt="github", disable_numparse=True, colalign=alignment))


def no_table(error: Exception) -> pl.DataFrame:
    """Return what stands in the place of a table that cannot be made: the reason, in words."""
    return pl.DataFrame({"why there is no table": [f"it cannot be made from these rows: {one_line(error)}"]})


def file_stem(*parts: str) -> str:
    """Name a file after values of rows, which may be anything, such as the path of a dataset or ``../``.

    A name that is too long for a file system ends in a digest of the rest: a letter such as ü takes six characters.
    """
    stem = quote("-".join(parts), safe=" ,+=()")
    if len(stem) <= _LONGEST_STEM:
        return stem
    return f"{stem[: _LONGEST_STEM - 13]}-{hashlib.sha256(stem.encode()).hexdigest()[:12]}"


def to_html(frame: pl.DataFrame, extra: Mapping[str, Sequence[Markup]] | None = None, caption: str = "") -> Markup:
    """Write a frame without its empty columns as an HTML table; no value becomes markup but in the extra columns.

    A caption stands in the table for those who hear it; nothing else is shown of it.
    """
    filled = [column for column in frame if column.null_count() < frame.height]
    columns = [(_class(column), column.name, list(map(_shown, column))) for column in filled]
    columns += [(Markup(' class="markup"'), name, list(cells)) for name, cells in (extra or {}).items()]
    head = Markup("").join(Markup('<th scope="col"{}>{}</th>').format(kind, name) for kind, name, _ in columns)
    cells = [[Markup("<td{}>{}</td>").format(kind, text) for text in texts] for kind, _, texts in columns]
    lines = Markup("\n").join(Markup("<tr>{}</tr>").format(Markup("").join(line)) for line in zip(*cells, strict=True))
    named = Markup("<caption>{}</caption>\n").format(caption) if caption else ""
    table = Markup("<table>\n{}<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>")
    return table.format(named, head, lines)


def _class(column: pl.Series) -> Markup:
    if holds_numbers(column):
        return Markup(' class="number"')
    is_long = column.dtype == pl.String and (column.str.len_chars() > _LONG).any()
    return Markup(' class="long"' if is_long else "")


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


def _shown(value: object) -> str:
    return "" if value is None else text_of(value)


def holds_numbers(column: pl.Series) -> bool:
    """Return whether every value of a column is a number, or text that begins with one, before a space or a star."""
    if column.dtype != pl.String:
        return column.dtype.is_numeric()
    return column.count() > 0 and bool(column.drop_nulls().str.contains(r"^-?[\d,.]+( |\*|$)").all())
