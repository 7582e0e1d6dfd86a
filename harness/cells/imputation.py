"""Filling in the lower half of images: what a model knows of the missing pixels, in dB."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.cells.base import Keep, Progress, check_fit, forget, identity_of, row_maker, single
from harness.cells.likelihood import load_data
from harness.cells.pictures import as_levels, imputed
from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import LogitPreprocessing
from harness.errors import InputError, one_line
from harness.methods import Imputes, Model, Moments, Problem, moments
from harness.methods.calls import guarded
from harness.methods.density import build, count_parameters
from harness.methods.precision import stored
from harness.methods.registry import registry
from harness.results import Row
from harness.results.statistics import Estimate, mean_interval
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig
from harness.training.loop import Divergence
from harness.training.scoring import fit

_ROWS_AT_ONCE = 1000
_SEED = 3_000_003  # far from those of training, validation and test


@dataclass(frozen=True)
class ImputationCell:
    """PSNR of Langevin imputation after training on one image dataset.

    The lower half of the first test images is missing, rows H // 2 and below. Chains run in model space, from the
    missing pixels of training images drawn at random, and hold the upper half. Every iterate is taken back to grey
    levels; the estimates compared are the last iterate, the mean level over all iterates after the warm-up, the
    training set's mean image, and the exact conditional mean of the Gaussian with the training data's moments in model
    space. PSNR is over the missing pixels of one image, its peak the highest level; rows are means over the images.

    Args:
        method: Name.
        problem: Its shape is the dataset's.
        dataset: Name of a set of images.
        images: How many test images.
        steps: Of every chain.
        warmup: How many of them the mean leaves out. Where steps are adjusted, they adapt the step size too.
        step_size: Of the chain at its start, in units of the training data's covariance if preconditioned, or else
            squared units of model space.
        preconditioned: Whether the chain's drift and noise have the covariance that the training data give the missing
            pixels, the others known.
        adjusted: Whether steps are accepted or refused (Metropolis), so that the chain has no bias.
        leapfrog: Scores a step costs; 1 is Langevin dynamics, more are Hamiltonian Monte Carlo.
        recipe: What the rows call the configuration.
        logit_alpha: Of the logit, where it is not the dataset's own.
        data_dir: Where the data lie.
        download: Whether missing data may be fetched.
    """

    experiment: str
    profile: str
    method: str
    problem: Problem
    dataset: str
    config: TrainingConfig
    images: int = 1000
    steps: int = 600
    warmup: int = 50
    step_size: float = 0.05
    preconditioned: bool = True
    adjusted: bool = True
    leapfrog: int = 5
    recipe: str = "paper"
    logit_alpha: float | None = None
    data_dir: Path | None = None
    download: bool = False

    @property
    def title(self) -> str:
        """Method, data and seed."""
        return f"imputation by {self.method} on {self.dataset}, {self.problem.architecture}, seed {self.problem.seed}"

    @property
    def exclusive(self) -> bool:
        """With a budget of seconds, what it reaches depends on what else runs."""
        return self.config.max_seconds is not None

    def identity(self) -> dict[str, Any]:
        """Everything but where files lie."""
        return identity_of(
            self, self.problem.device, registry().find(self.method).requires, leave_out=("data_dir", "download")
        )

    def check(self) -> None:
        """Try the method's build without computing anything."""
        if not 0 <= self.warmup < self.steps:
            raise InputError(f"a chain of {self.steps} steps has no mean after a warm-up of {self.warmup}; use less")
        check_fit(registry().find(self.method), self.problem)

    def run(self, progress: Progress, keep: Keep = forget, resume: TrainingCheckpoint | None = None) -> list[Row]:
        """Train, impute, compare; one row a metric."""
        method = registry().find(self.method)
        row = row_maker(self, method, self.problem, self.dataset)
        try:
            data = load_data(method, self.dataset, self.data_dir, self.download, self.logit_alpha)
            if not isinstance(data.preprocessing, LogitPreprocessing):
                raise InputError(f"{data.name} holds no images to fill in")
            model = build(method, self.problem)
            if not isinstance(model, Imputes):
                raise InputError(f"{method.name} cannot impute")
        except InputError as error:
            return [row("psnr_posterior_mean", "dB", status="unavailable", reason=str(error))]
        try:
            metrics = self._measure(model, data, progress, keep, resume)
        except Divergence as error:
            return [row("psnr_posterior_mean", "dB", status="diverged", reason=str(error))]
        except Exception as error:  # a competitor may fail in any way; the others go on
            return [row("psnr_posterior_mean", "dB", status="failed", reason=one_line(error))]
        return [row(*parts, parameters=count_parameters(model)) for parts in metrics]

    def without_result(self, status: str, reason: str) -> list[Row]:
        """One row, in the place of the PSNR."""
        row = row_maker(self, registry().find(self.method), self.problem, self.dataset)
        return [row("psnr_posterior_mean", "dB", status=status, reason=reason)]

    def _measure(
        self, model: Model, data: Dataset, progress: Progress, keep: Keep, resume: TrainingCheckpoint | None
    ) -> list[tuple[str, str, Estimate]]:
        training = _moments(data, self.problem)
        report = fit(model, self.problem, data, data, self.config, progress, resume=resume)

        missing = torch.zeros(data.shape, dtype=torch.bool, device=self.problem.device)
        missing[:, data.shape[1] // 2 :] = True
        truth = data.test[: self.images].to(self.problem.device)
        generator = torch.Generator(self.problem.device).manual_seed(_SEED)
        known = data.preprocessing.draw(truth, generator, stored(self.problem.dtype))
        others = torch.randint(len(data.train), (len(truth),), generator=generator, device=self.problem.device)
        elsewhere = data.train.to(self.problem.device)[others]
        x = torch.where(missing, data.preprocessing.draw(elsewhere, generator, known.dtype), known)

        started = time.perf_counter()
        total = torch.zeros(truth.shape, dtype=torch.float64, device=truth.device)
        moves = 0.0
        chain = model.impute(
            x,
            missing,
            steps=self.steps,
            step_size=self.step_size,
            covariance=training.covariance if self.preconditioned else None,
            adjusted=self.adjusted,
            warmup=self.warmup,
            leapfrog=self.leapfrog,
            generator=generator,
        )
        for step in range(self.steps):
            with guarded("impute"):
                there = next(chain)
            moved = float((there != x).flatten(1).any(1).double().mean())
            x = there
            if step >= self.warmup:
                moves += moved
                total += as_levels(data.preprocessing, x)
            progress(step + 1, self.steps, "sampling")
        if not bool(x.isfinite().all()):
            raise Divergence("the chain is not finite: use a smaller step")
        seconds = time.perf_counter() - started

        filled = {
            "mean_image": data.train.to(truth.device).double().mean(0).expand(truth.shape),
            "gaussian": as_levels(data.preprocessing, _conditional_mean(known, missing, training)),
            "last_iterate": as_levels(data.preprocessing, x),
            "posterior_mean": total / (self.steps - self.warmup),
        }
        keep(imputed(truth, missing, filled, data.preprocessing.levels))
        peak = data.preprocessing.levels - 1
        found = {name: peak_signal_to_noise(levels, truth, missing, peak) for name, levels in filled.items()}
        gain = found["posterior_mean"] - found["mean_image"]
        return [
            *((f"psnr_{name}", "dB", mean_interval(values.tolist())) for name, values in found.items()),
            ("psnr_gain", "dB", mean_interval(gain.tolist())),
            ("accepted", "1", single(moves / (self.steps - self.warmup))),
            ("sampling_seconds", "s", single(seconds)),
            ("training_seconds", "s", single(report.seconds)),
            ("validation_nll", "nats", single(report.best_validation)),
        ]


def peak_signal_to_noise(levels: Tensor, truth: Tensor, missing: Tensor, peak: float) -> Tensor:
    """10 log10 of peak^2 over the mean squared error of the missing pixels, in dB, shape (B,).

    Args:
        levels: Shape (B, C, H, W).
        truth: Likewise.
        missing: Boolean, shape (C, H, W).
        peak: The highest level. An error below that of rounding to levels, 1/12, counts as 1/12.
    """
    error = (levels.double() - truth.double())[:, missing].square().mean(1)
    return 10 * torch.log10(peak**2 / error.clamp_min(1 / 12))


def _moments(data: Dataset, problem: Problem) -> Moments:
    """Those of the training data in model space."""
    generator = torch.Generator(problem.device).manual_seed(problem.seed)
    rows = data.train.to(problem.device).split(_ROWS_AT_ONCE)
    return moments(data.preprocessing.draw(raw, generator, torch.float64) for raw in rows)


def _conditional_mean(known: Tensor, missing: Tensor, training: Moments) -> Tensor:
    """Samples with the missing components at their Gaussian mean given the others, float64, shape of known."""
    away, mean, covariance = missing.flatten(), training.mean, training.covariance
    flat = known.flatten(1).double()
    regression = torch.linalg.solve(covariance[~away][:, ~away], covariance[~away][:, away])
    flat[:, away] = mean[away] + (flat[:, ~away] - mean[~away]) @ regression
    return flat.view_as(known)
