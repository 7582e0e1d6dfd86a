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
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import polars as pl

    from harness.publish import Page
    from harness.results import Row

__all__ = ["in_terminal", "print_json", "say", "show_pages", "show_plan", "show_table"]

_LONG = 24  # characters: a column of texts that are longer may break its lines, down to this width
_GOOD = ("ok", "available")


def in_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def say(line: str) -> None:
    """Print a line that is no result."""
    print(line, file=sys.stderr)


def print_json(rows: Iterable[Row], file: TextIO | None = None) -> None:
    """Print rows, one JSON object a line."""
    for row in rows:
        print(json.dumps(dataclasses.asdict(row)), file=file, flush=True)


def show_table(title: str, frame: pl.DataFrame) -> None:
    """Print a table under a title."""
    if in_terminal():
        _show_fitted(Console(highlight=False), title, frame)
    else:
        from harness.tables import render

        print(f"\n{title}\n\n{render(frame, 'github')}")


def show_pages(pages: Sequence[Page], folder: Path) -> None:
    """Print pages: all of them, or in a terminal the first one of each experiment, and where the others are.

    Args:
        pages: As `harness.publish.pages` has them.
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
                console.print(Padding(Text(note, style="dim"), (0, 0, 0, 1)))
    if len(pages) > len(first):
        console.print(
            f"\n {len(pages) - len(first)} more tables: harness tables | less, or in {folder / 'tables'}", style="dim"
        )


def show_plan(frame: pl.DataFrame) -> None:
    """Tell on standard error what a sweep will do."""
    title = "Plan, with the time of training on this machine"
    if sys.stderr.isatty():
        _show_fitted(Console(stderr=True, highlight=False), title, frame)
    else:
        from harness.tables import render

        say(f"\n{title}\n\n{render(frame, 'github')}\n")


def _show_fitted(console: Console, title: str, frame: pl.DataFrame) -> None:
    console.print(Text(f"\n {title}", style="bold"))
    for table in _fitted(frame, console):
        console.print(table)


def _fitted(frame: pl.DataFrame, console: Console) -> Iterator[Table]:
    """Yield a frame as tables of the console's width: columns that do not fit go below, beside the first again."""
    key, *rest = frame.columns
    while True:
        count = len(rest)
        while count > 1 and not _fits(table := _table(frame.select(key, *rest[:count])), console):
            count -= 1
        yield _table(frame.select(key, *rest[:count])) if count <= 1 else table
        rest = rest[count:]
        if not rest:
            return


def _fits(table: Table, console: Console) -> bool:
    return Measurement.get(console, console.options.update(width=10_000), table).minimum <= console.width


def _table(frame: pl.DataFrame) -> Table:
    from harness.tables.text import holds_numbers, text_of

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
    for column in frame:
        texts = ["" if value is None else text_of(value) for value in column]
        longest = max(map(len, texts), default=0)
        table.add_column(
            Text(column.name),
            justify="right" if holds_numbers(column) else "left",
            no_wrap=longest <= _LONG,
            min_width=min(longest, _LONG),
            overflow="fold",
        )
    for row in frame.iter_rows(named=True):
        table.add_row(*(_cell(name, "" if value is None else text_of(value)) for name, value in row.items()))
    return table


def _cell(column: str, text: str) -> Text:
    return Text(text, style="yellow" if column == "status" and text not in _GOOD else "")
