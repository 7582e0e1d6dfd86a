"""What the commands print: results on standard output, all else on standard error.

In a terminal a table is fitted to its width; what goes into a pipe or a file is Markdown of any width.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.errors import printable

if TYPE_CHECKING:
    import polars as pl

    from harness.report.publish import Page
    from harness.results import Row


PLAN = "Plan, with the time of training on this machine"

_LONG = 24  # characters; the cells of a column with longer ones may break into lines of this length
_HEADER = 10  # characters; a header that is longer than this, and than its cells, breaks between words
_GOOD = {"ok", "available"}
_INDENT = (0, 0, 0, 1)
_ANY_WIDTH = 100_000


def in_terminal() -> bool:
    """Return whether a person reads standard output."""
    return sys.stdout.isatty()


def say(*lines: str) -> None:
    """Print lines that are no results, on standard error."""
    for line in lines:
        print("\n".join(map(printable, line.split("\n"))), file=sys.stderr)


def print_json(rows: Iterable[Row], file: TextIO | None = None) -> None:
    """Print rows, one JSON object a line."""
    for row in rows:
        print(json.dumps(dataclasses.asdict(row)), file=file, flush=True)


def show_table(title: str, frame: pl.DataFrame, stderr: bool = False) -> None:
    """Print a table under a title, on standard output or standard error."""
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        _show_fitted(Console(stderr=stderr, highlight=False), title, frame)
    else:
        from harness.report.tables.text import to_markdown

        print(f"\n{title}\n\n{to_markdown(frame)}", file=stream)


def show_pages(pages: Sequence[Page], more: str) -> None:
    """Print every page; a terminal gets the first page of each experiment, and is told where the others are."""
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
    if count := len(pages) - len(first):
        text = f"{count} more {'tables' if count > 1 else 'table'} {more}"
        console.print(Padding(Text(text, style="dim"), (1, 0, 0, 1)))


def _show_fitted(console: Console, title: str, frame: pl.DataFrame) -> None:
    """Print a frame; columns that do not fit go below, in a table that begins with the first column again."""
    console.print()
    console.print(Padding(Text(title, style="bold"), _INDENT))
    key, *rest = _telling(frame).get_columns()
    unlimited = console.options.update(max_width=_ANY_WIDTH)
    while rest:
        count = len(rest)
        while count > 1 and Measurement.get(console, unlimited, _table(key, *rest[:count])).minimum > console.width:
            count -= 1
        console.print(_table(key, *rest[:count]))
        rest = rest[count:]


def _telling(frame: pl.DataFrame) -> pl.DataFrame:
    """Leave out empty columns, and a status that is good in every row."""
    return frame.drop(
        column.name
        for column in frame.get_columns()[1:]
        if (values := set(column.drop_nulls())) <= {""} or (column.name == "status" and values <= _GOOD)
    )


def _table(*columns: pl.Series) -> Table:
    """Return a table in which long texts, and between words the headers, may break into lines."""
    from harness.report.tables.text import holds_numbers, text_of

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    cells = []
    for column in columns:
        texts = ["" if value is None else text_of(value) for value in column]
        bad = "yellow" if column.name == "status" else ""
        cells.append([Text(text, style="" if text in _GOOD else bad) for text in texts])
        longest = max(map(len, texts), default=0)
        header = textwrap.wrap(
            column.name, len(column.name) if "=" in column.name else max(longest, _HEADER), break_long_words=False
        )
        width = max(longest, *map(len, header))
        table.add_column(
            Text("\n".join(header)),
            justify="right" if holds_numbers(column) else "left",
            min_width=min(width, _LONG),
            no_wrap=width <= _LONG,
            overflow="fold",
        )
    for line in zip(*cells, strict=True):
        table.add_row(*line)
    return table
