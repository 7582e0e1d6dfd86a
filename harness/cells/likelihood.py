"""Test NLL after training."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from harness import datasets
from harness.cells.base import APART, Cell, Keep, Progress, not_measured, single, with_drift
from harness.cells.estimate import Costs, training_costs
from harness.cells.pictures import Arrays, learned
from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import Identity, LogitPreprocessing
from harness.errors import InputError, UnavailableError
from harness.methods import Method, Model, Problem
from harness.methods.calls import guarded
from harness.methods.density import build, count_parameters, log_prob, score
from harness.methods.precision import stored
from harness.methods.registry import registry, why_unavailable
from harness.methods.seeds import generator, stream
from harness.results import DRIFT_METRIC, Row
from harness.results.schema import BETTER_THAN_TRUTH, TIMED_UNITS, noted
from harness.results.statistics import Estimate, mean_interval
from harness.timing.interleaved import Watch
from harness.timing.memory import peak_bytes
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig
from harness.training.loop import KeepWeights, TrainingReport
from harness.training.processes import processes
from harness.training.saved_model import Description, describe, write_model
from harness.training.scoring import fit, nll_of_test_set, noised, without_map
from harness.training.state import CurvePoint
from harness.training.step import Trainer

_LOOKS = 5  # at the machine's speed before and after a training, enough to tell a drift of a short one

_UNITS = {"nll": "nats", "kl": "nats", "fisher": "nats", "peak_memory": "B"}  # of others that may fail: 1

Metric = tuple[str, str, Estimate]
"""The name of a metric, its unit and its value."""

SAVED = "saved_model"
"""The metric of the row that says why the file of a trained model could not be written; there is no such row if it
was."""

Failures = dict[str, Exception]
"""What measurements of a trained model raised, by the name of the metric."""

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class TrainedCell(Cell):
    """A cell that trains one method on one dataset.

    Args:
        method: The name of the method.
        dataset: The name of the dataset; the problem's shape is that of its samples.
        config: How the method is trained.
        logit_alpha: The divisor of an image dataset's logit, where it is not the dataset's own.
        data_dir: The folder of the data.
        download: Whether missing data may be fetched.
        caveat: What tables are to say of the method under the recipe, such as a start or a learning rate of its own.
        standardize: Whether the columns of a user's own table are standardised.
        columns: The columns of a user's own table, by name or number; none for all that hold numbers.
        dequantize: Whether rounded columns of a user's own table get uniform noise.
    """

    method: str
    dataset: str
    config: TrainingConfig
    logit_alpha: float | None = None
    data_dir: Path | None = field(default=None, metadata=APART)
    download: bool = field(default=False, metadata=APART)
    standardize: bool = False
    columns: tuple[str, ...] = ()
    dequantize: bool = False
    caveat: str = field(default="", metadata=APART)

    @abstractmethod
    def train(self, progress: Progress, keep: Keep, resume: TrainingCheckpoint | None) -> list[Row]:
        """Train, measure and return the rows, as `measure` does, which watches the machine meanwhile."""

    def measure(self, progress: Progress, keep: Keep, resume: TrainingCheckpoint | None) -> list[Row]:
        """Return the rows of `train`, and how far the machine drifted, unless part of the training ran before."""
        goes_on = resume is not None and resume.path.exists()
        watch = Watch(self.problem.device)
        watch.look(_LOOKS)
        last = time.perf_counter()

        def told(done: int, total: int, note: str) -> None:  # between two epochs, which is not timed
            nonlocal last
            watch.after(time.perf_counter() - last)
            last = time.perf_counter()
            progress(done, total, note)

        rows = self.train(told, keep, resume)
        watch.look(_LOOKS)
        drifted = watch.drift()
        if goes_on or drifted is None or not any(row.unit in TIMED_UNITS for row in rows):
            return rows
        row = self.row_maker(registry().find(self.method))
        return with_drift(rows, row(DRIFT_METRIC, "1", single(drifted), parameters=rows[0].parameters))

    @property
    def method_names(self) -> tuple[str, ...]:
        return (self.method,)

    @property
    def data(self) -> str:
        return datasets.label(self.dataset, self.columns)

    @property
    def title(self) -> str:
        return f"{self.method} on {self.dataset}, {self.problem.architecture}, seed {self.problem.seed}"

    @property
    def budget(self) -> float | None:
        return self.config.max_seconds

    def limits_of(self, method: Method) -> str | None:
        return "; ".join(filter(None, [super().limits_of(method), self.caveat])) or None

    @property
    def passes(self) -> int:
        """The number of passes over the test set."""
        return 0

    def costs(self) -> Costs:
        """Estimate the seconds of the training and of what follows it."""
        samples = datasets.splits(self.dataset, self.data_dir)
        return training_costs(self.method, self.problem, self.config, samples, self.passes)

    def cost(self) -> float:
        return sum(self.costs())

    def closing_cost(self) -> float:
        return self.costs().scoring

    def identity(self) -> dict[str, Any]:
        """Return what determines the result; the content of a user's own file of data is part of it."""
        own_data = datasets.fingerprint(self.dataset)
        return super().identity() | ({} if own_data is None else {"data": own_data})

    def load(self, smooth_noise: float | None = None, augment: bool = False) -> Dataset:
        """Load the data with the cell's logit and smooth dequantisation noise of a scale; uniform noise for None.

        Raises:
            UnavailableError: If the method is unavailable, or the data are missing and cannot or may not be fetched, or
                have no grey levels for smooth noise, or are no images and cannot be augmented.
        """
        missing = why_unavailable(registry().find(self.method))
        if missing is None and not self.download:
            missing = datasets.why_unavailable(self.dataset, self.data_dir)
        if missing is not None:
            raise UnavailableError(missing)
        try:
            data = datasets.load(self.dataset, self.data_dir, seed=self.problem.seed, columns=self.columns)
            if self.dequantize:
                data = datasets.dequantized(data)
            if self.standardize:
                data = datasets.standardized(data)
        except InputError as error:
            raise UnavailableError(str(error)) from error
        if augment and len(data.shape) != 3:
            raise UnavailableError(
                f"{self.dataset} has no images to mirror and move; use a recipe without augmentation"
            )
        data, preprocessing = replace(data, augment=augment), data.preprocessing
        if isinstance(preprocessing, LogitPreprocessing):
            alpha = preprocessing.alpha if self.logit_alpha is None else self.logit_alpha
            return replace(data, preprocessing=replace(preprocessing, alpha=alpha, smooth=smooth_noise))
        if smooth_noise is not None:
            raise UnavailableError(f"{self.dataset} has no grey levels to add smooth noise to; use a recipe without it")
        return data


