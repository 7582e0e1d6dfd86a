"""How far Monte Carlo estimates of a model's log Z are from the exact one, as the dimension grows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.cells.base import Keep, Progress, check_fit, forget, identity_of, row_maker
from harness.errors import one_line
from harness.methods import Model, NormalizerEstimates, Problem, SharedWeights
from harness.methods.calls import guarded
from harness.methods.density import build, count_parameters, sample
from harness.methods.precision import stored
from harness.methods.registry import registry, why_unavailable
from harness.results import Row
from harness.results.statistics import mean_interval
from harness.training.checkpoints import TrainingCheckpoint

ESTIMATORS = ("prior", "gaussian", "bridge")
"""Those of `harness.methods.NormalizerEstimates`."""

_DATA = 10_000
_LOWEST, _HIGHEST = 0.9, 1.5


@dataclass(frozen=True)
class NormalizerCell:
    """Errors of estimates of log Z on one flow of random weights, whose exact log Z is known.

    The weights have random singular vectors and singular values from 0.9 to 1.5, the biases are N(0, 1/4): the model
    is no Gaussian, and its exact samples stand for training data. Every repetition estimates with noise of its own; a
    row is the mean over the repetitions of the absolute error, or of the estimate's own standard error or effective
    samples.

    Args:
        method: Name.
        problem: Its shape gives the dimension.
        draws: Of the proposal, each repetition.
        repeats: Repetitions.
    """

    experiment: str
    profile: str
    method: str = "ebflow-ml"
    problem: Problem = field(default_factory=lambda: Problem(shape=(16,), dtype="float64"))
    draws: int = 5000
    repeats: int = 10

    @property
    def title(self) -> str:
        """Method and size."""
        return f"log Z of {self.method}, D = {self.problem.dimension}, L = {self.problem.layers}"

    @property
    def exclusive(self) -> bool:
        """Nothing is timed."""
        return False

    def identity(self) -> dict[str, Any]:
        """Everything but the time of day."""
        return identity_of(self, self.problem.device, registry().find(self.method).requires)

    def check(self) -> None:
        """Try the method's build without computing anything."""
        check_fit(registry().find(self.method), self.problem)

    def run(self, progress: Progress, keep: Keep = forget, resume: TrainingCheckpoint | None = None) -> list[Row]:
        """Estimate and compare; three rows an estimator."""
        method = registry().find(self.method)
        row = row_maker(self, method, self.problem, "normal")
        if (missing := why_unavailable(method)) is not None:
            return [row("log_z_error_prior", "nats", status="unavailable", reason=missing)]
        try:
            model = build(method, self.problem)
            if not (isinstance(model, NormalizerEstimates) and isinstance(model, SharedWeights)):
                reason = f"{method.name} has no estimates of log Z"
                return [row("log_z_error_prior", "nats", status="unavailable", reason=reason)]
            with guarded("load_linear_layers"):
                model.load_linear_layers(_random_layers(self.problem))
            rows = []
            for name, estimates in self._estimate(model, progress).items():
                errors, standard_errors, effective = zip(*estimates, strict=True)
                rows += [
                    row(*parts, parameters=count_parameters(model))
                    for parts in (
                        (f"log_z_error_{name}", "nats", mean_interval(errors)),
                        (f"log_z_standard_error_{name}", "nats", mean_interval(standard_errors)),
                        (f"ess_{name}", "1", mean_interval(effective)),
                    )
                ]
        except Exception as error:  # a competitor may fail in any way; the others go on
            return [row("log_z_error_prior", "nats", status="failed", reason=one_line(error))]
        return rows

    def without_result(self, status: str, reason: str) -> list[Row]:
        """One row, in the place of an error."""
        row = row_maker(self, registry().find(self.method), self.problem, "normal")
        return [row("log_z_error_prior", "nats", status=status, reason=reason)]

    def _estimate(self, model: Any, progress: Progress) -> dict[str, list[tuple[float, float, float]]]:
        """Return absolute error, standard error and effective samples of every repetition of every estimator."""
        generator = torch.Generator(self.problem.device).manual_seed(self.problem.seed)
        data = _own_samples(model, self.problem, generator)
        with torch.no_grad(), guarded("log_normalizer"):
            exact = float(model.log_normalizer())
        found: dict[str, list[tuple[float, float, float]]] = {}
        for number, name in enumerate(ESTIMATORS):
            found[name] = []
            for repeat in range(self.repeats):
                with guarded("estimate_log_normalizer"):
                    value, standard_error, effective = model.estimate_log_normalizer(name, data, self.draws, generator)
                found[name].append((abs(value - exact), standard_error, effective))
                progress(number * self.repeats + repeat + 1, len(ESTIMATORS) * self.repeats, name)
        return found


def _own_samples(model: Model, problem: Problem, generator: torch.Generator) -> Tensor:
    """Exact samples of the model, shape (N, *event), with N of at least ten for each dimension."""
    with guarded("sampling"):
        latent = model.to_latent(torch.zeros(1, *problem.shape, dtype=stored(problem.dtype), device=problem.device))[0]
        return sample(model, tuple(latent.shape[1:]), max(_DATA, 10 * problem.dimension), generator)


def _random_layers(problem: Problem) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of all layers from the problem's seed, float64."""
    generator = torch.Generator().manual_seed(problem.seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    size = problem.dimension
    scales = torch.logspace(math.log10(_LOWEST), math.log10(_HIGHEST), size, dtype=torch.float64)
    layers = []
    for _ in range(problem.layers):
        left, right = torch.linalg.qr(normal(size, size)).Q, torch.linalg.qr(normal(size, size)).Q
        layers.append((left * scales @ right, 0.5 * normal(size)))
    return layers
