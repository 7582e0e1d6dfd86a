"""What a claim is, what speaks for it or against it, and how that becomes a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import polars as pl

from harness.errors import InputError
from harness.paper.configurations import configuration


class Outcome(StrEnum):
    """What one comparison says of a claim."""

    FOR = "for"
    PARTLY = "partly"
    AGAINST = "against"
    OPEN = "open"


class Verdict(StrEnum):
    """What all comparisons say together."""

    HOLDS = "holds"
    LIMITED = "holds with a limit"
    FAILS = "does not hold here"
    UNMEASURED = "not measured"


VERDICT_RULE = (
    "Every comparison that the rows allow counts as for, partly, against or open. None that is decided: not measured. "
    "All for: holds. All that are decided against: does not hold here. Anything else: holds with a limit. A training "
    "that was cut short (the quick profile, or fewer epochs than its recipe's) may still improve: where it is the one "
    "that loses, the comparison is open, or partly for the claim instead of for it."
)
"""In words for the reader what `judge` does."""


@dataclass(frozen=True)
class Evidence:
    """One comparison.

    Args:
        outcome: What it says of the claim.
        short: The comparison in a few words, with its main number.
        text: The comparison with its numbers: measured in `cells`, or published.
        cells: Keys of the cells that the measured numbers come from.
    """

    outcome: Outcome
    short: str
    text: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Args:
        name: Short, for links.
        title: What is claimed, in one sentence.
        published: What the paper reports for it.
        rule: What makes a comparison count for or against it, with the thresholds.
        command: That measures it, without what a shell has to know.
        compare: From rows of `harness.results.SCHEMA` to the comparisons, the most telling first.
    """

    name: str
    title: str
    published: str
    rule: str
    command: str
    compare: Callable[[pl.DataFrame], list[Evidence]]


def judge(evidence: Iterable[Evidence]) -> Verdict:
    """Return the verdict by `VERDICT_RULE`."""
    outcomes = {one.outcome for one in evidence}
    if outcomes <= {Outcome.OPEN}:
        return Verdict.UNMEASURED
    if outcomes == {Outcome.FOR}:
        return Verdict.HOLDS
    if outcomes <= {Outcome.AGAINST, Outcome.OPEN}:
        return Verdict.FAILS
    return Verdict.LIMITED


def shortened(rows: pl.DataFrame) -> pl.Series:
    """Say of each row whether its training had less than the length of its recipe, in epochs or in seconds."""
    columns = rows.select(
        "profile",
        "dataset",
        "architecture",
        "objective",
        pl.col("recipe").str.split(",").list.first(),
        pl.col("config").str.json_path_match("$.config.epochs").cast(pl.Int64, strict=False),
        pl.col("config").str.json_path_match("$.config.max_seconds").alias("seconds"),
    )
    return pl.Series([_is_shortened(*row) for row in columns.rows()], dtype=pl.Boolean)


def _is_shortened(
    profile: str, dataset: str, architecture: str, objective: str, recipe: str, epochs: int | None, seconds: str | None
) -> bool:
    if objective == "closed-form":
        return False
    return profile == "quick" or seconds is not None or epochs != _epochs(dataset, architecture, objective, recipe)


@cache
def _epochs(dataset: str, architecture: str, objective: str, recipe: str) -> int | None:
    """Length of a recipe; None for a row that names no recipe or network of this version."""
    try:
        return configuration(dataset, architecture, objective, recipe).training.epochs
    except (InputError, KeyError):
        return None


def keys(*cells: str | Sequence[str]) -> tuple[str, ...]:
    """Put keys of cells, single or several, into one tuple, each once, in order."""
    flat = [key for some in cells for key in ([some] if isinstance(some, str) else some)]
    return tuple(dict.fromkeys(flat))