@dataclass(frozen=True, kw_only=True)
class LikelihoodCell(TrainedCell):
    """Test NLL of one method after training on one dataset.

    Args:
        draws: K, the number of test passes with fresh noise.
        smooth_noise: The scale of smooth dequantisation noise, or None for uniform noise.
        preprocess: Whether scaling and logit come before the model; False moves them into it (the ablation of MaP).
        augment: Whether training images are mirrored and moved at random.
        clean_batches: Whether training data lack the preprocessing's noise, as for DSM in 2-D, whose own noise of the
            same scale takes its place.
        save: The file that keeps the best trained model, or None.
    """

    kind: ClassVar[str] = "likelihood"
    main_metric: ClassVar[tuple[str, str]] = ("nll", "nats")

    draws: int
    smooth_noise: float | None = None
    augment: bool = False
    preprocess: bool = True
    clean_batches: bool = False
    save: Path | None = field(default=None, metadata=APART)

    @property
    def passes(self) -> int:
        return self.draws

    @property
    def always_runs(self) -> bool:
        return self.save is not None

    def check(self) -> None:
        if self.preprocess:
            super().check()
        else:
            replace(self, preprocess=True, problem=self.problem.replace(raw_pixel_alpha=1.0)).check()

    def train(self, progress: Progress, keep: Keep, resume: TrainingCheckpoint | None) -> list[Row]:
        method = registry().find(self.method)
        row = self.row_maker(method)
        data, problem = self.load(self.smooth_noise, self.augment), self.problem
        if not self.preprocess:
            data, problem = without_map(data, problem)
        batches = replace(data, preprocessing=Identity()) if self.clean_batches else data
        keep_weights, failures = None, Failures()
        if self.save is not None:
            description = describe(method, problem, data, self.recipe)
            keep_weights = partial(_write, self.save, description, failures)
        outcome = fit_and_score(
            method, problem, data, batches, self.config, self.draws, progress, keep_weights, resume, failures
        )
        keep(outcome.arrays)
        size = {"parameters": outcome.parameters}
        rows = [row(*metric, **size) for metric in _final_metrics(outcome, self.problem)]
        for metric, error in (outcome.report.failures | failures).items():
            rows.append(not_measured(row, metric, _UNITS.get(metric, "1"), error, **size))
        kl = outcome.divergences.get("kl")
        if kl is not None and kl.high is not None and kl.high < 0:
            rows = [noted(one, f"{BETTER_THAN_TRUTH} by {-kl.value:.3g} nats") for one in rows]
        if data.preprocessing.noisy:  # methods are scored under the same draws of one noise, and compared draw by draw
            rows += [
                row("nll_of_draw", "nats", single(value), **size, iteration=draw)
                for draw, value in enumerate(outcome.test_nll)
            ]
        for point in outcome.report.curve:
            at = {"iteration": point.iteration, "seconds": point.seconds, **size}
            rows += [row(*metric, **at) for metric in _curve_metrics(point)]
        return rows


