"""From a method and a dataset to a test NLL in the data's own space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import Dequantize, LogitPreprocessing
from harness.errors import InputError
from harness.methods import ClosedForm, Model, Problem
from harness.methods.calls import guarded
from harness.methods.density import log_prob
from harness.methods.precision import stored
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig
from harness.training.loop import TrainingReport, train

_ROWS_AT_ONCE = 1000
_VALIDATION_SEED, TEST_SEED = 1_000_003, 2_000_003  # far from the training seeds 0, 1, 2, ...


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
    for x, log_det in noised(raw, dataset, problem, seed):
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


def noised(raw: Tensor, dataset: Dataset, problem: Problem, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield samples in model space, by blocks of rows, with their log|det J| in nats, under one draw of the noise."""
    generator = torch.Generator(problem.device).manual_seed(seed)
    dtype = stored(problem.dtype)
    for rows in raw.split(_ROWS_AT_ONCE):
        yield dataset.preprocessing(rows.to(problem.device), generator, dtype)


def _one_pass(dataset: Dataset, problem: Problem) -> Iterator[Tensor]:
    return (x for x, _ in noised(dataset.train, dataset, problem, problem.seed))
