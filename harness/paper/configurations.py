"""The training configurations by name, one for every dataset, architecture and objective.

``paper`` is what was published, without what the paper's code applies unevenly: the low-energy regulariser and spectral
normalisation. What is left out is repeated in the statement that every reproduction prints.
``tuned`` is the same network, trained as well as we can; those named after it change one thing, or two. ``own`` is what
a method's own paper publishes, as the method declares. The ``official-`` ones switch on a quirk of the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness import datasets
from harness.errors import InputError, unknown
from harness.methods import Method, Problem, matches_scores
from harness.paper.recipes import PUBLISHED_LAYERS, RECIPES
from harness.training.configuration import TrainingConfig


@dataclass(frozen=True)
class Configuration:
    """A training configuration and what goes with it.

    Args:
        training: Optimiser, schedule and length.
        problem: The problem, but for shape, device and seed.
        logit_alpha: The divisor of the logit; None for data without a logit.
        smooth_noise: The scale of smooth dequantisation noise, or None for uniform noise.
        augment: Whether training images are mirrored and moved at random.
        clean_batches: Whether the objective's noise takes the place of the data's.
    """

    training: TrainingConfig
    problem: Problem
    logit_alpha: float | None = None
    smooth_noise: float | None = None
    augment: bool = False
    clean_batches: bool = False

    def changed(self, training: Mapping[str, Any], **problem: Any) -> Configuration:
        """Return this configuration with fields of the training and of the problem changed."""
        return replace(self, training=replace(self.training, **training), problem=self.problem.replace(**problem))


def configuration(
    dataset: str, architecture: str, objective: str, recipe: str = "paper", family: str = ""
) -> Configuration:
    """Return the configuration of a recipe; data and objectives that are not the paper's get the nearest one.

    Args:
        dataset: The name of the dataset.
        architecture: The name of the architecture.
        objective: The name of the training objective.
        recipe: The name of the recipe.
        family: The family that a method declares, or nothing: then the objective's name tells.

    Raises:
        InputError: If the recipe is unknown, or changes nothing for these data and this objective.
    """
    if recipe not in RECIPES:
        raise unknown("recipe", recipe, RECIPES)
    if matches_scores(objective, family) and objective not in ("ssm", "dsm", "fdssm"):
        objective = "ssm"
    elif family == "likelihood" and matches_scores(objective):
        objective = "ml"
    if dataset in ("sine", "swirl", "checkerboard"):
        published = _points(dataset, objective)
    elif dataset == "multimodal10":
        published = _MULTIMODAL
    elif (like := (_LIKE.get(dataset, dataset), architecture)) in _IMAGES:
        published = _IMAGES[like](objective)
    elif architecture == "cnn":
        published = replace(_mnist_cnn(objective), training=_SMALL)
    elif architecture == "glow":
        published = replace(_mnist_glow(objective), training=replace(_SMALL, optimizer="adam", clip_norm=500.0))
    else:
        published = Configuration(_SMALL, Problem(noise=0.3), logit_alpha=0.5)
    published = published.changed({}, architecture=architecture, layers=PUBLISHED_LAYERS[architecture])
    if recipe == "paper":
        return published
    if recipe == "own":
        raise InputError("the recipe own is for the datasets of the literature; use --recipe tuned")
    changed = _changed(published, recipe, dataset, objective)
    if changed == published:
        raise InputError(f"the recipe {recipe} changes nothing for {objective} on {dataset} with {architecture}")
    return changed


def _changed(published: Configuration, recipe: str, dataset: str, objective: str) -> Configuration:
    """Return what a recipe other than paper makes of the published configuration, which may be the same."""
    architecture = published.problem.architecture
    if recipe == "paper-unaugmented":
        return replace(published, augment=False)
    if recipe == "official-actnorm":
        return published.changed({}, frozen_actnorm=architecture in ("toy", "glow"))
    if recipe == "official-lambda":
        # The authors' is 0 on MNIST. The Gaussian stands beside score matching in this recipe's table too.
        if dataset != "cifar10" or not (matches_scores(objective) or objective == "closed-form"):
            return published
        scale = published.problem.noise**2 if objective == "fdssm" else 3
        return published.changed({}, energy_weight=1e-3 / scale)
    if recipe.startswith("snf"):
        return _snf(published, recipe) if architecture == "fc" and published.logit_alpha is not None else published
    augment = recipe == "tuned-augmented"
    if augment and published.logit_alpha is None:
        return published  # no images
    smooth, unrefitted = recipe.startswith("tuned-smooth"), recipe.endswith("-unrefitted")
    if architecture != "fc" and (unrefitted or recipe == "tuned-logit-space"):
        return published  # no other architecture is refitted, or starts whitened
    if smooth and architecture in ("toy", "multimodal"):  # samples that are no grey levels
        return published
    tuned = _tuned(published, dataset, (_LIKE.get(dataset, dataset), architecture) in _IMAGES, objective)
    if recipe == "tuned-logit-space":
        tuned = tuned.changed({}, start="whitened-start")
    if unrefitted:
        tuned = tuned.changed({"calibrate": False})
    if augment and architecture == "fc":  # three copies of CIFAR-10, of which a refit would take a minute each time
        slow = {"start_samples": 120_000, "learning_rate": 3e-5, "epochs": 5, "evaluate_every": 1}
        tuned = tuned.changed({**slow, "calibrate": matches_scores(objective)})
    return replace(tuned, smooth_noise=1.25 if smooth else None, augment=augment)


_SNF_STARTS = {
    "snf": "identity",
    "snf-negated": "published",
    "snf-orthogonal": "orthogonal",
    "snf-whitened": "whitened",
}


def _snf(published: Configuration, recipe: str) -> Configuration:
    """Return how Self Normalizing Flows (https://arxiv.org/abs/2011.07248) train the fc network, from a start.

    The authors' issue 2 tells of 962 or 1,036 nats after 2,000 epochs, by the start alone.
    """
    start = _SNF_STARTS[recipe]
    training = TrainingConfig(
        optimizer="adam", decay=1.0, ema_decay=None, epochs=2_000, start_samples=50_000 if start == "whitened" else None
    )
    return replace(published, training=training, problem=published.problem.replace(start=start), logit_alpha=1.0)


def _tuned(published: Configuration, dataset: str, large: bool, objective: str) -> Configuration:
    """Return the network trained as well as we can; a large dataset needs fewer epochs."""
    likelihood, architecture = not matches_scores(objective), published.problem.architecture
    if dataset in TABULAR:
        return _tuned_tabular(published, dataset, objective)
    if architecture == "fc":
        training = TrainingConfig(
            optimizer="adam",
            learning_rate=1e-3 if likelihood else 3e-4,
            schedule="cosine",
            ema_decay=None,
            epochs=(60 if likelihood else 8) if large else 200,
            evaluate_every=(2 if likelihood else 1) if large else 10,
            start_samples=50_000,
            calibrate=True,
        )
        problem = published.problem.replace(noise=0.1 if objective == "fdssm" else 0.3, start="whitened")
        return replace(published, training=training, problem=problem)
    if architecture == "multimodal":
        return published  # it is published with Adam already
    epochs, batch, rate, clip_norm = {
        "cnn": (10, 100, 3e-3, 100.0),
        "glow": (1, 32, 1e-3, 100.0),
        "toy": (60, 500, 1e-3, 1.0),  # nothing bounds the scales of its couplings
    }[architecture]
    training = replace(
        published.training,
        optimizer="adam",
        learning_rate=rate,
        schedule="cosine",
        weight_decay=0.0,
        clip_norm=clip_norm,
        epochs=epochs,
        evaluate_every=1,
    )
    return replace(published, training=training, problem=published.problem.replace(batch=batch))


def _tuned_tabular(published: Configuration, dataset: str, objective: str) -> Configuration:
    """Return the recipe for large tables: one pass, or 1,500 steps where that is more."""
    fc = published.problem.architecture == "fc"
    epochs = max(1, round(_TABULAR_STEPS * _TABULAR_BATCH / datasets.DECLARATIONS[dataset].splits[0]))
    training = TrainingConfig(
        optimizer="adam",
        learning_rate=1e-3 if matches_scores(objective) else 3e-3,
        schedule="cosine",
        clip_norm=5.0,
        ema_decay=None,
        epochs=epochs,
        evaluate_every=1,
        evaluate_steps=100,
        start_samples=50_000,
        calibrate=fc,
    )
    problem = published.problem.replace(
        batch=_TABULAR_BATCH,
        noise=0.1 if objective == "fdssm" else 0.3,
        start="whitened" if fc else "published",
        hidden=128,
        mixing=True,
    )
    return replace(published, training=training, problem=problem)


def own(chosen: Configuration, method: Method, dataset: str) -> tuple[Configuration, str]:
    """Return a configuration with what a method's own paper publishes for a dataset, and what tables say about it.

    Raises:
        InputError: If the method declares nothing for the dataset.
    """
    declared = method.own_recipes.get(dataset)
    if declared is None:
        offered = ", ".join(method.own_recipes) or "no dataset"
        raise InputError(f"{method.name} declares hyper-parameters of its own for {offered}, not {dataset}")
    problem = chosen.problem.replace(**declared.problem)
    epochs = max(1, round(declared.steps * problem.batch / datasets.DECLARATIONS[dataset].splits[0]))
    training = TrainingConfig(
        **{
            **{"optimizer": "adam", "ema_decay": None, "epochs": epochs, "evaluate_every": 1, "start_samples": 50_000},
            **declared.training,
        }
    )
    return replace(chosen, training=training, problem=problem), declared.caveat


TABULAR = ("patches", "power", "gas", "hepmass", "miniboone", "bsds300")
"""The large tables: all have one tuned recipe."""

_TABULAR_STEPS, _TABULAR_BATCH = 1_500, 256
_SMALL = TrainingConfig(learning_rate=1e-3, decay=0.98, decay_epochs=100, epochs=100, evaluate_every=5)


def _mnist_fc(objective: str) -> Configuration:
    return Configuration(TrainingConfig(clip_norm=5.0 if objective == "fdssm" else None), Problem(), logit_alpha=0.5)


def _mnist_cnn(objective: str) -> Configuration:
    likelihood = not matches_scores(objective)
    training = TrainingConfig(
        decay=0.925 if likelihood else 0.95,
        weight_decay=1e-5 if likelihood or objective == "dsm" else 0.0,
        clip_norm=5.0 if objective == "fdssm" else None,
        epochs=1000,
        evaluate_every=1,
    )
    return Configuration(training, Problem(noise=0.1, residual=True), logit_alpha=0.75)


def _mnist_glow(objective: str) -> Configuration:
    training = TrainingConfig(
        optimizer="adam", learning_rate=1e-5, decay=1.0, clip_norm=500.0, epochs=80, evaluate_every=1
    )
    return Configuration(training, Problem(noise=1.0 if objective == "fdssm" else 0.1), logit_alpha=1.0)


def _cifar10_fc(objective: str) -> Configuration:
    decay, decay_epochs = (0.85, 30) if objective in ("ssm", "dsm") else (0.7, 20)
    training = TrainingConfig(decay=decay, decay_epochs=decay_epochs, weight_decay=1e-3, evaluate_every=1)
    return Configuration(training, Problem(noise=0.1, residual=True), logit_alpha=0.5, augment=True)


def _cifar10_cnn(objective: str) -> Configuration:
    decay, decay_epochs = {"ssm": (0.9, 20), "fdssm": (0.85, 50)}.get(objective, (0.8, 20))
    training = TrainingConfig(decay=decay, decay_epochs=decay_epochs, weight_decay=1e-3, evaluate_every=1)
    return Configuration(training, Problem(noise=0.1, residual=True), logit_alpha=0.75, augment=True)


_LIKE = {"fashion-mnist": "mnist"}
_IMAGES = {
    ("mnist", "fc"): _mnist_fc,
    ("mnist", "cnn"): _mnist_cnn,
    ("mnist", "glow"): _mnist_glow,
    ("cifar10", "fc"): _cifar10_fc,
    ("cifar10", "cnn"): _cifar10_cnn,
}


# 10,001 iterations of 25 an epoch. float64 because of the data: see `harness.datasets.densities.Multimodal`.
_MULTIMODAL = Configuration(
    TrainingConfig(
        optimizer="adam", learning_rate=1e-3, decay=1.0, clip_norm=500.0, ema_decay=None, epochs=401, evaluate_every=10
    ),
    Problem(batch=2048, dtype="float64"),
)


def _points(dataset: str, objective: str) -> Configuration:
    rates: dict[str, float] = {"sine": {"ml": 5e-4, "sml": 5e-4}, "swirl": {"ml": 5e-3}}.get(dataset, {})
    clips: dict[str, dict[str, float | None]] = {
        "sine": {"sml": None, "default": 1.0},
        "swirl": {"ml": 1.0, "fdssm": 2.5, "default": 10.0},
        "checkerboard": {"default": 10.0},
    }
    clip = clips[dataset]
    batch, iterations = (10_000, 100_001) if dataset == "checkerboard" else (2048, 50_001)
    steps_an_epoch = -(-50_000 // batch)
    training = TrainingConfig(
        optimizer="adam",
        learning_rate=rates.get(objective, 1e-4),
        decay=1.0,
        clip_norm=clip.get(objective, clip["default"]),
        skip_not_finite=True,
        epochs=-(-iterations // steps_an_epoch),
        evaluate_every=100,
    )
    problem = Problem(noise=0.1 if objective == "fdssm" else 0.375, batch=batch, dtype="float64")
    return Configuration(training, problem, clean_batches=objective == "dsm")
