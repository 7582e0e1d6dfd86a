"""Pages of prose whose numbers are looked up in a store, so that none is copied by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, StrictUndefined

from harness.errors import InputError, unknown
from harness.paper import published
from harness.report.claims import CLAIMS, VERDICT_RULE, Claim, Evidence, Outcome, Verdict, telling
from harness.report.tables.columns import is_noisy
from harness.report.tables.index import TABLES
from harness.results.statistics import Estimate, mean_interval, paired_difference, paired_ratio


class Numbers:
    """Looks numbers up in the rows of `Store.frame` by their columns; each lookup raises unless one number matches."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self.rows = rows.with_columns(noisy=is_noisy())
        self._tables: dict[tuple[str, str, str], pl.DataFrame] = {}
        self._weighings: dict[str, tuple[Verdict, list[Evidence]]] = {}

    def value(self, metric: str, column: str = "value", **columns: Any) -> float:
        """Return the value, or another number, of the one row of a metric whose columns are as given."""
        return float(_only(self.rows.filter(status="ok"), column, {"metric": metric} | columns))

    def nll(self, experiment: str, method: str, **columns: Any) -> float:
        """Return a test NLL in nats a sample, of the profile paper unless `columns` says otherwise."""
        return self.value("nll", **{"profile": "paper", "experiment": experiment, "method": method} | columns)

    def mean(self, metric: str, **columns: Any) -> Estimate:
        """Return the mean of a metric over the seeds of the training whose columns are as given."""
        return mean_interval(list(self._by_seed(metric, columns).values()))

    def gap(self, metric: str, training: dict[str, Any], other: dict[str, Any]) -> Estimate:
        """Return a metric of a training minus that of another one, paired over the seeds that both have.

        The trainings are given by their columns.

        Raises:
            InputError: if a training has no row, a seed of one has two values, or no seed is in both.
        """
        ours, theirs = self._by_seed(metric, training), self._by_seed(metric, other)
        common = sorted(ours.keys() & theirs.keys())
        if not common:
            raise InputError(f"no seed is in both of {training} and {other}")
        return paired_difference([ours[seed] for seed in common], [theirs[seed] for seed in common]).estimate

    def _by_seed(self, metric: str, columns: dict[str, Any]) -> dict[int, float]:
        values = _where(self.rows.filter(status="ok", metric=metric), columns).select("seed", "value").unique()
        if values.is_empty() or values["seed"].is_duplicated().any():
            raise InputError(f"{len(values)} values of {metric} match {columns}, where one of each seed must")
        return dict(values.sort("seed").rows())

    def ms(self, method: str, D: int, **columns: Any) -> float:
        """Return median milliseconds an iteration, of the uncompiled fc with L = 2 unless `columns` says otherwise."""
        usual: dict[str, Any] = {"experiment": "runtime", "architecture": "fc", "L": 2, "compiled": False}
        return 1000 * self.value("seconds_per_iteration", **usual | {"method": method, "D": D} | columns)

    def ratio(self, method: str, other: str, D: int, **columns: Any) -> float:
        """Return the seconds of an iteration of a method over those of another, paired over the repetitions of a run.

        The run is that of the uncompiled fc with L = 2 unless `columns` says otherwise.
        """
        usual: dict[str, Any] = {"experiment": "runtime", "architecture": "fc", "L": 2, "compiled": False, "D": D}
        rows = self.rows.filter(metric="seconds_of_repetition", status="ok", **usual | columns)
        ours, theirs = (dict(rows.filter(method=name).select("iteration", "value").rows()) for name in (method, other))
        if not ours.keys() & theirs.keys():
            raise InputError(f"no repetitions of {method} and {other} at D = {D} are in one run")
        common = sorted(ours.keys() & theirs.keys())
        return paired_ratio([ours[turn] for turn in common], [theirs[turn] for turn in common]).estimate.value

    def exponent(self, method: str, low: int, high: int) -> float:
        """Return the exponent with which the time of an iteration grows from one D to another."""
        return math.log(self.ms(method, high) / self.ms(method, low)) / math.log(high / low)

    def table(self, name: str, experiment: str, profile: str) -> pl.DataFrame:
        """Build one of the report's tables from the rows of an experiment and a profile."""
        if (name, experiment, profile) not in self._tables:
            builds = {table.name: table.build for table in TABLES}
            if name not in builds:
                raise unknown("table", name, builds)
            self._tables[name, experiment, profile] = builds[name](
                self.rows.filter(experiment=experiment, profile=profile)
            )
        return self._tables[name, experiment, profile]

    def entry(self, name: str, column: str, experiment: str, profile: str = "paper", **columns: Any) -> Any:
        """Return one entry of a table of the report, in the one row whose columns are as given."""
        return _only(self.table(name, experiment, profile), column, columns)

    def longest(self, dataset: str, architecture: str, *methods: str) -> dict[str, Any] | None:
        """Return the longest training of methods by the published recipe; None if there is none.

        Returns:
            Its ``method``, ``epochs`` and ``value``, the test NLL in nats: the mean over ``seeds``.
        """
        trained = self._trained(dataset, architecture).filter("EMA", pl.col("method").is_in(methods), base="paper")
        return next(trained.sort("epochs", descending=True).iter_rows(named=True), None)

    def best(self, dataset: str, architecture: str) -> dict[str, Any] | None:
        """Return the tuned training of a network's dense layers with the lowest test NLL, as `longest` does.

        Networks of another depth or activation than the recipe's are left out, and smooth noise, whose NLL is another
        bound.
        """
        tuned = pl.col("base").str.starts_with("tuned") & pl.col("smooth_noise").is_null() & ~pl.col("other_network")
        trained = self._trained(dataset, architecture).filter(tuned, linear="dense")
        return next(trained.sort("value").iter_rows(named=True), None)

    def _trained(self, dataset: str, architecture: str) -> pl.DataFrame:
        """Return the mean test NLLs of iterated trainings over their seeds, with their epochs."""
        config = pl.col("config").str
        epochs = config.json_path_match("$.settings.config.epochs").cast(pl.Int64, strict=False)
        return (
            self.rows.filter("MaP", metric="nll", status="ok", dataset=dataset, architecture=architecture)
            .filter(pl.col("objective") != "closed-form")
            .with_columns(epochs=epochs)
            .group_by(
                *("experiment", "method", "linear", "base", "smooth_noise", "EMA", "recipe", "epochs", "other_network"),
                maintain_order=True,
            )
            .agg(pl.col("value").mean(), seeds=pl.col("seed").n_unique())
        )

    def published(self, architecture: str, objective: str, column: str = "published_nll", **columns: Any) -> float:
        """Return a published number on MNIST: an NLL in nats, or another `column` of the published likelihoods."""
        wanted = {"dataset": "mnist", "architecture": architecture, "objective": objective} | columns
        tables = (published.likelihood(), published.throughput(), published.ablation())
        frame = next((table for table in tables if {column, *columns} <= set(table.columns)), tables[0])
        return float(_only(frame, column, wanted))

    def claims(self) -> tuple[Claim, ...]:
        """Return the claims in their order, each with name, title, what is published, rule and command."""
        return CLAIMS

    def verdict_rule(self) -> str:
        """Return how comparisons become a verdict, in words."""
        return VERDICT_RULE

    def verdict(self, claim: str) -> str:
        """Return the verdict on a claim, by its name, that the rows give."""
        return str(self._weighed(claim)[0])

    def decided(self, claim: str, kind: str = "") -> list[Evidence]:
        """Return the comparisons that decide a claim, of one kind if one is named; at least one.

        Raises:
            InputError: if no such comparison is decided.
        """
        found = [one for one in self._weighed(claim)[1] if one.outcome is not Outcome.OPEN and kind in ("", one.kind)]
        if not found:
            raise InputError(f"the rows decide no comparison {kind} of the claim {claim}")
        return found

    def told(self, claim: str) -> str:
        """Return the first comparison of each outcome of a claim, in a few words each; open ones if none is decided."""
        return "; ".join(one.short for one in telling(self._weighed(claim)[1]))

    def _weighed(self, name: str) -> tuple[Verdict, list[Evidence]]:
        if name not in self._weighings:
            claims = {claim.name: claim for claim in CLAIMS}
            if name not in claims:
                raise unknown("claim", name, claims)
            self._weighings[name] = claims[name].weigh(self.rows)
        return self._weighings[name]

    def prior(self, method: str) -> float:
        """Return the NLL in nats that other people published for a method of theirs on MNIST's fc."""
        named = published.priors().filter(pl.col("method").str.starts_with(f"{method} ("))
        return float(_only(named, "published_nll", {"dataset": "mnist", "architecture": "fc"}))


