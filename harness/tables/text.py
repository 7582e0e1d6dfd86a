"""Frames as text: Markdown, LaTeX, HTML."""

from __future__ import annotations

from urllib.parse import quote

import polars as pl
from tabulate import tabulate

from harness.errors import printable

__all__ = ["file_stem", "render", "split_constants", "text_of"]


def render(frame: pl.DataFrame, style: str) -> str:
    """Write a frame as text.

    Args:
        frame: Any table of this package.
        style: As tabulate names it: github (Markdown), latex_booktabs, html.
    """
    bar = "\\|" if style == "github" else "|"
    rows = [["" if value is None else text_of(value).replace("|", bar) for value in row] for row in frame.rows()]
    alignment = ["right" if _holds_numbers(column) else "left" for column in frame]
    return tabulate(rows, headers=frame.columns, tablefmt=style, disable_numparse=True, colalign=alignment)


def file_stem(*parts: str) -> str:
    """Name a file after values of rows, which may be anything, such as the path of a dataset or ``../``."""
    return quote("-".join(parts), safe=" ,+=()")


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


def _holds_numbers(column: pl.Series) -> bool:
    """Whether a column is of numbers, or of text that starts with one in every row."""
    return column.dtype.is_numeric() or (
        column.dtype == pl.String and column.count() > 0 and bool(column.drop_nulls().str.contains(r"^\d").all())
    )
