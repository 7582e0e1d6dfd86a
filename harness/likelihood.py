"""From a method and a dataset to a test NLL in the data's own space."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from harness.checkpoints import TrainingCheckpoint
from harness.datasets import Dataset, Dequantize, LogitPreprocessing
from harness.density import build, count_parameters, log_prob, score
from harness.errors import InputError
from harness.guard import guarded
from harness.method import SCORE_MATCHING, ClosedForm, Method, Model
from harness.pictures import Arrays, learned
from harness.precision import stored
from harness.problem import Problem
from harness.trainer import TrainingConfig
from harness.training import Divergence, TrainingReport, train

__all__ = ["Likelihood", "fit", "fit_and_score", "nll", "validation_loss", "without_map"]

_ROWS_AT_ONCE = 1000
_VALIDATION_SEED, _TEST_SEED = 1_000_003, 2_000_003  # far from the training seeds 0, 1, 2, ...


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
        arrays: What `harness.pictures.learned` sees of it.
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
        progress: As `harness.training.train` has it.
        checkpoint: Where to keep the best weights (safetensors), or None.
        resume: As `harness.training.train` has it.

    Raises:
        Divergence: Training or scoring met a number that is not finite.
        InputError: The method cannot do it.
        TimeoutError: One call took longer than `harness.guard` allows.
    """
    if draws < 1:
        raise InputError(f"the number of test draws must be at least 1, not {draws}")
    model = build(method, problem)
    watched = method.objective in SCORE_MATCHING
    report = fit(model, problem, dataset, batches, config, progress, checkpoint, resume, watch_loss=watched)
    test = [nll(model, dataset.test, dataset, problem, _TEST_SEED + draw) for draw in range(draws)]
    if not all(map(math.isfinite, test)):
        raise Divergence("the test NLL is not finite")
    kl, fisher = _against_truth(model, dataset, problem)
    arrays = learned(method, model, dataset, problem)
    return Likelihood(test, report.best_validation, kl, fisher, count_parameters(model), report, arrays)


def fit(
    model: Model,
    problem: Problem,
    dataset: Dataset,
    batches: Dataset,
    config: TrainingConfig,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    checkpoint: Path | None = None,
    resume: TrainingCheckpoint | None = None,
    *,
    watch_loss: bool = False,
) -> TrainingReport:
    """Train a model that was built for the problem, or fit it in closed form, and leave the best weights in it.

    Args and errors are those of `fit_and_score`; with watch_loss the curve has the objective's own loss beside the NLL.
    """

    def validate() -> float:
        return nll(model, dataset.validation, dataset, problem, _VALIDATION_SEED)

    if isinstance(model, ClosedForm):
        with guarded("fit"):
            model.fit(_one_pass(dataset, problem))
        return TrainingReport(best_validation=validate(), ended="closed form")

    def own_loss() -> float:
        return validation_loss(model, batches, problem)

    watch = own_loss if watch_loss else None
    return train(model, problem, batches, config, validate, progress, checkpoint, resume, watch)


def validation_loss(model: Model, batches: Dataset, problem: Problem) -> float:
    """Mean training loss over the validation set, with the same noise at every call, in the objective's own unit.

    It takes as many samples at once as a step, because it needs as much memory.
    """
    generator = torch.Generator(problem.device).manual_seed(_VALIDATION_SEED)
    total = 0.0
    for rows in batches.validation.split(problem.batch):
        x = batches.preprocessing.draw(rows.to(problem.device), generator, stored(problem.dtype))
        with guarded("training_loss"):
            total += float(model.training_loss(x, generator).detach()) * len(rows)
    return total / len(batches.validation)


@torch.no_grad()
def nll(model: Model, raw: Tensor, dataset: Dataset, problem: Problem, seed: int) -> float:
    """Mean negative log-density of raw data under one draw of the preprocessing noise, in nats a sample.

    All log-determinants count: the model's and the preprocessing's. This is the only NLL of the project.
    """
    total = 0.0
    for x, log_det in _noised(raw, dataset, problem, seed):
        with guarded("to_latent"):
            density = log_prob(model, x)
        total -= float((density.double() + log_det.double()).sum())
    return total / len(raw)


def without_map(dataset: Dataset, problem: Problem) -> tuple[Dataset, Problem]:
    """Move scaling and logit from the preprocessing into the model (the paper's ablation of MaP).

    Raises:
        InputError: The data are not images.
    """
    preprocessing = dataset.preprocessing
    if not isinstance(preprocessing, LogitPreprocessing):
        raise InputError(f"{dataset.name} has no logit preprocessing to do without; use an image dataset")
    return (
        replace(dataset, preprocessing=Dequantize(preprocessing.levels, smooth=preprocessing.smooth)),
        problem.replace(raw_pixel_alpha=preprocessing.alpha, levels=preprocessing.levels),
    )


def _noised(raw: Tensor, dataset: Dataset, problem: Problem, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator(problem.device).manual_seed(seed)
    dtype = stored(problem.dtype)
    for rows in raw.split(_ROWS_AT_ONCE):
        yield dataset.preprocessing(rows.to(problem.device), generator, dtype)


def _one_pass(dataset: Dataset, problem: Problem) -> Iterator[Tensor]:
    return (x for x, _ in _noised(dataset.train, dataset, problem, problem.seed))


def _against_truth(model: Model, dataset: Dataset, problem: Problem) -> tuple[float | None, float | None]:
    """KL and Fisher divergence from the exact density of the preprocessed data, by its test points."""
    density = dataset.density
    if density is None:
        return None, None
    divergence, gaps = 0.0, []
    for x, _ in _noised(dataset.test, dataset, problem, _TEST_SEED):
        with torch.no_grad(), guarded("to_latent"):
            divergence += float((density.log_prob(x.double()) - log_prob(model, x).double()).sum())
        exact = density.score(x.double())
        if exact is not None:
            with guarded("the score"):
                gaps.append(0.5 * float((score(model, x).double() - exact).square().sum()))
    return divergence / len(dataset.test), sum(gaps) / len(dataset.test) if gaps else None
