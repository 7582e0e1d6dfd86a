"""The published training configurations, one for every dataset, architecture and objective.

Left out on purpose, because the paper's code applies them unevenly: the low-energy regulariser, spectral normalisation
and CIFAR-10's augmentation. What is left out is repeated in the statement that every reproduction prints.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from harness.cells import LikelihoodCell
from harness.method import Method
from harness.problem import Problem
from harness.training import TrainingConfig

__all__ = ["Configuration", "configuration", "configured_cell"]


@dataclass(frozen=True)
class Configuration:
    """A recipe and the parts of a problem that go with it.

    Args:
        training: Optimiser, schedule, length.
        noise: DSM's sigma and FDSSM's epsilon.
        residual: Of the activation.
        logit_alpha: None for data without a logit.
        batch: B.
        layers: L.
        dtype: Of parameters and batches.
        clean_batches: Whether the objective's noise takes the place of the data's.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    noise: float = 1.0
    residual: bool = False
    logit_alpha: float | None = None
    batch: int = 100
    layers: int = 2
    dtype: str = "float32"
    clean_batches: bool = False


def configured_cell(
    experiment: str,
    profile: str,
    method: Method,
    dataset: str,
    shape: tuple[int, ...],
    architecture: str,
    *,
    device: str = "cpu",
    seed: int = 0,
    draws: int = 10,
) -> LikelihoodCell:
    """Return the cell that trains a method on a dataset as the paper does; shape is the dataset's event shape."""
    recipe = configuration(dataset, architecture, method.objective)
    problem = Problem(
        architecture=architecture,
        shape=shape,
        layers=recipe.layers if method.iterative else 1,
        batch=recipe.batch,
        dtype=recipe.dtype,
        device=device,
        seed=seed,
        residual=recipe.residual,
        noise=recipe.noise,
    )
    return LikelihoodCell(
        experiment=experiment,
        profile=profile,
        method=method.name,
        problem=problem,
        dataset=dataset,
        config=recipe.training,
        draws=draws,
        logit_alpha=recipe.logit_alpha,
        clean_batches=recipe.clean_batches,
    )


def configuration(dataset: str, architecture: str, objective: str) -> Configuration:
    """Return the paper's recipe, or for data and objectives that are not the paper's the nearest one."""
    objective = "ssm" if objective == "tssm" else objective
    if dataset in ("sine", "swirl", "checkerboard"):
        found = _points(dataset, objective)
    elif dataset == "multimodal10":
        found = _MULTIMODAL
    elif (dataset, architecture) in _IMAGES:
        found = _IMAGES[dataset, architecture](objective)
    elif architecture == "cnn":
        found = replace(_mnist_cnn(objective), training=_SMALL)
    else:
        found = Configuration(_SMALL, noise=0.3, logit_alpha=0.5)
    natural_layers = {"fc": 2, "cnn": 6, "toy": 11, "multimodal": 11}[architecture]
    return replace(found, layers=natural_layers)


_SMALL = TrainingConfig(learning_rate=1e-3, decay=0.98, decay_epochs=100, epochs=100, evaluate_every=5)


def _mnist_fc(objective: str) -> Configuration:
    return Configuration(TrainingConfig(clip_norm=5.0 if objective == "fdssm" else None), logit_alpha=0.5)


def _mnist_cnn(objective: str) -> Configuration:
    likelihood = objective in ("ml", "sml")
    training = TrainingConfig(
        decay=0.925 if likelihood else 0.95,
        weight_decay=1e-5 if likelihood or objective == "dsm" else 0.0,
        clip_norm=5.0 if objective == "fdssm" else None,
        epochs=1000,
        evaluate_every=1,
    )
    return Configuration(training, noise=0.1, residual=True, logit_alpha=0.75)


def _cifar10_fc(objective: str) -> Configuration:
    decay, decay_epochs = (0.85, 30) if objective in ("ssm", "dsm") else (0.7, 20)
    training = TrainingConfig(decay=decay, decay_epochs=decay_epochs, weight_decay=1e-3, evaluate_every=1)
    return Configuration(training, noise=0.1, residual=True, logit_alpha=0.5)


def _cifar10_cnn(objective: str) -> Configuration:
    decay, decay_epochs = {"ssm": (0.9, 20), "fdssm": (0.85, 50)}.get(objective, (0.8, 20))
    training = TrainingConfig(decay=decay, decay_epochs=decay_epochs, weight_decay=1e-3, evaluate_every=1)
    return Configuration(training, noise=0.1, residual=True, logit_alpha=0.75)


_IMAGES = {
    ("mnist", "fc"): _mnist_fc,
    ("mnist", "cnn"): _mnist_cnn,
    ("cifar10", "fc"): _cifar10_fc,
    ("cifar10", "cnn"): _cifar10_cnn,
}


# 10,001 iterations of 25 an epoch. float64 because of the data: see `harness.datasets.Multimodal`.
_MULTIMODAL = Configuration(
    TrainingConfig(
        optimizer="adam",
        learning_rate=1e-3,
        decay=1.0,
        clip_norm=500.0,
        ema_decay=None,
        epochs=401,
        evaluate_every=10,
    ),
    batch=2048,
    dtype="float64",
)


def _points(dataset: str, objective: str) -> Configuration:
    rates = {"sine": {"ml": 5e-4, "sml": 5e-4}, "swirl": {"ml": 5e-3}, "checkerboard": {}}[dataset]
    clips: dict[str, float | None] = {
        "sine": {"sml": None, "default": 1.0},
        "swirl": {"ml": 1.0, "fdssm": 2.5, "default": 10.0},
        "checkerboard": {"default": 10.0},
    }[dataset]
    batch, iterations = (10_000, 100_001) if dataset == "checkerboard" else (2048, 50_001)
    steps_an_epoch = -(-50_000 // batch)
    training = TrainingConfig(
        optimizer="adam",
        learning_rate=rates.get(objective, 1e-4),
        decay=1.0,
        clip_norm=clips.get(objective, clips["default"]),
        epochs=-(-iterations // steps_an_epoch),
        evaluate_every=100,
    )
    noise = 0.1 if objective == "fdssm" else 0.375
    return Configuration(training, noise=noise, batch=batch, dtype="float64", clean_batches=objective == "dsm")
