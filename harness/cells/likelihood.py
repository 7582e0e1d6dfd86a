"""Test NLL after training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import datasets
from harness.cells.base import Keep, Progress, check_fit, forget, identity_of, row_maker, single
from harness.checkpoints import TrainingCheckpoint
from harness.datasets import Dataset, Identity, LogitPreprocessing
from harness.errors import InputError, one_line
from harness.likelihood import Likelihood, fit_and_score, without_map
from harness.method import Method
from harness.problem import Problem
from harness.registry import registry, why_unavailable
from harness.results import Row
from harness.statistics import Estimate, mean_interval
from harness.trainer import TrainingConfig
from harness.training import Divergence

__all__ = ["LikelihoodCell", "load_data"]


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
        smooth_noise: Scale of smooth dequantisation noise (`harness.datasets.Dequantize`), or None for uniform noise.
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
    smooth_noise: float | None = None
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
        own_data = datasets.fingerprint(self.dataset)
        identity = identity_of(
            self,
            self.problem.device,
            registry().find(self.method).requires,
            leave_out=("data_dir", "download", "checkpoint"),
        )
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
            data = load_data(method, self.dataset, self.data_dir, self.download, self.logit_alpha, self.smooth_noise)
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
        # Kept one by one: methods are scored under the same draws of one noise, and compared draw by draw.
        rows += [
            row("nll_of_draw", "nats", single(value), parameters=outcome.parameters, iteration=draw)
            for draw, value in enumerate(outcome.test_nll)
        ]
        for point in outcome.report.curve:
            at = {"iteration": point.iteration, "seconds": point.seconds, "parameters": outcome.parameters}
            rows.append(row("validation_curve", "nats", single(point.validation_nll), **at))
            for metric, value in (("gradient_norm", point.gradient_norm), ("validation_loss", point.validation_loss)):
                if value is not None and math.isfinite(value):  # as after a step that was skipped
                    rows.append(row(metric, "1", single(value), **at))
        return rows

    def without_result(self, status: str, reason: str) -> list[Row]:
        """One row, in the place of the NLL."""
        row = row_maker(self, registry().find(self.method), self.problem, self.dataset)
        return [row("nll", "nats", status=status, reason=reason)]


def load_data(
    method: Method,
    dataset: str,
    data_dir: Path | None,
    download: bool,
    logit_alpha: float | None,
    smooth_noise: float | None = None,
) -> Dataset:
    """Load what an available method is trained on, with a cell's choice of logit and of dequantisation noise.

    Raises:
        InputError: The method is unavailable, the data are missing and may not be fetched, or cannot be, or have no
            grey levels for smooth noise.
    """
    missing = why_unavailable(method)
    if missing is None and not download:
        missing = datasets.why_unavailable(dataset, data_dir)
    if missing is not None:
        raise InputError(missing)
    data = datasets.load(dataset, data_dir)
    preprocessing = data.preprocessing
    if isinstance(preprocessing, LogitPreprocessing):
        alpha = preprocessing.alpha if logit_alpha is None else logit_alpha
        return replace(data, preprocessing=replace(preprocessing, alpha=alpha, smooth=smooth_noise))
    if smooth_noise is not None:
        raise InputError(f"{dataset} has no grey levels to add smooth noise to; use a recipe without it")
    return data


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
    if outcome.report.skipped is not None:
        metrics.append(("skipped_steps", "1", single(outcome.report.skipped)))
    return metrics
