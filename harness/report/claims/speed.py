"""Seconds an iteration, and seconds to a likelihood: score matching beside all that maximises the likelihood."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from harness.methods.families import EXACT, FREE, LIKELIHOOD_OF_DENSE, MATCHED, RESTRICTED
from harness.paper import published
from harness.paper.recipes import PUBLISHED_LAYERS
from harness.report.claims.evidence import Evidence, Outcome, keys, of_version
from harness.report.tables.text import text_of
from harness.report.tables.trainings import STRUCTURE, reached_levels
from harness.results.statistics import LEVEL, holm, log_slope, paired_ratio

LARGE = 784
"""Smallest D at which seconds an iteration say something of the products, and not of the dispatch of operations."""
SLOPE = 0.25
"""How far a log-log slope may be from the exponent it stands for; twice that for 3, as the batch's products are D^2."""
POINTS = 3
"""How many sizes a slope needs."""
PAIRS = 5
"""How many repetitions two methods must have taken in turns before one is called faster."""
FULL = 0.5
"""Share of the methods of the fullest run that another run must time to count: it might miss a strong opponent."""

_MACHINE = ["architecture", "B", "dtype", "device", "threads", "cpu", "gpu", "commit"]
_LEVEL = ["dataset", "architecture", "base", "L", "residual", "project"]
_PAPERS = ("ebflow-dsm", "ebflow-ssm")


def speedup(rows: pl.DataFrame) -> list[Evidence]:
    """Compare the fastest score matching of dense layers with the fastest method of every likelihood family."""
    evidence = []
    for run, family, duels in _fought(rows, EXACT, FREE, RESTRICTED):
        large = [duel for duel in duels if duel.size >= LARGE]
        last = large[-1]
        outcome = Outcome.AGAINST
        if last.faster:
            outcome = Outcome.FOR if all(duel.faster for duel in large) else Outcome.PARTLY
        ratios = _listed([(duel.size, duel.ratio) for duel in duels])
        text = (
            f"{run.where}: the fastest method of the family {family} takes {ratios} as long as the fastest score "
            f"matching. At D = {last.size:,} these are {last.rival} and {last.own}, {last.times}."
        )
        factors = _published_factors(run.architecture, "dsm") if family == EXACT else {}
        if goals := [(duel.size, factors[duel.size]) for duel in duels if duel.size in factors]:
            text += f" The paper reports {_listed(goals)} for DSM on a GPU."
        short = f"{run.architecture}, {family}: {last.rival} takes {_factor(last.ratio)} times as long as {last.own}"
        short = f"{short} at D = {last.size:,}"
        evidence.append(Evidence(_if_enough(outcome, large), short, text, run.cells(duels), family))
    return evidence


def without_matching(rows: pl.DataFrame) -> list[Evidence]:
    """Compare the fastest likelihood training of dense layers that needs no determinant at every step."""
    evidence = []
    for run, _, duels in _fought(rows, FREE):
        large = [duel for duel in duels if duel.size >= LARGE]
        last = large[-1]
        outcome = Outcome.FOR if last.faster else Outcome.PARTLY
        if not any(duel.faster for duel in large):
            outcome = Outcome.AGAINST
        ratios = _listed([(duel.size, duel.ratio) for duel in duels])
        text = (
            f"{run.where}: maximum likelihood of unrestricted layers without a determinant at every step takes "
            f"{ratios} as long as the fastest score matching ({last.rival} and {last.own} at D = {last.size:,}: "
            f"{last.times})."
        )
        short = f"{run.architecture}: {last.rival} takes {last.ratio:.0%} of {last.own} at D = {last.size:,}"
        evidence.append(Evidence(_if_enough(outcome, large), short, text, run.cells(duels), "time"))
    return evidence


