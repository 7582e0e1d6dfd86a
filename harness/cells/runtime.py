"""Seconds an iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from harness.cells.base import Keep, Progress, check_fit, forget, identity_of, row_maker, single
from harness.methods import Problem
from harness.methods.cost import optimizer_bytes
from harness.methods.precision import stored
from harness.methods.registry import registry, why_unavailable
from harness.results import DRIFT_METRIC, NOISY, Row
from harness.results.statistics import NOISY_DRIFT, Estimate, drift, median_interval
from harness.timing.interleaved import Timing, measure
from harness.timing.machine import COPY_METRIC, CUBE_METRIC, REFERENCE_METRIC, product_metric
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig


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
        return identity_of(self, self.problem.device, {library for method in found for library in method.requires})

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


def _noisy(row: Row) -> Row:
    """Mark a row of a time or a rate."""
    return replace(row, reason=NOISY) if row.status == "ok" and row.unit in ("s", "flop/s", "B/s") else row
