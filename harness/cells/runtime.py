"""Seconds an iteration."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import ClassVar

from harness.cells.base import Cell, Keep, Progress, changed_settings, single, with_drift
from harness.methods.cost import optimizer_bytes
from harness.methods.precision import stored
from harness.methods.registry import why_unavailable
from harness.results import DRIFT_METRIC, Row
from harness.results.schema import noted
from harness.results.statistics import Estimate, drift, median_interval
from harness.timing.interleaved import SHORTEST_BLOCK, Timing, measure
from harness.timing.machine import COPY_METRIC, CUBE_METRIC, REFERENCE_METRIC, product_metric
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig

_SET_UP = 0.3  # seconds that building a method and looking at its memory take
_FLOPS = 2e11  # a second, of two cores


@dataclass(frozen=True, kw_only=True)
class RuntimeCell(Cell):
    """Seconds an iteration of several methods on one problem, interleaved.

    Args:
        methods: The names of the methods.
        repeats: The number of repetitions of every method.
        config: Optimiser, clipping, averaging and compilation.
    """

    kind: ClassVar[str] = "runtime"
    main_metric: ClassVar[tuple[str, str]] = ("seconds_per_iteration", "s")

    methods: tuple[str, ...]
    repeats: int
    config: TrainingConfig = field(default_factory=TrainingConfig)

    @property
    def method_names(self) -> tuple[str, ...]:
        return self.methods

    @property
    def title(self) -> str:
        return f"{self.problem.architecture}, D = {self.problem.dimension}, L = {self.problem.layers}"

    @property
    def exclusive(self) -> bool:
        return True

    def cost(self) -> float:
        """Estimate the seconds of all repetitions and of what comes before them, from the sizes alone.

        Each repetition times the whole iteration and its gradient, in blocks that are no shorter than a clock needs. To
        try every method would take a good part of the run itself; the pace of the first cells corrects the estimate.
        """
        batch, dimension = self.problem.batch, self.problem.dimension
        step = self.problem.layers * (12 * batch * dimension**2 + dimension**3) / _FLOPS
        present = sum(why_unavailable(method) is None for method in self.competitors)
        return present * (_SET_UP + 2 * self.repeats * max(step, SHORTEST_BLOCK) + 6 * step)

    def measure(self, progress: Progress, keep: Keep, resume: TrainingCheckpoint | None) -> list[Row]:
        """Time all methods and the machine; a method that fails or is unavailable has a row that says so."""
        missing = {method.name: why_unavailable(method) for method in self.competitors}
        present = [method for method in self.competitors if missing[method.name] is None]
        count = itertools.count(1)

        def tick() -> None:
            progress(next(count), self.repeats * len(present), "")

        measured = measure(present, self.problem, self.repeats, self.config, tick)
        timings = {timing.method.name: timing for timing in measured.timings}
        rates = {rate.metric: median_interval(values) for rate, values in measured.rates}
        rows = []
        for method in self.competitors:
            row, timing = self.row_maker(method), timings.get(method.name)
            if timing is None:
                rows.append(row(*self.main_metric, status="unavailable", reason=missing[method.name]))
            elif timing.failure is not None:
                rows.append(row(*self.main_metric, status="failed", reason=timing.failure))
            else:
                size = {"parameters": timing.parameters}
                metrics = self._iteration_metrics(timing, {metric: rate.value for metric, rate in rates.items()})
                own = [row(*metric, **size) for metric in metrics]
                # Kept one by one: methods are compared within a repetition.
                own += [
                    row("seconds_of_repetition", "s", single(seconds), **size, iteration=number)
                    for number, seconds in enumerate(timing.seconds)
                ]
                caveat = changed_settings(timing.changed) if timing.changed else None
                rows += [noted(one, caveat) for one in own] if caveat else own
        row = self.row_maker(None)
        rows += [row(rate.metric, rate.unit, rates[rate.metric]) for rate, _ in measured.rates]
        drifted = next((drift(values) for rate, values in measured.rates if rate.metric == REFERENCE_METRIC), None)
        return rows if drifted is None else with_drift(rows, row(DRIFT_METRIC, "1", single(drifted)))

    def with_caveats(self, rows: list[Row], changed: list[str]) -> list[Row]:
        """Return the rows as they are: `measure` knows which of the methods changed what."""
        return rows

    def _iteration_metrics(self, timing: Timing, rates: dict[str, float]) -> list[tuple[str, str, Estimate]]:
        """List metric, unit and value of everything that is known of the iteration of a method that did not fail."""
        assert timing.peak_bytes is not None
        assert timing.first_seconds is not None
        assert timing.parameters is not None
        metrics = [
            ("seconds_per_iteration", "s", median_interval(timing.seconds)),
            ("peak_memory", "B", single(timing.peak_bytes)),
        ]
        if timing.gradient_seconds:
            metrics.insert(1, ("seconds_per_gradient", "s", median_interval(timing.gradient_seconds)))
        period = timing.method.period(self.problem)
        if timing.refresh_seconds:
            metrics.append(("steps_per_refresh", "1", single(period)))
            metrics.append(("seconds_of_refresh_step", "s", median_interval(timing.refresh_seconds)))
        if self.config.compile:
            metrics.append(("seconds_of_first_iteration", "s", single(timing.first_seconds)))
        cost = timing.method.fc_cost
        if self.problem.architecture == "fc" and cost is not None:
            rate, cubes = rates[product_metric(cost.rows)], rates.get(CUBE_METRIC, math.inf)
            gradient = cost.seconds(self.problem, rate, cubes, period)
            item = stored(self.problem.dtype).itemsize
            averaged = self.config.ema_decay is not None
            moved = optimizer_bytes(timing.parameters, item, timing.moments, averaged)
            metrics += [
                ("flops", "1", single(cost.flops(self.problem, period))),
                ("optimizer_bytes", "B", single(moved)),
                ("gradient_bound", "s", single(gradient)),
                ("iteration_bound", "s", single(gradient + moved / rates[COPY_METRIC])),
            ]
        return metrics
