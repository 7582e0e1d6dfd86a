"""What the commands print: results on standard output, all else on standard error.

In a terminal a table is fitted to its width; what is piped on is Markdown, of any width.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.errors import printable

if TYPE_CHECKING:
    import polars as pl

    from harness.report.publish import Page
    from harness.results import Row


PLAN = "Plan, with the time of training on this machine"

_LONG = 24  # characters: a column of longer texts may be narrowed to this width, and breaks its lines
_GOOD = {"ok", "available"}
_INDENT = (0, 0, 0, 1)
_PADDING = (0, 1, 0, 0)


def in_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def say(line: str) -> None:
    """Print a line that is no result."""
    print("\n".join(map(printable, line.split("\n"))), file=sys.stderr)


def print_json(rows: Iterable[Row], file: TextIO | None = None) -> None:
    """Print rows, one JSON object a line."""
    for row in rows:
        print(json.dumps(dataclasses.asdict(row)), file=file, flush=True)


def show_table(title: str, frame: pl.DataFrame) -> None:
    """Print a table under a title."""
    if in_terminal():
        _show_fitted(Console(highlight=False), title, frame)
    else:
        from harness.report.tables import to_markdown

        print(f"\n{title}\n\n{to_markdown(frame)}")


def show_pages(pages: Sequence[Page], folder: Path) -> None:
    """Print pages: all of them, or in a terminal the first one of each experiment, and where the others are.

    Args:
        pages: As `harness.report.publish.pages` has them.
        folder: Where they are written.
    """
    if not in_terminal():
        for page in pages:
            print(f"\n{page.text()}", end="")
        return
    console = Console(highlight=False)
    first = {page.experiment: page for page in reversed(pages)}
    for page in pages:
        if page is first[page.experiment]:
            _show_fitted(console, page.title, page.frame)
            for note in page.notes:
                console.print(Padding(Text(note, style="dim"), _INDENT))
    if len(pages) > len(first):
        count = len(pages) - len(first)
        more = f"{count} more {'tables' if count > 1 else 'table'} in {folder / 'tables'}, or by: harness tables | less"
        console.print(Padding(Text(more, style="dim"), (1, 0, 0, 1)))


def show_plan(frame: pl.DataFrame) -> None:
    """Tell on standard error what a sweep will do."""
    if sys.stderr.isatty():
        _show_fitted(Console(stderr=True, highlight=False), PLAN, frame)
    else:
        from harness.report.tables import to_markdown

        say(f"\n{PLAN}\n\n{to_markdown(frame)}\n")


def _show_fitted(console: Console, title: str, frame: pl.DataFrame) -> None:
    console.print()
    console.print(Padding(Text(title, style="bold"), _INDENT))
    for table in _fitted(_telling(frame), console):
        console.print(table)


def _telling(frame: pl.DataFrame) -> pl.DataFrame:
    """Leave out columns that are empty, and a status that is good in every row."""
    return frame.drop(
        column.name
        for column in frame.get_columns()[1:]
        if (values := set(column.drop_nulls())) <= {""} or (column.name == "status" and values <= _GOOD)
    )


def _fitted(frame: pl.DataFrame, console: Console) -> Iterator[Table]:
    """Yield a frame as tables of the console's width: columns that do not fit go below, beside the first again."""
    key, *rest = map(_Column, frame.get_columns())
    while rest:
        count = len(rest)
        while count > 1 and _width(column.least for column in (key, *rest[:count])) > console.width:
            count -= 1
        yield _table([key, *rest[:count]], console.width)
        rest = rest[count:]


def _table(columns: Sequence[_Column], width: int) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=_PADDING, header_style="bold")
    spare = max(width - _width(column.least for column in columns), 0)
    widths = {}
    for column in sorted(columns, key=lambda column: column.wanted - column.least):  # those that need little get it
        more = min(column.wanted - column.least, spare)
        widths[column.name], spare = column.least + more, spare - more
    for column in columns:
        table.add_column(Text(column.name), justify=column.justify, width=widths[column.name], overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    return table


def _width(widths: Iterable[int]) -> int:
    """Return the width of a table with columns of these widths: two characters between them, and one on both sides."""
    return sum(width + 2 for width in widths) + 1


class _Column:
    """A column as text: its cells, and the least width and the width that it wants."""

    def __init__(self, values: pl.Series) -> None:
        from harness.report.tables.text import holds_numbers, text_of

        self.name = values.name
        self.justify = "right" if holds_numbers(values) else "left"
        self.cells = [Text("" if value is None else text_of(value)) for value in values]
        if self.name == "status":
            for cell in self.cells:
                cell.style = "" if cell.plain in _GOOD else "yellow"
        longest = max((len(cell) for cell in self.cells), default=0)
        # A header may break between words, but for one like D = 784.
        words = [self.name] if "=" in self.name else self.name.split()
        self.least = max(min(longest, _LONG), *map(len, words))
        self.wanted = max(longest, len(self.name))
