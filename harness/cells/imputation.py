"""Filling in the lower half of images: what a model knows of the missing pixels, in dB."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.cells.base import Keep, Progress, not_measured, single
from harness.cells.estimate import pace
from harness.cells.likelihood import TrainedCell
from harness.cells.pictures import as_levels, imputed
from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import LogitPreprocessing
from harness.errors import InputError, UnavailableError
from harness.methods import Imputes, Model, Moments, Problem, moments
from harness.methods.calls import guarded
from harness.methods.density import build, count_parameters, folded
from harness.methods.precision import stored
from harness.methods.registry import registry
from harness.methods.seeds import generator
from harness.methods.whitened import Whitened
from harness.results import Row
from harness.results.statistics import Estimate, mean_interval
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.loop import Divergence
from harness.training.scoring import fit

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class ImputationCell(TrainedCell):
    """PSNR of Langevin imputation after training on one image dataset.

    The lower half of the first test images is missing, rows H // 2 and below. Chains run in model space, from the
    missing pixels of training images drawn at random, and hold the upper half. Every iterate is taken back to grey
    levels; the estimates compared are the last iterate, the mean level over all iterates after the warm-up, the
    training set's mean image, and the exact conditional mean of the Gaussian with the training data's moments in model
    space. PSNR is over the missing pixels of one image, its peak the highest level; rows are means over the images.

    Args:
        images: The number of test images.
        steps: The number of steps of every chain.
        warmup: The number of steps that the mean leaves out. Where steps are adjusted, they adapt the step size too.
        step_size: The chain's step size at its start, in units of the training data's covariance if preconditioned, or
            else in squared units of model space.
        preconditioned: Whether the chain's drift and noise have the covariance that the training data give the missing
            pixels, the others known.
        adjusted: Whether steps are accepted or refused (Metropolis), so that the chain has no bias.
        leapfrog: The number of scores that a step costs; 1 is Langevin dynamics, more are Hamiltonian Monte Carlo.
    """

    kind: ClassVar[str] = "imputation"
    main_metric: ClassVar[tuple[str, str]] = ("psnr_posterior_mean", "dB")

    images: int = 1000
    steps: int = 600
    warmup: int = 50
    step_size: float = 0.05
    preconditioned: bool = True
    adjusted: bool = True
    leapfrog: int = 5

    @property
    def title(self) -> str:
        return f"imputation by {super().title}"

    def cost(self) -> float:
        """Estimate the seconds of the training and of the chains, where a score costs about three densities."""
        scores = 3 * self.steps * self.leapfrog * self.images
        return super().cost() + scores * pace(self.method, self.problem, self.config).sample

    def check(self) -> None:
        if not 0 <= self.warmup < self.steps:
            raise InputError(f"a chain of {self.steps} steps has no mean after a warm-up of {self.warmup}; use less")
        super().check()

    def train(self, progress: Progress, keep: Keep, resume: TrainingCheckpoint | None) -> list[Row]:
        method = registry().find(self.method)
        row = self.row_maker(method)
        data = self.load()
        if not isinstance(data.preprocessing, LogitPreprocessing):
            raise UnavailableError(f"{data.name} holds no images to fill in")
        try:
            model = build(method, self.problem)
        except InputError as error:
            raise UnavailableError(str(error)) from error
        if not isinstance(model.model if isinstance(model, Whitened) else model, Imputes):
            raise UnavailableError(f"{method.name} cannot impute")
        training = _moments(data, self.problem)
        report = fit(model, self.problem, data, data, self.config, progress, resume=resume)
        size: dict[str, Any] = {"parameters": count_parameters(model)}
        trained = [("training_seconds", "s", report.seconds), ("validation_nll", "nats", report.best_validation)]
        rows = [row(metric, unit, single(value), **size) for metric, unit, value in trained]
        try:
            metrics = self._impute(model, data, data.preprocessing, training, progress, keep)
        except Exception as error:  # the training stands, whatever a chain does
            return [not_measured(row, *self.main_metric, error, **size), *rows]
        return [*(row(*metric, **size) for metric in metrics), *rows]

    def _impute(
        self,
        model: Model,
        data: Dataset,
        preprocessing: LogitPreprocessing,
        training: Moments,
        progress: Progress,
        keep: Keep,
    ) -> list[tuple[str, str, Estimate]]:
        """Run the chains of a trained model that `Imputes`, and list metric, unit and value of all that they tell."""
        imputing = folded(model)  # which a whitening in front would hide
        assert isinstance(imputing, Imputes)

        missing = torch.zeros(data.shape, dtype=torch.bool, device=self.problem.device)
        missing[:, data.shape[1] // 2 :] = True
        truth = data.test[: self.images].to(self.problem.device)
        noise = generator(0, "imputation", self.problem.device)
        known = preprocessing.draw(truth, noise, stored(self.problem.dtype))
        others = torch.randint(len(data.train), (len(truth),), generator=noise, device=self.problem.device)
        elsewhere = data.train.to(self.problem.device)[others]
        x = torch.where(missing, preprocessing.draw(elsewhere, noise, known.dtype), known)

        started = time.perf_counter()
        total = torch.zeros(truth.shape, dtype=torch.float64, device=truth.device)
        moves = 0.0
        chain = imputing.impute(
            x,
            missing,
            steps=self.steps,
            step_size=self.step_size,
            covariance=training.covariance if self.preconditioned else None,
            adjusted=self.adjusted,
            warmup=self.warmup,
            leapfrog=self.leapfrog,
            generator=noise,
        )
        for step in range(self.steps):
            with guarded("impute"):
                there = next(chain)
            moved = float((there != x).flatten(1).any(1).double().mean())
            x = there
            if step >= self.warmup:
                moves += moved
                total += as_levels(preprocessing, x)
            progress(step + 1, self.steps, "sampling")
        if not bool(x.isfinite().all()):
            raise Divergence("the chain is not finite: use a smaller step")
        seconds = time.perf_counter() - started

        filled = {
            "mean_image": data.train.to(truth.device).double().mean(0).expand(truth.shape),
            "gaussian": as_levels(preprocessing, _conditional_mean(known, missing, training)),
            "last_iterate": as_levels(preprocessing, x),
            "posterior_mean": total / (self.steps - self.warmup),
        }
        keep(imputed(truth, missing, filled, preprocessing.levels))
        peak = preprocessing.levels - 1
        ratios = {name: peak_signal_to_noise(levels, truth, missing, peak) for name, levels in filled.items()}
        gain = ratios["posterior_mean"] - ratios["mean_image"]
        return [
            *((f"psnr_{name}", "dB", mean_interval(values.tolist())) for name, values in ratios.items()),
            ("psnr_gain", "dB", mean_interval(gain.tolist())),
            ("accepted", "1", single(moves / (self.steps - self.warmup))),
            ("sampling_seconds", "s", single(seconds)),
        ]


def peak_signal_to_noise(levels: Tensor, truth: Tensor, missing: Tensor, peak: float) -> Tensor:
    """Return 10 log10 of peak^2 over the mean squared error of the missing pixels, in dB, shape (B,).

    Args:
        levels: The estimated grey levels, shape (B, C, H, W).
        truth: The true grey levels, shape (B, C, H, W).
        missing: Whether a pixel is missing, boolean, shape (C, H, W).
        peak: The highest level. An error below that of rounding to levels, 1/12, counts as 1/12.
    """
    error = (levels.double() - truth.double())[:, missing].square().mean(1)
    return 10 * torch.log10(peak**2 / error.clamp_min(1 / 12))


def _moments(data: Dataset, problem: Problem) -> Moments:
    """Return mean and covariance of the training data in model space."""
    noise = generator(problem.seed, "closed form", problem.device)
    rows = data.train.to(problem.device).split(_ROWS_AT_ONCE)
    return moments(data.preprocessing.draw(raw, noise, torch.float64) for raw in rows)


def _conditional_mean(known: Tensor, missing: Tensor, training: Moments) -> Tensor:
    """Return samples with the missing components at their Gaussian mean given the others, float64."""
    away, mean, covariance = missing.flatten(), training.mean, training.covariance
    flat = known.flatten(1).double()
    regression = torch.linalg.solve(covariance[~away][:, ~away], covariance[~away][:, away])
    flat[:, away] = mean[away] + (flat[:, ~away] - mean[~away]) @ regression
    return flat.view_as(known)
