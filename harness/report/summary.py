"""What a reproduction comes to, on one screen: a verdict a claim, what could not be run, and where the rest is."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from harness.report.claims import CLAIMS, Claim, Evidence, Verdict, telling

LINES = 60
"""The most lines that a summary has."""
WIDTH = 100
"""The most characters of a line, unless one word is longer."""

_VERDICT = 64  # the column in which a verdict begins
_NAMED = 3  # methods; more are counted
_TELLING = ("tuned-mnist-fc", "table2-mnist-fc", "tuned-digits-fc", "digits-fc")
"""Experiments whose likelihoods answer the question, the most telling first."""


def summary(rows: pl.DataFrame, asked: pl.DataFrame, files: Sequence[Path], page: Path) -> list[str]:
    """Return the lines of one screen, at most `LINES`.

    Args:
        rows: All rows that the page is made of, with the columns of `harness.results.derived`.
        asked: The rows of the cells that were asked for, with the columns of the result schema.
        files: The tables and figures that were written.
        page: The page that was written.
    """
    judged = [(claim, *claim.weigh(rows)) for claim in CLAIMS]
    lines = [f"The paper's claims, judged by the {rows['cell'].n_unique():,} cells in {page.parent}"]
    for claim, verdict, evidence in judged:
        lines += _claim(claim, verdict, evidence) if evidence else []
    if unmeasured := [claim.name for claim, _, evidence in judged if not evidence]:
        lines += _wrapped(f"not measured here: {', '.join(unmeasured)}; harness reproduce measures most of them", "")
    where = _places(files, page, asked["experiment"].unique(maintain_order=True).to_list())
    return [*lines, *_without_number(asked, LINES - len(lines) - len(where), page.parent), *where]


def _claim(claim: Claim, verdict: Verdict, evidence: Sequence[Evidence]) -> list[str]:
    """Return a claim and its verdict, the first comparison of each outcome, what is published, and the command."""
    numbers = [f"{one.outcome}: {one.short}" for one in telling(evidence)]
    return [
        f"{claim.short:<{_VERDICT}}{verdict}",
        *("  " + textwrap.shorten(number, WIDTH - 2, placeholder=" ...") for number in numbers),
        *_wrapped(f"paper: {claim.published_short}; more: {claim.commands[0]}"),
    ]


def _without_number(asked: pl.DataFrame, room: int, folder: Path) -> list[str]:
    """Return in so many lines what has no number, counted by the reason, and how to run it or to see more of it."""
    # The reason of what is unavailable says what to do; that of a failure is one cell's own.
    reason = pl.when(status="unavailable").then("reason").otherwise("status").alias("why")
    groups = asked.filter(pl.col("status") != "ok").group_by(reason, "status", maintain_order=True)
    counted = groups.agg(pl.col("cell").n_unique().alias("cells"), pl.col("method").unique().sort())
    more = f"harness results show --results-dir {shlex.quote(str(folder))} --status"
    lines: list[str] = []
    for why, status, cells, methods in counted.sort("cells", descending=True, maintain_order=True).rows():
        how = why if status == "unavailable" else f"{why}; {more} {status}"
        named = ", ".join(methods) if len(methods) <= _NAMED else f"{len(methods)} methods"
        lines += _wrapped(f"{cells:,} {'cell' if cells == 1 else 'cells'} ({named}): {how}")
    if not lines:
        return []
    if len(lines) >= room:
        lines = [*lines[: max(room - 2, 0)], *_wrapped(f"...; {more} unavailable,failed,diverged")]
    return ["without a number:", *lines]


def _places(files: Sequence[Path], page: Path, experiments: Sequence[str]) -> list[str]:
    """Return where the two figures that tell most, the tables and the page are."""
    figures = sorted((path for path in files if path.suffix == ".svg"), key=lambda path: _rank(path, experiments))
    tables = [path for path in files if path.suffix == ".md"]
    lines = [f"figure: {path}" for path in figures[:2]]
    shown = f"harness tables --results-dir {shlex.quote(str(page.parent))}"
    lines += [f"tables: {len(tables)} in {tables[0].parent}; {shown}"] if tables else []
    return [*lines, f"page: {page}"]


def _rank(figure: Path, experiments: Sequence[str]) -> tuple[int, int]:
    """Rank the figure of time against D first, then likelihoods, then whatever figures of these experiments."""
    if figure.stem == "headline":
        return 0, 0
    likelihoods = [f"{name}-" for name in _TELLING]
    for place, name in enumerate(likelihoods):
        if figure.stem.startswith(name) and figure.stem.endswith("-likelihood"):
            return 1, place
    return (2 if figure.stem.startswith(tuple(experiments)) else 3), 0


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    further = f"{indent}  "
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )
