"""Cells: the units of work that are run, stored and resumed. One measures speed, the other likelihood."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from harness import __version__, datasets
from harness.checkpoints import TrainingCheckpoint
from harness.cost import optimizer_bytes
from harness.datasets import Dataset, Identity, LogitPreprocessing
from harness.density import refusal
from harness.environment import Environment, capture
from harness.errors import InputError, one_line
from harness.likelihood import Likelihood, fit_and_score, without_map
from harness.machine import COPY_METRIC, CUBE_METRIC, REFERENCE_METRIC, product_metric
from harness.method import Method
from harness.parallel import processes
from harness.pictures import Arrays
from harness.precision import stored
from harness.problem import Problem
from harness.registry import registry, why_unavailable
from harness.results import DRIFT_METRIC, NOISY, Row, Store, cell_key
from harness.runtime import Timing, measure
from harness.statistics import NOISY_DRIFT, Estimate, drift, mean_interval, median_interval
from harness.training import Divergence, TrainingConfig

__all__ = [
    "Cell",
    "Keep",
    "LikelihoodCell",
    "Progress",
    "RuntimeCell",
    "check_fit",
    "finished_rows",
    "forget",
    "identity_of",
    "load_data",
    "row_maker",
    "single",
]

Progress = Callable[[int, int, str], None]
"""Told how many steps of the running cell are done, of how many, and a note."""

Keep = Callable[[Arrays], None]
"""Given the arrays that are to lie beside a cell's rows."""


def forget(arrays: Arrays) -> None:
    """Keep none."""


class Cell(Protocol):
    """One unit of work."""

    experiment: str
    profile: str

    @property
    def title(self) -> str:
        """What the progress bar says."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether the result depends on the time that things take, so that the cell needs the machine to itself."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what determines the result; equal identities share a file."""
        ...

    def check(self) -> None:
        """Raise the user's own mistakes, quickly, before anything is run.

        Raises:
            InputError: The shape does not fit the architecture, or the method cannot do what is asked.
        """
        ...

    def run(self, progress: Progress, keep: Keep = forget, resume: TrainingCheckpoint | None = None) -> list[Row]:
        """Measure; whatever a method does ends as a row.

        Args:
            progress: Told how far it is.
            keep: Given what it looks like, in arrays.
            resume: Where a training is saved and goes on from; for cells that train.
        """
        ...

    def without_result(self, status: str, reason: str) -> list[Row]:
        """Return the rows of a cell whose run could not end, with the reason."""
        ...


@dataclass(frozen=True)
class RuntimeCell:
    """Seconds an iteration of several methods on one problem, interleaved.

    Args:
        methods: Names.
        problem: What to build.
        repeats: Repetitions of every method.
    """

    experiment: str
    profile: str
    methods: tuple[str, ...]
    problem: Problem
    repeats: int
    config: TrainingConfig = field(default_factory=TrainingConfig)

    @property
    def title(self) -> str:
        """Architecture and size."""
        return f"{self.problem.architecture}, D = {self.problem.dimension}, L = {self.problem.layers}"

    @property
    def exclusive(self) -> bool:
        """It is a timing."""
        return True

    def identity(self) -> dict[str, Any]:
        """Everything but the time of day."""
        found = [registry().find(name) for name in self.methods]
        environment = capture(self.problem.device, {library for method in found for library in method.requires})
        return identity_of(self, environment)

    def check(self) -> None:
        """Try every method's build without computing anything."""
        for name in self.methods:
            check_fit(registry().find(name), self.problem)

    def run(self, progress: Progress, keep: Keep = forget, resume: TrainingCheckpoint | None = None) -> list[Row]:
        """Time all methods and the machine."""
        found = [registry().find(name) for name in self.methods]
        reasons = {method.name: why_unavailable(method) for method in found}
        present = [method for method in found if reasons[method.name] is None]
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            progress(done, self.repeats * len(present), "")

        measured = measure(present, self.problem, self.repeats, self.config, tick)
        timings = {timing.method.name: timing for timing in measured.timings}
        rates = {rate.metric: median_interval(values) for rate, values in measured.rates}
        drifted = next((drift(values) for rate, values in measured.rates if rate.metric == REFERENCE_METRIC), None)
        rows = []
        for method in found:
            row = row_maker(self, method, self.problem, "normal")
            timing = timings.get(method.name)
            if timing is None:
                rows.append(row("seconds_per_iteration", "s", status="unavailable", reason=reasons[method.name]))
            elif timing.failure is not None:
                rows.append(row("seconds_per_iteration", "s", status="failed", reason=timing.failure))
            else:
                metrics = self._iteration_metrics(timing, {metric: rate.value for metric, rate in rates.items()})
                rows += [row(*parts, parameters=timing.parameters) for parts in metrics]
                # Kept one by one: methods are compared within a repetition.
                rows += [
                    row("seconds_of_repetition", "s", single(seconds), parameters=timing.parameters, iteration=number)
                    for number, seconds in enumerate(timing.seconds)
                ]
        row = row_maker(self, None, self.problem, "normal")
        rows += [row(rate.metric, rate.unit, rates[rate.metric]) for rate, _ in measured.rates]
        if drifted is not None:
            rows.append(row(DRIFT_METRIC, "1", single(drifted)))
            if drifted > NOISY_DRIFT:
                return [_noisy(row) for row in rows]
        return rows

    def without_result(self, status: str, reason: str) -> list[Row]:
        """One row a method."""
        return [
            row_maker(self, registry().find(name), self.problem, "normal")(
                "seconds_per_iteration", "s", status=status, reason=reason
            )
            for name in self.methods
        ]

    def _iteration_metrics(self, timing: Timing, rates: dict[str, float]) -> list[tuple[str, str, Estimate]]:
        """List metric, unit and value of everything that is known of one method's iteration."""
        metrics = [
            ("seconds_per_iteration", "s", median_interval(timing.seconds)),
            ("seconds_per_gradient", "s", median_interval(timing.gradient_seconds)),
            ("peak_memory", "B", single(timing.peak_bytes)),
        ]
        if self.config.compile:
            metrics.append(("seconds_of_first_iteration", "s", single(timing.first_seconds)))
        cost = timing.method.fc_cost
        if self.problem.architecture == "fc" and cost is not None:
            gradient = cost.seconds(self.problem, rates[product_metric(cost.rows)], rates.get(CUBE_METRIC, math.inf))
            item = stored(self.problem.dtype).itemsize
            moved = optimizer_bytes(timing.parameters, item, self.config.ema_decay is not None)
            metrics += [
                ("flops", "1", single(cost.flops(self.problem))),
                ("optimizer_bytes", "B", single(moved)),
                ("gradient_bound", "s", single(gradient)),
                ("iteration_bound", "s", single(gradient + moved / rates[COPY_METRIC])),
            ]
        return metrics


@dataclass(frozen=True)
class LikelihoodCell:
    """Test NLL of one method after training on one dataset.

    Args:
        method: Name.
        problem: Its shape is the dataset's.
        dataset: Name.
        draws: K, test passes with fresh noise.
        recipe: What the rows call the configuration.
        logit_alpha: Of an image dataset's logit, where it is not the dataset's own.
        preprocess: False moves scaling and logit into the model (the ablation of MaP).
        clean_batches: True trains on data without the preprocessing's noise: 2-D DSM, whose own noise of the same scale
            takes its place.
        data_dir: Where the data lie.
        download: Whether missing data may be fetched.
        checkpoint: Where to keep the best weights, or None.
    """

    experiment: str
    profile: str
    method: str
    problem: Problem
    dataset: str
    config: TrainingConfig
    draws: int
    recipe: str = "paper"
    logit_alpha: float | None = None
    preprocess: bool = True
    clean_batches: bool = False
    data_dir: Path | None = None
    download: bool = False
    checkpoint: Path | None = None

    @property
    def title(self) -> str:
        """Method, data and seed."""
        return f"{self.method} on {self.dataset}, {self.problem.architecture}, seed {self.problem.seed}"

    @property
    def exclusive(self) -> bool:
        """With a budget of seconds, what it reaches depends on what else runs."""
        return self.config.max_seconds is not None

    def identity(self) -> dict[str, Any]:
        """Everything but where files lie; what lies in a user's own file of data is part of it."""
        environment = capture(self.problem.device, registry().find(self.method).requires)
        own_data = datasets.fingerprint(self.dataset)
        identity = identity_of(self, environment, leave_out=("data_dir", "download", "checkpoint"))
        return identity if own_data is None else {**identity, "data": own_data}

    def check(self) -> None:
        """Try the method's build without computing anything."""
        problem = self.problem if self.preprocess else self.problem.replace(raw_pixel_alpha=1.0)
        check_fit(registry().find(self.method), problem)

    def run(self, progress: Progress, keep: Keep = forget, resume: TrainingCheckpoint | None = None) -> list[Row]:
        """Train and score; one row a metric."""
        method = registry().find(self.method)
        row = row_maker(self, method, self.problem, self.dataset)
        try:
            data = load_data(method, self.dataset, self.data_dir, self.download, self.logit_alpha)
        except InputError as error:
            return [row("nll", "nats", status="unavailable", reason=str(error))]
        data, problem = (data, self.problem) if self.preprocess else without_map(data, self.problem)
        batches = replace(data, preprocessing=Identity()) if self.clean_batches else data
        try:
            outcome = fit_and_score(
                method, problem, data, batches, self.config, self.draws, progress, self.checkpoint, resume
            )
        except Divergence as error:
            return [row("nll", "nats", status="diverged", reason=str(error))]
        except Exception as error:  # a competitor may fail in any way; the others go on
            return [row("nll", "nats", status="failed", reason=one_line(error))]
        keep(outcome.arrays)
        rows = [row(*parts, parameters=outcome.parameters) for parts in _likelihood_metrics(outcome, self.problem)]
        # Kept one by one: all methods are scored under the same draws, and compared draw by draw.
        rows += [
            row("nll_of_draw", "nats", single(value), parameters=outcome.parameters, iteration=draw)
            for draw, value in enumerate(outcome.test_nll)
        ]
        for point in outcome.report.curve:
            at = {"iteration": point.iteration, "seconds": point.seconds, "parameters": outcome.parameters}
            rows.append(row("validation_curve", "nats", single(point.validation_nll), **at))
            if point.gradient_norm is not None:
                rows.append(row("gradient_norm", "1", single(point.gradient_norm), **at))
        return rows

    def without_result(self, status: str, reason: str) -> list[Row]:
        """One row, in the place of the NLL."""
        row = row_maker(self, registry().find(self.method), self.problem, self.dataset)
        return [row("nll", "nats", status=status, reason=reason)]


def _noisy(row: Row) -> Row:
    """Mark a row of a time or a rate."""
    return replace(row, reason=NOISY) if row.status == "ok" and row.unit in ("s", "flop/s", "B/s") else row


def load_data(
    method: Method, dataset: str, data_dir: Path | None, download: bool, logit_alpha: float | None
) -> Dataset:
    """Load what an available method is trained on, with a cell's choice of logit.

    Raises:
        InputError: The method is unavailable, or the data are missing and may not be fetched, or cannot be.
    """
    missing = why_unavailable(method)
    if missing is None and not download:
        missing = datasets.why_unavailable(dataset, data_dir)
    if missing is not None:
        raise InputError(missing)
    data = datasets.load(dataset, data_dir)
    if logit_alpha is not None and isinstance(data.preprocessing, LogitPreprocessing):
        data = replace(data, preprocessing=replace(data.preprocessing, alpha=logit_alpha))
    return data


def single(value: float) -> Estimate:
    """A number that was found once."""
    return Estimate(float(value), None, None, 1)


def _likelihood_metrics(outcome: Likelihood, problem: Problem) -> list[tuple[str, str, Estimate]]:
    """List metric, unit and value for everything that a training yields."""
    test = mean_interval(outcome.test_nll)
    per_bit = 1 / (problem.dimension * math.log(2))
    bits = mean_interval([value * per_bit for value in outcome.test_nll])
    metrics = [
        ("nll", "nats", test),
        ("bits_per_dim", "bits", bits),
        ("validation_nll", "nats", single(outcome.validation_nll)),
    ]
    if outcome.kl is not None:
        metrics.append(("kl", "nats", single(outcome.kl)))
    if outcome.fisher is not None:
        metrics.append(("fisher", "nats", single(outcome.fisher)))
    if outcome.report.iterations:
        metrics += [
            ("training_seconds", "s", single(outcome.report.seconds)),
            ("training_iterations", "1", single(outcome.report.iterations)),
        ]
    return metrics


def finished_rows(cell: Cell, store: Store, key: str | None = None) -> list[Row]:
    """Return the rows of a cell that need not run again; none if it is missing, unavailable or failed.

    A cell that is to keep its best weights in a file runs again too: the store has no weights.

    Args:
        cell: What was asked.
        store: Where finished cells lie.
        key: Of the cell where it runs, if that is not this machine.
    """
    if getattr(cell, "checkpoint", None) is not None:
        return []
    rows = store.read(cell.experiment, key or cell_key(cell.identity()))
    return rows if all(row.status in ("ok", "diverged") for row in rows) else []


def check_fit(method: Method, problem: Problem) -> None:
    """Raise InputError if the method is available and does not take the problem."""
    # The seed has no part in it, and a large model is not built once for each.
    if why_unavailable(method) is None and (reason := refusal(method, problem.replace(seed=0))):
        raise InputError(reason)


def identity_of(cell: Any, environment: Environment, leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """Return a cell's fields but those left out, its class, and what it runs on.

    This version of the project is part of it, and so are the versions of Python, torch and the method's own libraries,
    the processor and the number of threads: each may change a number, if only in its last digits. The commit is not, or
    the change of a comment would have everything measured again; a change of the code that changes results raises the
    version. Rows name their commit.
    """
    # Other processes have other timings, and other rounding; one alone goes without saying.
    parallel = {"processes": processes()} if processes() > 1 else {}
    fields = {key: value for key, value in dataclasses.asdict(cell).items() if key not in leave_out}
    return {
        "kind": type(cell).__name__,
        "project": __version__,
        "versions": environment.versions,
        "cpu": environment.cpu,
        "gpu": environment.gpu,
        "threads": environment.threads,
        **parallel,
        **fields,
    }


def row_maker(cell: Any, method: Method | None, problem: Problem, dataset: str) -> Callable[..., Row]:
    """Return a function that fills in what the rows of one method, or of the machine itself, share in one cell."""
    environment = capture(problem.device, method.requires if method else ())
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    identity = cell.identity()
    shared = {
        "cell": cell_key(identity),
        "experiment": cell.experiment,
        "profile": cell.profile,
        "recipe": getattr(cell, "recipe", "none"),
        "method": method.name if method else "machine",
        "objective": method.objective if method else "none",
        "linear": method.linear if method else "none",
        "limits": method.limits if method else None,
        "dataset": dataset,
        "architecture": problem.architecture,
        "shape": "x".join(map(str, problem.shape)),
        "D": problem.dimension,
        "L": problem.layers,
        "B": problem.batch,
        "seed": problem.seed,
        "dtype": problem.dtype,
        "device": problem.device,
        "threads": environment.threads,
        "config": json.dumps(identity, sort_keys=True),
        "versions": json.dumps(environment.versions, sort_keys=True),
        "cpu": environment.cpu,
        "gpu": environment.gpu,
        "commit": environment.commit,
        "started_at": started_at,
    }

    def row(
        metric: str,
        unit: str,
        estimate: Estimate | None = None,
        *,
        parameters: int | None = None,
        status: str = "ok",
        reason: str | None = None,
        iteration: int | None = None,
        seconds: float | None = None,
    ) -> Row:
        value, low, high, n = (None, None, None, None) if estimate is None else dataclasses.astuple(estimate)
        return Row(
            **shared,
            metric=metric,
            unit=unit,
            parameters=parameters,
            value=value,
            ci_low=low,
            ci_high=high,
            n=n,
            status=status,
            reason=reason,
            iteration=iteration,
            seconds=seconds,
        )

    return row