def to_level(rows: pl.DataFrame) -> list[Evidence]:
    """Compare the time of score matching to a level of the validation likelihood with that of maximum likelihood.

    Seconds are the steps of a training times the seconds of an iteration in the fullest run of timings, so that no
    other load of the machine is in them. A training that refreshed more often until then has as many more dear steps.
    """
    facts = ["base", "residual", "project", "objective", "family", "shortened"]
    steps = pl.col("steps to it")
    reached = (
        _looks(rows)
        .group_by([*STRUCTURE, "bits/dim"], maintain_order=True)
        .agg(
            pl.when(steps.null_count() == 0).then(steps.mean()).alias("steps"),
            pl.col("before").fill_null(0).mean(),
            pl.col("steps in all").max(),
            pl.col("refreshed").mean(),
        )
        .join(
            rows.filter(metric="validation_curve").group_by(STRUCTURE).agg(pl.col(*facts).first(), "cell"),
            on=STRUCTURE,
            nulls_equal=True,
        )
        .join(_seconds(rows), on=["method", "architecture", "L", "D", "B"])
        .with_columns(each=pl.coalesce(pl.col("cheap") + pl.col("refreshed") * pl.col("refresh"), "each"))
        .with_columns(seconds=pl.col("steps") * pl.col("each"), before=pl.col("before") * pl.col("each"))
        # Of those that never get there, one of full length and the longest comes first.
        .sort(*_LEVEL, "bits/dim", "seconds", "shortened", -pl.col("steps in all"), "method", "recipe", nulls_last=True)
    )
    evidence = []
    for (level, *_), group in reached.group_by(["bits/dim", *_LEVEL], maintain_order=True):
        rivals = group.filter(pl.col("family").is_in(LIKELIHOOD_OF_DENSE)).head(1).to_dicts()
        matched = group.filter(family=MATCHED).unique("objective", keep="first", maintain_order=True).to_dicts()
        for ours, theirs in itertools.product(matched, rivals):
            if {ours["seconds"], theirs["seconds"]} <= {None, 0.0}:  # never, or from the start
                continue
            nats = float(str(level)) * math.log(2) * ours["D"]
            named = f"{ours['dataset']} {ours['architecture']}, recipe {ours['base']}"
            text = (
                f"{named}{of_version(ours)}: a validation NLL of {nats:,.0f} nats ({text_of(level)} bits/dim) "
                f"is reached by {_arrival(ours)}, by {_arrival(theirs)}."
            )
            short = f"{named}, {nats:,.0f} nats: {_brief(ours)}, {_brief(theirs)}"
            cells = keys(ours["cell"], theirs["cell"])
            evidence.append(Evidence(_sooner(ours, theirs), short, text, cells, ours["objective"]))
    return evidence


def scaling(rows: pl.DataFrame) -> list[Evidence]:
    """Compare the log-log slopes of the median time over D, and over L, of score matching and maximum likelihood."""
    evidence = []
    timings = _full(_timings(rows))
    for _, group in timings.filter(pl.col("D") >= LARGE).group_by([*_MACHINE, "L"], maintain_order=True):
        first = group.row(0, named=True)
        exact = _slope(group, "ebflow-ml", "D")
        for method in (*_PAPERS, "ebflow-aml"):
            own = _slope(group, method, "D")
            if own is None or exact is None:
                continue
            cells = keys(group.filter(pl.col("method").is_in([method, "ebflow-ml"]))["cell"])
            if method in _PAPERS:
                steep = own <= 2 + SLOPE and exact >= 3 - 2 * SLOPE
                outcome = Outcome.FOR if steep else Outcome.PARTLY if exact - own >= SLOPE else Outcome.AGAINST
            else:  # maximum likelihood need not grow as D^3
                outcome = Outcome.AGAINST if exact - own >= SLOPE else Outcome.FOR
            slopes = f"the time of {method} grows as D to the power {own:.2f}, of ebflow-ml {exact:.2f}"
            short = f"{first['architecture']}: slopes in D {own:.2f} ({method}) and {exact:.2f} (ebflow-ml)"
            kind = "D" if method in _PAPERS else FREE
            evidence.append(Evidence(outcome, short, f"{_where(first)}, D from {LARGE}: {slopes}.", cells, kind))
    for _, group in timings.group_by([*_MACHINE, "D"], maintain_order=True):
        first = group.row(0, named=True) | {"L": None}
        for method in ("ebflow-dsm", "ebflow-ml"):
            slope = _slope(group, method, "L")
            if slope is not None:
                outcome = Outcome.FOR if abs(slope - 1) <= SLOPE else Outcome.AGAINST
                text = f"{_where(first)}, D = {first['D']:,}: the time of {method} grows as L to the power {slope:.2f}."
                short = f"{first['architecture']}: slope in L {slope:.2f} ({method})"
                evidence.append(Evidence(outcome, short, text, keys(group.filter(method=method)["cell"]), "L"))
    return evidence


@dataclass(frozen=True)
class _Duel:
    """The fastest score matching and the fastest method of a family at one D, which took turns in one run."""

    size: int
    own: str
    rival: str
    ratio: float
    times: str
    faster: bool
    pairs: int


