"""What a claim is, what speaks for it or against it, and how that becomes a verdict."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import polars as pl

from harness.errors import one_line


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
    MIXED = "holds in part"
    FAILS = "does not hold here"
    UNMEASURED = "not enough measured"


VERDICT_RULE = (
    "Every comparison that the rows allow counts as for, partly, against or open; an open one decides nothing. If "
    "every decided comparison is for the claim, it holds; if some are for it only partly and none is against it, it "
    "holds with a limit; if some are against it, it holds in part; if all are, it does not hold here. If nothing is "
    "decided, or nothing of a kind that the claim needs, not enough is measured. A training that was cut short (the "
    "quick profile, or less than the length of its recipe) may still improve: where it loses a comparison, that "
    "counts as open instead of against the claim, and as partly instead of for it, or as open too if it took fewer "
    "steps than the winner. A training that lost a seed decides nothing, whatever its other seeds reach. Trainings of "
    "different versions of this project are not compared."
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
        kind: Which kind of comparison it is, of a claim that needs several.
    """

    outcome: Outcome
    short: str
    text: str
    cells: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Args:
        name: A short name, for links.
        title: What is claimed, in one sentence.
        published: What the paper reports for the claim.
        rule: What makes a comparison count for or against the claim, with the thresholds.
        commands: The commands that measure the claim, the first one most of it.
        compare: From rows with the columns of `harness.results.derived` to the comparisons, the most telling first.
        question: Which of `QUESTIONS` the claim answers.
        figure: The name of the one figure that shows the claim, as a pattern of `fnmatch`; empty if none does.
        short: What is claimed, in a few words.
        published_short: The published number, in a few words.
        kinds: The kinds of comparisons without which there is no verdict; none if any comparison will do.
    """

    name: str
    title: str
    published: str
    rule: str
    commands: tuple[str, ...]
    compare: Callable[[pl.DataFrame], list[Evidence]]
    question: str
    short: str
    published_short: str
    figure: str = ""
    kinds: tuple[str, ...] = ()

    def weigh(self, rows: pl.DataFrame) -> tuple[Verdict, list[Evidence]]:
        """Return the verdict that rows with the columns of `harness.results.derived` give, and what it comes from."""
        try:
            evidence = self.compare(rows)
        except Exception as error:  # one odd row may surprise in any place, and must not take the other claims along
            evidence = [Evidence(Outcome.OPEN, why := f"cannot be judged from these rows: {one_line(error)}", why, ())]
        return judge(evidence, self.kinds), evidence


def judge(evidence: Iterable[Evidence], kinds: Iterable[str] = ()) -> Verdict:
    """Return the verdict by `VERDICT_RULE`, for a claim that needs comparisons of these kinds."""
    decided = [one for one in evidence if one.outcome is not Outcome.OPEN]
    outcomes = {one.outcome for one in decided}
    if not decided or not set(kinds) <= {one.kind for one in decided}:
        return Verdict.UNMEASURED
    if outcomes == {Outcome.FOR}:
        return Verdict.HOLDS
    if outcomes == {Outcome.AGAINST}:
        return Verdict.FAILS
    return Verdict.MIXED if Outcome.AGAINST in outcomes else Verdict.LIMITED


def telling(evidence: Iterable[Evidence]) -> list[Evidence]:
    """Return the first comparison of each outcome: of the decided ones, or of the open ones if none is decided."""
    found = list(evidence)
    found = [one for one in found if one.outcome is not Outcome.OPEN] or found
    first = {one.outcome: one for one in reversed(found)}
    return [first[outcome] for outcome in Outcome if outcome in first]


def of_version(training: Mapping[str, Any]) -> str:
    """Return with which version of this project something was trained, to be put after its name; nothing if unknown."""
    return f", version {training['project']}" if training["project"] else ""


def keys(*cells: Iterable[str]) -> tuple[str, ...]:
    """Put several lists of cells' keys into one tuple, each key once, in order."""
    return tuple(dict.fromkeys(itertools.chain(*cells)))
