"""Test NLL after training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness import datasets
from harness.cells.base import Keep, Progress, check_fit, forget, identity_of, row_maker, single
from harness.cells.pictures import Arrays, learned
from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import Identity, LogitPreprocessing
from harness.errors import InputError, one_line
from harness.methods import SCORE_MATCHING, Method, Model, Problem
from harness.methods.calls import guarded
from harness.methods.density import build, count_parameters, log_prob, score
from harness.methods.registry import registry, why_unavailable
from harness.results import Row
from harness.results.statistics import Estimate, mean_interval
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig
from harness.training.loop import Divergence, TrainingReport
from harness.training.scoring import TEST_SEED, fit, nll, noised, without_map


@dataclass(frozen=True)
class Likelihood:
    """The outcome of one training.

    Args:
        test_nll: Nats a sample, one value for each draw of the preprocessing noise.
        validation_nll: Of the weights that were kept, nats a sample.
        kl: Mean of log p - log q over the test set, nats; only where the data's density p is known.
        fisher: Half the mean of |score q - score p|^2; only where that score is of use.
        parameters: Trained numbers.
        report: Of the training loop.
        arrays: What `harness.cells.pictures.learned` sees of it.
    """

    test_nll: list[float]
    validation_nll: float
    kl: float | None
    fisher: float | None
    parameters: int
    report: TrainingReport
    arrays: Arrays


def fit_and_score(
    method: Method,
    problem: Problem,
    dataset: Dataset,
    batches: Dataset,
    config: TrainingConfig,
    draws: int,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    checkpoint: Path | None = None,
    resume: TrainingCheckpoint | None = None,
) -> Likelihood:
    """Train a method on a dataset and score the best validated weights on the test set.

    Args:
        method: Any available one.
        problem: Its shape is the dataset's.
        dataset: Scored on; already without MaP if the problem has raw_pixel_alpha.
        batches: Trained on; the same dataset, but for objectives that bring the data's noise themselves.
        config: The recipe; a closed-form method makes one pass over the data instead.
        draws: K, test passes with fresh preprocessing noise.
        progress: As `harness.training.loop.train` has it.
        checkpoint: Where to keep the best weights (safetensors), or None.
        resume: As `harness.training.loop.train` has it.

    Raises:
        Divergence: Training or scoring met a number that is not finite.
        InputError: The method cannot do it.
        TimeoutError: One call took longer than `harness.methods.calls` allows.
    """
    if draws < 1:
        raise InputError(f"the number of test draws must be at least 1, not {draws}")
    model = build(method, problem)
    watched = method.objective in SCORE_MATCHING
    report = fit(model, problem, dataset, batches, config, progress, checkpoint, resume, watch_loss=watched)
    test = [nll(model, dataset.test, dataset, problem, TEST_SEED + draw) for draw in range(draws)]
    if not all(map(math.isfinite, test)):
        raise Divergence("the test NLL is not finite")
    kl, fisher = _against_truth(model, dataset, problem)
    arrays = learned(method, model, dataset, problem)
    return Likelihood(test, report.best_validation, kl, fisher, count_parameters(model), report, arrays)


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
        smooth_noise: Scale of smooth dequantisation noise (see `Dequantize`), or None for uniform noise.
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


def _against_truth(model: Model, dataset: Dataset, problem: Problem) -> tuple[float | None, float | None]:
    """KL and Fisher divergence from the exact density of the preprocessed data, by its test points."""
    density = dataset.density
    if density is None:
        return None, None
    divergence, gaps = 0.0, []
    for x, _ in noised(dataset.test, dataset, problem, TEST_SEED):
        with torch.no_grad(), guarded("to_latent"):
            divergence += float((density.log_prob(x.double()) - log_prob(model, x).double()).sum())
        exact = density.score(x.double())
        if exact is not None:
            with guarded("the score"):
                gaps.append(0.5 * float((score(model, x).double() - exact).square().sum()))
    return divergence / len(dataset.test), sum(gaps) / len(dataset.test) if gaps else None
