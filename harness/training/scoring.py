"""From a method and a dataset to a test NLL in the data's own space."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from harness.datasets import DECLARATIONS
from harness.datasets.augmentation import augmented
from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import Dequantize, LogitPreprocessing, Preprocessing
from harness.datasets.table_checks import check_samples
from harness.errors import InputError
from harness.methods import ClosedForm, Model, Problem
from harness.methods.calls import guarded
from harness.methods.density import log_prob
from harness.methods.precision import stored
from harness.methods.seeds import generator, stream
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig
from harness.training.loop import Divergence, KeepWeights, Training, TrainingReport

SAMPLES_AT_ONCE = 1000  # samples that are scored in one block
_AUGMENTED_COPIES = 6  # of the training set, which a closed form sees
_FIXED = 0  # the noise of validation is the same for every training seed


def fit(
    model: Model,
    problem: Problem,
    dataset: Dataset,
    batches: Dataset,
    config: TrainingConfig,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    keep_weights: KeepWeights | None = None,
    resume: TrainingCheckpoint | None = None,
    *,
    watch_loss: bool = False,
) -> TrainingReport:
    """Train a model, or fit it in closed form, and leave the best weights in it.

    The model is validated on `dataset` and trained on `batches`, which is the same, or the same without its noise for
    objectives that bring it. With `watch_loss` the curve has the objective's own loss beside the NLL. All other
    arguments and the errors are those of `harness.training.loop.Training`.
    """
    if dataset.name not in DECLARATIONS:  # those are checked where they are published
        check_samples(dataset, stored(problem.dtype) == torch.float32)
    validate = partial(nll, model, dataset.validation, dataset, problem, stream(_FIXED, "validation"))
    if isinstance(model, ClosedForm):
        with guarded("fit"):
            model.fit(_closed_form_batches(dataset, problem))
        report = TrainingReport(validate(), "closed form")
        if keep_weights is not None and math.isfinite(report.best_validation):
            keep_weights(model.module.state_dict())
        return report
    own_loss = partial(validation_loss, model, batches, problem) if watch_loss else None
    return Training(model, problem, batches, config, validate, progress, keep_weights, resume, own_loss).run()


def _closed_form_batches(dataset: Dataset, problem: Problem) -> Iterator[Tensor]:
    """Yield the preprocessed samples that a closed form is fitted to: the training set, or several augmented copies."""
    noise = generator(problem.seed, "training", problem.device)
    copies = generator(problem.seed, "closed form")
    for _ in range(_AUGMENTED_COPIES if dataset.augment else 1):
        for block in dataset.train.split(SAMPLES_AT_ONCE):
            raw = augmented(block, copies) if dataset.augment else block
            yield dataset.preprocessing.draw(raw.to(problem.device), noise, stored(problem.dtype))


def validation_loss(model: Model, batches: Dataset, problem: Problem) -> float:
    """Return the mean training loss over the validation set, with the same noise at every call.

    The validation set is split into batches of a step's size, because a loss needs as much memory as a step.
    """
    noise = generator(_FIXED, "validation", problem.device)
    total = 0.0
    for raw in batches.validation.split(problem.batch):
        x = batches.preprocessing.draw(raw.to(problem.device), noise, stored(problem.dtype))
        with guarded("training_loss"):
            total += float(model.training_loss(x, noise).detach()) * len(raw)
    return total / len(batches.validation)


@torch.no_grad()
def nll(model: Model, raw: Tensor, dataset: Dataset, problem: Problem, seed: int) -> float:
    """Return the mean negative log-density of raw data under one draw of the preprocessing noise, in nats per sample.

    The seed is that of the noise, as `harness.methods.seeds.stream` returns one.

    All log-determinants count, the model's and the preprocessing's. This is the only NLL of the project.
    """
    return -sum(float(block.sum()) for block in densities(model, raw, dataset.preprocessing, problem, seed)) / len(raw)


def nll_of_test_set(model: Model, dataset: Dataset, problem: Problem, draws: int) -> list[float]:
    """Return the test NLL in nats: one mean a draw of the preprocessing noise, or one number a sample without noise.

    Raises:
        Divergence: if one is not finite.
    """
    if dataset.preprocessing.noisy:
        values = [nll(model, dataset.test, dataset, problem, stream(draw, "test")) for draw in range(draws)]
    else:
        blocks = densities(model, dataset.test, dataset.preprocessing, problem, stream(0, "test"))
        values = (-torch.cat(list(blocks))).tolist()
    if not all(map(math.isfinite, values)):
        raise Divergence("the test NLL is not finite")
    return values


@torch.no_grad()
def densities(model: Model, raw: Tensor, preprocessing: Preprocessing, problem: Problem, seed: int) -> Iterator[Tensor]:
    """Yield log-densities in nats of blocks of raw data in the data's own space, float64, shape (N,)."""
    for x, log_det in noised(raw, preprocessing, problem, seed):
        with guarded("to_latent"):
            density = log_prob(model, x)
        yield density.double() + log_det.double()


def without_map(dataset: Dataset, problem: Problem) -> tuple[Dataset, Problem]:
    """Move scaling and logit from the preprocessing into the model (the paper's ablation of MaP).

    Raises:
        InputError: if the data are not images.
    """
    preprocessing = dataset.preprocessing
    if not isinstance(preprocessing, LogitPreprocessing):
        raise InputError(f"{dataset.name} has no logit preprocessing to do without; use an image dataset")
    raw = replace(dataset, preprocessing=Dequantize(preprocessing.levels, smooth=preprocessing.smooth))
    return raw, problem.replace(raw_pixel_alpha=preprocessing.alpha, levels=preprocessing.levels)


def noised(raw: Tensor, preprocessing: Preprocessing, problem: Problem, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield blocks of samples in model space, shape (N, *event), with their log|det J| in nats, shape (N,)."""
    noise = torch.Generator(problem.device).manual_seed(seed)
    dtype = stored(problem.dtype)
    for block in raw.split(SAMPLES_AT_ONCE):
        yield preprocessing(block.to(problem.device), noise, dtype)