@dataclass(frozen=True)
class Likelihood:
    """What one training comes to.

    Args:
        test_nll: Test NLL in nats, one mean for each draw of the preprocessing noise, or one value for each sample if
            there is no noise. It is empty if it could not be measured.
        divergences: The divergences in nats from the data's density p if that is known, over the test set: ``kl``, the
            mean of log p - log q, and ``fisher``, half the mean of |score q - score p|^2, if the score of p is of use.
            Their intervals are over the test points.
        parameters: The number of trained numbers.
        report: What the training loop tells.
        arrays: What `harness.cells.pictures.learned` sees of the trained model.
        step_bytes: The most bytes that a training step holds; None if there was no step, or several processes took it.
    """

    test_nll: list[float]
    divergences: dict[str, Estimate]
    parameters: int
    report: TrainingReport
    arrays: Arrays
    step_bytes: int | None


def fit_and_score(
    method: Method,
    problem: Problem,
    dataset: Dataset,
    batches: Dataset,
    config: TrainingConfig,
    draws: int,
    progress: Progress = lambda done, total, note: None,
    keep_weights: KeepWeights | None = None,
    resume: TrainingCheckpoint | None = None,
    failures: Failures | None = None,
) -> Likelihood:
    """Train a method on a dataset and score the best validated weights on the test set.

    Args:
        method: Any method that is available.
        problem: The model to build; its shape is the dataset's.
        dataset: The data that are scored; already without MaP if the problem has raw_pixel_alpha.
        batches: The data that are trained on; the same dataset, but for objectives that bring the data's noise
            themselves.
        config: The recipe; a closed-form method makes one pass over the data instead.
        draws: K, the number of test passes with fresh preprocessing noise.
        progress: Told how many epochs are done, of how many, and a note.
        keep_weights: Given the best weights whenever there are better ones, or None.
        resume: Where the training is saved and goes on from, or None.
        failures: Takes what the measurements after the training raise, each of which fails alone then; if it is None,
            the first error is raised, and the training is lost.

    Raises:
        Divergence: If training or scoring meets a number that is not finite.
        InputError: If the method cannot do it.
        TimeoutError: If one call takes longer than `harness.methods.calls` allows.
    """
    if draws < 1:
        raise InputError(f"the number of test draws must be at least 1, not {draws}")
    model = build(method, problem)
    watched = method.matches_scores
    report = fit(model, problem, dataset, batches, config, progress, keep_weights, resume, watch_loss=watched)
    test = _tried("nll", partial(nll_of_test_set, model, dataset, problem, draws), failures)
    measured = {
        name: _tried(name, partial(_against_truth, name, model, dataset, problem), failures)
        for name in ("kl", "fisher")
    }
    divergences = {name: estimate for name, estimate in measured.items() if estimate is not None}
    arrays = learned(method, model, dataset, problem)
    memory = None
    if report.iterations and processes() == 1:
        memory = _tried("peak_memory", partial(_step_bytes, model, batches, problem, config), failures)
    return Likelihood(test or [], divergences, count_parameters(model), report, arrays, memory)