def write_page(template: Path, rows: pl.DataFrame) -> Path:
    """Fill in a page of prose and write it beside its template, under the template's name without ``.j2``.

    Raises:
        InputError: if the file is no template that can be read, or a lookup does not match exactly one number.
    """
    if template.suffix != ".j2" or not template.is_file():
        raise InputError(f"{template} is no template of a page; give a file whose name ends in .j2")
    page = template.with_suffix("")
    page.write_text(render_page(template.read_text(), rows))
    return page


def render_page(template: str, rows: pl.DataFrame) -> str:
    """Fill a page of prose, a Jinja template, with numbers of the rows.

    Args:
        template: A Jinja template that calls the methods of `Numbers` by name. Its filters `fixed`, for a number, and
            `interval`, for an estimate, take the number of decimals to write.
        rows: The rows that the numbers come from.

    Raises:
        InputError: if a lookup of the template does not match exactly one number.
    """
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {"fixed": _fixed, "interval": _interval}
    numbers = Numbers(rows)
    lookups = {name: getattr(numbers, name) for name in vars(Numbers) if not name.startswith("_")}
    return environment.from_string(template).render(lookups)


def _fixed(number: float, places: int = 1) -> str:
    return f"{number:,.{places}f}"


def _interval(estimate: Estimate, places: int = 1) -> str:
    """Write an estimate, and in brackets its interval if it has one."""
    value = _fixed(estimate.value, places)
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({_fixed(estimate.low, places)} to {_fixed(estimate.high, places)})"


def _where(frame: pl.DataFrame, wanted: dict[str, Any]) -> pl.DataFrame:
    """Return the rows whose columns are as wanted; raise if there is no such column."""
    missing = sorted(wanted.keys() - set(frame.columns))
    if missing:
        raise InputError(f"there is no column {', '.join(missing)}")
    return frame.filter(**wanted) if wanted else frame


def _only(frame: pl.DataFrame, column: str, wanted: dict[str, Any]) -> Any:
    if column not in frame.columns:
        raise InputError(f"there is no column {column}")
    values = _where(frame, wanted)[column]
    values = values.unique() if wanted else values
    if len(values) != 1 or values[0] is None:
        raise InputError(f"{len(values)} values of {column} match {wanted}, where one must: {values.to_list()[:5]}")
    return values[0]