@dataclass(frozen=True)
class _Run:
    """The fullest timings of one architecture on one machine, one cell a D, at the depth of the paper."""

    architecture: str
    where: str
    timings: pl.DataFrame
    repetitions: dict[tuple[str, str], dict[int, float]]

    def duels(self, family: str) -> Iterator[_Duel]:
        """Yield one duel a D, from the smallest on; who is faster is corrected for all pairs of both families."""
        for (cell, size), group in self.timings.sort("D", "value").group_by("cell", "D", maintain_order=True):
            own = group.filter(family=MATCHED, linear="dense").to_dicts()
            rivals = group.filter(family=family).to_dicts()
            if not own or not rivals:
                continue
            pairs = [(one, other) for one in own for other in rivals]
            compared = [self._ratio(str(cell), one["method"], other["method"]) for one, other in pairs]
            (ratio, p, count), *others = compared
            corrected = holm([p, *(other[1] for other in others)])[0]
            times = f"{text_of(1e3 * rivals[0]['value'])} ms against {text_of(1e3 * own[0]['value'])}"
            faster = ratio > 1 and corrected < 1 - LEVEL
            yield _Duel(int(str(size)), own[0]["method"], rivals[0]["method"], ratio, times, faster, count)

    def _ratio(self, cell: str, own: str, rival: str) -> tuple[float, float, int]:
        """Return the paired ratio of a rival's seconds over a method's own, its p-value, and the number of pairs."""
        ours, theirs = (self.repetitions.get((cell, method), {}) for method in (own, rival))
        common = sorted(ours.keys() & theirs.keys())
        if not common:
            values = dict(self.timings.filter(cell=cell).select("method", "value").rows())
            return values[rival] / values[own], 1.0, 0
        compared = paired_ratio([theirs[number] for number in common], [ours[number] for number in common])
        return compared.estimate.value, 1.0 if compared.p is None else compared.p, len(common)

    def cells(self, duels: list[_Duel]) -> tuple[str, ...]:
        """Return the keys of the cells of some duels."""
        sizes = [duel.size for duel in duels]
        return keys(self.timings.filter(pl.col("D").is_in(sizes))["cell"])


def _fought(rows: pl.DataFrame, *families: str) -> Iterator[tuple[_Run, str, list[_Duel]]]:
    """Yield the duels with each family in each run, where one of them is at a large D."""
    for run, family in itertools.product(_runs(rows), families):
        duels = list(run.duels(family))
        if duels and duels[-1].size >= LARGE:
            yield run, family, duels


def _if_enough(outcome: Outcome, duels: list[_Duel]) -> Outcome:
    """Return the outcome of duels, or that it is open if one of them has too few repetitions."""
    return Outcome.OPEN if any(duel.pairs < PAIRS for duel in duels) else outcome


def _runs(rows: pl.DataFrame) -> Iterator[_Run]:
    """Yield what was timed of each architecture on each machine, the largest D first."""
    timings = _full(_timings(rows))
    numbered = rows.filter(metric="seconds_of_repetition", status="ok").drop_nulls("iteration")
    repetitions = {
        (str(cell), str(method)): dict(own.select("iteration", "value").rows())
        for (cell, method), own in numbered.group_by("cell", "method")
    }
    for (architecture, *_), group in timings.group_by(_MACHINE, maintain_order=True):
        group = group.filter(L=PUBLISHED_LAYERS.get(str(architecture), 0))
        if not group.is_empty():
            yield _Run(str(architecture), _where(group.row(0, named=True)), group, repetitions)


def _timings(rows: pl.DataFrame) -> pl.DataFrame:
    """Return finished timings, the largest D first; those of asv are left out, where methods do not take turns."""
    return (
        rows.filter(pl.col("metric") == "seconds_per_iteration", pl.col("status") == "ok", ~pl.col("compiled"))
        .filter(pl.col("kind").ne_missing("asv"))
        .with_columns(methods=pl.col("method").n_unique().over("cell"))
        .sort("architecture", "D", "L")
        .sort(pl.col("D").max().over(_MACHINE), descending=True, maintain_order=True)
    )


def _full(timings: pl.DataFrame) -> pl.DataFrame:
    """Keep one run of each problem on each machine: the one with most methods, the newest of several.

    Runs that time less than `FULL` of the methods of the fullest run of their architecture are left out.
    """
    fullest = pl.col("methods").max().over("architecture")
    return timings.filter(pl.col("methods") >= FULL * fullest).filter(
        pl.col("cell") == pl.col("cell").sort_by("methods", "started_at").last().over(*_MACHINE, "D", "L")
    )


