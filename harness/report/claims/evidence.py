"""What a claim is, what speaks for it or against it, and how that becomes a verdict."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import polars as pl


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
    "Every comparison that the rows allow counts as for, partly, against or open. If no comparison is decided, the "
    "claim is not measured; if all are for it, it holds; if all that are decided are against it, it does not hold "
    "here; in every other case it holds with a limit. A training that was cut short (the quick profile, or less than "
    "the length of its recipe) may still improve. Where such a training loses a comparison, that counts as open "
    "instead of against the claim, and as partly instead of for it."
)
"""What `judge` does, in words for the reader."""


QUESTIONS = FASTER, AS_GOOD, USE, AFTER = (
    "Is it faster, from which D, against whom?",
    "Is it as good?",
    "What should I use?",
    "What can I do once it is trained?",
)
"""What a reader asks, in the order of the report: every claim answers one of them."""


@dataclass(frozen=True)
class Evidence:
    """One comparison.

    Args:
        outcome: What the comparison says of the claim.
        short: The comparison in a few words, with its main number.
        text: The comparison with all its numbers, measured or published.
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
        name: A short name, for links.
        title: What is claimed, in one sentence.
        published: What the paper reports for the claim.
        rule: What makes a comparison count for or against the claim, with the thresholds.
        command: The command that measures the claim.
        compare: From rows with the columns of `harness.results.derived` to the comparisons, the most telling first.
        question: Which of `QUESTIONS` the claim answers.
        figure: The name of the one figure that shows the claim, as a pattern of `fnmatch`; empty if none does.
    """

    name: str
    title: str
    published: str
    rule: str
    command: str
    compare: Callable[[pl.DataFrame], list[Evidence]]
    question: str
    figure: str = ""


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


def keys(*cells: Iterable[str]) -> tuple[str, ...]:
    """Put several lists of cells' keys into one tuple, each key once, in order."""
    return tuple(dict.fromkeys(itertools.chain(*cells)))
