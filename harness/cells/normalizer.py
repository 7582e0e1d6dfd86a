"""How far Monte Carlo estimates of a model's log Z are from the exact one, as the dimension grows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.cells.base import Cell, Keep, Progress
from harness.cells.estimate import pace
from harness.errors import UnavailableError
from harness.methods import Model, NormalizerEstimates, Problem, SharedWeights
from harness.methods.calls import guarded
from harness.methods.density import build, count_parameters, sample
from harness.methods.precision import stored
from harness.methods.registry import registry, why_unavailable
from harness.methods.seeds import generator
from harness.results import Row
from harness.results.statistics import mean_interval
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig

ESTIMATORS = ("prior", "gaussian", "bridge")
"""Those of `harness.methods.NormalizerEstimates`."""

_DATA = 10_000
_LOWEST, _HIGHEST = 0.9, 1.5


@dataclass(frozen=True, kw_only=True)
class NormalizerCell(Cell):
    """Errors of estimates of log Z on one flow of random weights, whose exact log Z is known.

    The weights have random singular vectors and singular values from 0.9 to 1.5, the biases are N(0, 1/4): the model
    is no Gaussian, and its exact samples stand for training data. Every repetition estimates with noise of its own; a
    row is the mean over the repetitions of the absolute error, or of the estimate's own standard error or effective
    samples.

    Args:
        method: The name of the method.
        draws: The number of draws of the proposal, in each repetition.
        repeats: The number of repetitions.
    """

    kind: ClassVar[str] = "normalizer"
    main_metric: ClassVar[tuple[str, str]] = ("log_z_error_prior", "nats")

    method: str = "ebflow-ml"
    draws: int = 5000
    repeats: int = 10

    @property
    def method_names(self) -> tuple[str, ...]:
        return (self.method,)

    @property
    def title(self) -> str:
        return f"log Z of {self.method}, D = {self.problem.dimension}, L = {self.problem.layers}"

    def cost(self) -> float:
        """Estimate the seconds of all draws, each of which is scored about twice."""
        draws = 2 * len(ESTIMATORS) * self.repeats * self.draws
        return draws * pace(self.method, self.problem, TrainingConfig()).sample

    def measure(self, progress: Progress, keep: Keep, resume: TrainingCheckpoint | None) -> list[Row]:
        method = registry().find(self.method)
        row = self.row_maker(method)
        if (missing := why_unavailable(method)) is not None:
            raise UnavailableError(missing)
        model = build(method, self.problem)
        if not (isinstance(model, NormalizerEstimates) and isinstance(model, SharedWeights)):
            raise UnavailableError(f"{method.name} has no estimates of log Z")
        with guarded("load_linear_layers"):
            model.load_linear_layers(_random_layers(self.problem))
        noise = generator(self.problem.seed, "log Z", self.problem.device)
        data = _own_samples(model, self.problem, noise)
        with torch.no_grad(), guarded("log_normalizer"):
            exact = float(model.log_normalizer())
        size = {"parameters": count_parameters(model)}
        rows = []
        for number, name in enumerate(ESTIMATORS):
            estimates = []
            for repeat in range(self.repeats):
                with guarded("estimate_log_normalizer"):
                    estimates.append(model.estimate_log_normalizer(name, data, self.draws, noise))
                progress(number * self.repeats + repeat + 1, len(ESTIMATORS) * self.repeats, name)
            values, standard_errors, effective = zip(*estimates, strict=True)
            rows += [
                row(f"log_z_error_{name}", "nats", mean_interval([abs(value - exact) for value in values]), **size),
                row(f"log_z_standard_error_{name}", "nats", mean_interval(standard_errors), **size),
                row(f"ess_{name}", "1", mean_interval(effective), **size),
            ]
        return rows


def _own_samples(model: Model, problem: Problem, noise: torch.Generator) -> Tensor:
    """Exact samples of the model, shape (N, *event), with N of at least ten for each dimension."""
    with guarded("sampling"):
        latent = model.to_latent(torch.zeros(1, *problem.shape, dtype=stored(problem.dtype), device=problem.device))[0]
        return sample(model, tuple(latent.shape[1:]), max(_DATA, 10 * problem.dimension), noise)


def _random_layers(problem: Problem) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of all layers from the problem's seed, float64."""
    draws = generator(problem.seed, "start")

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64)

    size = problem.dimension
    scales = torch.logspace(math.log10(_LOWEST), math.log10(_HIGHEST), size, dtype=torch.float64)
    layers = []
    for _ in range(problem.layers):
        left, right = torch.linalg.qr(normal(size, size)).Q, torch.linalg.qr(normal(size, size)).Q
        layers.append((left * scales @ right, 0.5 * normal(size)))
    return layers