def _tried(metric: str, measure: Callable[[], _T], failures: Failures | None) -> _T | None:
    """Return what a measurement gives; note what it raises under the name of its metric, or raise it without a dict."""
    try:
        return measure()
    except Exception as error:  # a competitor may fail in any way
        if failures is None:
            raise
        failures[metric] = error
        return None


def _write(path: Path, description: Description, failures: Failures, weights: Mapping[str, Tensor]) -> None:
    """Write the best weights so far to a file, and note what goes wrong until a later write succeeds."""
    failures.pop(SAVED, None)
    _tried(SAVED, partial(write_model, path, description, weights), failures)


def _step_bytes(model: Model, batches: Dataset, problem: Problem, config: TrainingConfig) -> int:
    """Return the most bytes that a training step holds; the model, whose work is done, is trained on for two steps."""
    noise = generator(problem.seed, "training", problem.device)
    x = batches.preprocessing.draw(batches.train[: problem.batch].to(problem.device), noise, stored(problem.dtype))
    trainer = Trainer(model, replace(config, compile=False), noise, problem.dtype)
    model.module.train()
    with guarded("training_loss"):
        trainer.step(x)
        return peak_bytes(trainer, x)


def _final_metrics(outcome: Likelihood, problem: Problem) -> list[Metric]:
    """List the metrics of a whole training."""
    per_bit = 1 / (problem.dimension * math.log(2))
    report = outcome.report
    metrics = []
    if outcome.test_nll:
        metrics.append(("nll", "nats", mean_interval(outcome.test_nll)))
        metrics.append(("bits_per_dim", "bits", mean_interval([value * per_bit for value in outcome.test_nll])))
    metrics.append(("validation_nll", "nats", single(report.best_validation)))
    metrics += [(name, "nats", estimate) for name, estimate in outcome.divergences.items()]
    if report.iterations:
        metrics.append(("training_seconds", "s", single(report.seconds)))
        metrics.append(("training_iterations", "1", single(report.iterations)))
    if report.curve and (refreshes := report.curve[-1].observations.get("refreshes")):
        metrics.append(("steps_per_refresh", "1", single(report.curve[-1].iteration / refreshes)))
    if outcome.step_bytes is not None:
        metrics.append(("peak_memory", "B", single(outcome.step_bytes)))
    if report.skipped is not None:
        metrics.append(("skipped_steps", "1", single(report.skipped)))
    return metrics


def _curve_metrics(point: CurvePoint) -> list[Metric]:
    """List the metrics of one validation; a norm or loss that is not finite, as after a skipped step, is left out."""
    metrics = [("validation_curve", "nats", single(point.validation_nll))]
    others = {**point.observations, "gradient_norm": point.gradient_norm, "validation_loss": point.validation_loss}
    for metric, value in others.items():
        if metric != "validation_curve" and value is not None and math.isfinite(value):
            metrics.append((metric, "1", single(value)))
    return metrics


def _against_truth(name: str, model: Model, dataset: Dataset, problem: Problem) -> Estimate | None:
    """Return the divergence `name`, kl or fisher, from the exact density at the test points; None if it is unknown."""
    density = dataset.density
    if density is None:
        return None
    gaps: list[float] = []
    for x, _ in noised(dataset.test, dataset.preprocessing, problem, stream(0, "test")):
        if name == "kl":
            with torch.no_grad(), guarded("to_latent"):
                gaps += (density.log_prob(x.double()) - log_prob(model, x).double()).tolist()
        elif (exact := density.score(x.double())) is not None:
            with guarded("the score"):
                gaps += (0.5 * (score(model, x).double() - exact).square().flatten(1).sum(1)).tolist()
    return mean_interval(gaps) if gaps else None