def _seconds(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the seconds of an iteration, as ``each``, by method, architecture, L, D and B; L is the paper's.

    Those of one architecture, D and B are of one run, the one with most methods, the newest of several. A step
    without a refresh takes ``cheap`` seconds, and one that refreshes all layers ``refresh`` more.
    """
    depth = pl.col("architecture").replace_strict(PUBLISHED_LAYERS, default=0, return_dtype=pl.Int64)
    timings = _full(_timings(rows)).filter(pl.col("L") == depth)
    fullest = pl.col("cell").sort_by("methods", "started_at").last().over("architecture", "D", "B")
    steps = timings.filter(pl.col("cell") == fullest)
    for name in ("seconds_of_refresh_step", "steps_per_refresh"):
        own = rows.filter(metric=name, status="ok").select("cell", "method", pl.col("value").alias(name))
        steps = steps.join(own, on=["cell", "method"], how="left")
    dear, period = pl.col("seconds_of_refresh_step"), pl.col("steps_per_refresh")
    cheap = (pl.col("value") - dear / period) / (1 - 1 / period)
    return steps.select("method", "architecture", "L", "D", "B", each="value", cheap=cheap, refresh=dear - cheap)


def _looks(rows: pl.DataFrame) -> pl.DataFrame:
    """Return what `reached_levels` does, the steps of the last look before, and the share of steps that refreshed."""
    key = [*STRUCTURE, "seed"]
    looks = rows.filter(metric="validation_curve").select(*key, "iteration")
    reached = reached_levels(rows)
    before = (
        reached.join(looks, on=key, nulls_equal=True)
        .filter(pl.col("iteration") < pl.col("steps to it"))
        .group_by([*key, "bits/dim"])
        .agg(pl.col("iteration").max().alias("before"))
    )
    refreshes = rows.filter(metric="refreshes").rename({"iteration": "steps to it", "value": "refreshed"})
    share = refreshes.select(*key, "steps to it", pl.col("refreshed") / pl.col("steps to it"))
    for frame, name in ((before, "bits/dim"), (share, "steps to it")):
        reached = reached.join(frame, on=[*key, name], how="left", nulls_equal=True, maintain_order="left")
    return reached


def _sooner(ours: dict[str, Any], theirs: dict[str, Any]) -> Outcome:
    """Weigh who reaches a level first, between the looks before and at it; what was cut short may still reach it."""
    if theirs["seconds"] is None:
        return Outcome.OPEN if theirs["shortened"] else Outcome.FOR
    if ours["seconds"] is None:
        return Outcome.OPEN if ours["shortened"] else Outcome.AGAINST
    if ours["seconds"] <= theirs["before"]:
        return Outcome.FOR
    return Outcome.AGAINST if theirs["seconds"] <= ours["before"] else Outcome.OPEN


def _arrival(run: dict[str, Any]) -> str:
    if run["seconds"] is None:
        return f"{run['method']} never in {run['steps in all']:,.0f} steps"
    each = f"{run['steps']:,.0f} steps of {text_of(1e3 * run['each'])} ms"
    return f"{run['method']} between {run['before']:,.0f} and {run['seconds']:,.0f} s ({each})"


def _brief(run: dict[str, Any]) -> str:
    return f"{run['method']} " + ("never" if run["seconds"] is None else f"{run['seconds']:,.0f} s")


def _slope(timings: pl.DataFrame, method: str, column: str) -> float | None:
    """Return the log-log slope of a method's time, if it has enough sizes."""
    curve = timings.filter(method=method)
    if curve[column].n_unique() < POINTS:
        return None
    return log_slope(curve[column].to_list(), curve["value"].to_list()).value


def _published_factors(architecture: str, objective: str) -> dict[int, float]:
    """Return how many times longer maximum likelihood takes than the objective as published, by D.

    The factors are those of the figure, or else of the table, whose MNIST column fits the figure at 1 x 32 x 32 and not
    at 28 x 28.
    """

    def numbers(table: pl.DataFrame, name: str, column: str, value: str) -> dict[Any, float]:
        return dict(table.filter(architecture=architecture, objective=name).select(column, value).rows())

    both = (objective, "ml")
    rates, ml_rates = (numbers(published.throughput(), name, "dataset", "batches_per_second") for name in both)
    times, ml_times = (numbers(published.runtime(), name, "D", "published_seconds") for name in both)
    sizes = {"mnist": 1024, "cifar10": 3072}
    factors = {size: rates[dataset] / ml_rates[dataset] for dataset, size in sizes.items() if dataset in rates}
    return factors | {size: ml_times[size] / times[size] for size in times}


def _where(row: dict[str, Any]) -> str:
    depth = "" if row["L"] is None else f", L = {row['L']}"
    machine = f"{row['dtype']} on {row['gpu'] or row['cpu']}, threads = {row['threads']}"
    return f"{row['architecture']}{depth}, B = {row['B']}, {machine}"


def _listed(points: list[tuple[int, float]]) -> str:
    (first_size, first), *rest = points
    others = [f"{_factor(ratio)} ({size:,})" for size, ratio in rest]
    return ", ".join([f"{_factor(first)} times (D = {first_size:,})", *others])


def _factor(ratio: float) -> str:
    if ratio < 1:
        return f"{ratio:.2f}"
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"
