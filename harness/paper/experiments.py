"""The experiments: each published table or figure as a list of cells, in full or shortened.

``quick`` shortens every experiment to minutes on two cores and says how; ``paper`` runs the published protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.cells import Cell, LikelihoodCell, RuntimeCell
from harness.errors import unknown
from harness.method import Method
from harness.paper.configurations import configured_cell
from harness.problem import Problem
from harness.registry import registry

__all__ = ["EXPERIMENTS", "PROFILES", "Context", "Experiment", "select", "statement"]

PROFILES = ("quick", "paper")

_SHAPES = {
    "sine": (2,),
    "swirl": (2,),
    "checkerboard": (2,),
    "multimodal10": (10,),
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
}


@dataclass(frozen=True)
class Context:
    """What the command line adds to an experiment.

    Args:
        profile: quick or paper.
        device: Where to run.
        seed: Of the first run; the paper profile takes this and the next two.
        data_dir: Where the image data lie.
    """

    profile: str
    device: str = "cpu"
    seed: int = 0
    data_dir: Path | None = None

    @property
    def quick(self) -> bool:
        """Whether experiments are shortened."""
        return self.profile == "quick"

    @property
    def seeds(self) -> range:
        """Of the repeated trainings."""
        return range(self.seed, self.seed + (1 if self.quick else 3))


@dataclass(frozen=True)
class Experiment:
    """One published table or figure.

    Args:
        name: As `reproduce` takes it.
        title: What it answers.
        cells: Its units of work.
        shortened: What the quick profile leaves out, in plain words.
        differs: How even the paper profile differs from the publication, in plain words.
    """

    name: str
    title: str
    cells: Callable[[str, Context], Sequence[Cell]]
    shortened: str
    differs: str = ""


def select(names: Sequence[str], profile: str) -> list[Experiment]:
    """Return the experiments of these names, or all; check the profile too.

    Raises:
        InputError: An unknown name or profile.
    """
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    by_name = {experiment.name: experiment for experiment in EXPERIMENTS}
    for name in names:
        if name not in by_name:
            raise unknown("experiment", name, by_name)
    return [by_name[name] for name in dict.fromkeys(names)] or list(EXPERIMENTS)


def statement(name: str, profile: str) -> str:
    """Say in one line how an experiment differs from the publication; empty for what is no published experiment."""
    for experiment in EXPERIMENTS:
        if experiment.name == name:
            parts = [experiment.shortened if profile == "quick" else "", experiment.differs]
            if any(parts):
                return f"Differs from the publication: {'; '.join(filter(None, parts))}."
    return ""


def _runtime(architecture: str, channels: int) -> Callable[[str, Context], Sequence[Cell]]:
    def cells(name: str, context: Context) -> Sequence[Cell]:
        repeats = (7 if architecture == "fc" else 3) if context.quick else 25
        return [
            RuntimeCell(
                experiment=name,
                profile=context.profile,
                methods=tuple(method.name for method in _methods(architecture) if method.iterative),
                problem=Problem(
                    architecture=architecture,
                    shape=(channels, n, n),
                    layers=2 if architecture == "fc" else 6,
                    device=context.device,
                    seed=context.seed,
                    residual=architecture == "cnn",
                ),
                repeats=repeats,
            )
            for n in (16, 20, 24, 28, 32, 36, 40)
        ]

    return cells


def _likelihood(dataset: str, architecture: str, **quick: float) -> Callable[[str, Context], Sequence[LikelihoodCell]]:
    """Return the cells of every method, seed by seed; `quick` holds the fields of the recipe that are shortened."""

    def cells(name: str, context: Context) -> Sequence[LikelihoodCell]:
        found = []
        for method in _methods(architecture):
            for seed in context.seeds:
                cell = configured_cell(
                    name,
                    context.profile,
                    method,
                    dataset,
                    _SHAPES[dataset],
                    architecture,
                    device=context.device,
                    seed=seed,
                    draws=2 if context.quick else 10,
                )
                shortened = replace(cell.config, **{"evaluate_every": 1, **quick}) if context.quick else cell.config
                found.append(replace(cell, config=shortened, data_dir=context.data_dir, download=not context.quick))
        return found

    return cells


def _points(name: str, context: Context) -> Sequence[Cell]:
    # The published rates are for 50,000 steps; a short run needs larger ones, the same for every method.
    quick = {"learning_rate": 1e-3, "max_seconds": 4}
    sets = ("sine", "swirl", "checkerboard")
    cells = [cell for dataset in sets for cell in _likelihood(dataset, "toy", **quick)(name, context)]
    # A draw of the noise is a test point of its own here, so one draw of 10,000 is what the paper does.
    cells = [replace(cell, draws=1) for cell in cells]
    if not context.quick:
        return cells
    return [
        replace(cell, problem=cell.problem.replace(batch=200, layers=min(cell.problem.layers, 5))) for cell in cells
    ]


def _matrices(name: str, context: Context) -> Sequence[Cell]:
    cells = _likelihood("multimodal10", "multimodal", max_seconds=5)(name, context)
    return [replace(cell, draws=1) for cell in cells]  # no noise: every draw is the same


def _ablation(dataset: str, architecture: str, **quick: float) -> Callable[[str, Context], Sequence[Cell]]:
    def cells(name: str, context: Context) -> Sequence[Cell]:
        score_matching = {
            method.name
            for method in _methods(architecture)
            if method.raw_pixels and method.objective in ("ssm", "dsm", "fdssm")
        }
        return [
            replace(cell, preprocess=with_map, config=replace(cell.config, ema_decay=0.999 if with_ema else None))
            for with_ema, with_map in ((False, False), (True, False), (False, True), (True, True))
            for cell in _likelihood(dataset, architecture, **quick)(name, context)
            if cell.method in score_matching
        ]

    return cells


def _methods(architecture: str) -> list[Method]:
    """All methods with this architecture, those that cannot run here included: their rows say why."""
    return [method for method in registry().methods.values() if architecture in method.architectures]


_RUNTIME_DIFFERS = (
    "published seconds were measured on an unnamed GPU by code that computes convolution determinants on the CPU: "
    "compare shapes of curves, not seconds"
)
_LESS_REPEATS = "fewer repetitions of each method than the paper profile's 25"
_CIFAR_DIFFERS = "no augmentation, no low-energy regulariser, no spectral normalisation"
_MAP_DIFFERS = (
    "without MaP, noise leaves the pixel range and the logit is not a number: DSM and FDSSM diverge as published; "
    "the authors' code masks these values"
)

EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        "figure2a-fc",
        "seconds an iteration against n, fc, 1 x n x n",
        _runtime("fc", 1),
        _LESS_REPEATS,
        _RUNTIME_DIFFERS,
    ),
    Experiment(
        "figure2a-cnn",
        "seconds an iteration against n, cnn, 1 x n x n",
        _runtime("cnn", 1),
        _LESS_REPEATS,
        _RUNTIME_DIFFERS,
    ),
    Experiment(
        "table1-2d",
        "KL and Fisher divergence from the exact density, 2-D sets",
        _points,
        "4 s of training with batch 200, rate 1e-3 and 4 blocks, instead of 50,000 to 100,000 steps with batch 2,048 "
        "to 10,000 and 10 blocks; one seed instead of three",
        "divergences are from the exact density of the noised data; the published ones are from a kernel estimate, "
        "and their values could not be obtained",
    ),
    Experiment(
        "digits-fc",
        "NLL on the embedded 8 x 8 digits, fc (not in the paper)",
        _likelihood("digits", "fc", epochs=40, evaluate_every=5),
        "40 epochs instead of 100, 2 test draws instead of 10, one seed instead of three",
    ),
    Experiment(
        "table2-mnist-fc",
        "NLL on MNIST, fc",
        _likelihood("mnist", "fc", epochs=2, max_seconds=6),
        "2 epochs or 6 s of training instead of 10,000 epochs, 2 test draws, one seed instead of three",
    ),
    Experiment(
        "table2-mnist-cnn",
        "NLL on MNIST, cnn",
        _likelihood("mnist", "cnn", epochs=2, max_seconds=4),
        "2 epochs or 4 s of training instead of 1,000 epochs, 2 test draws, one seed instead of three",
    ),
    Experiment(
        "table2-cifar10-fc",
        "NLL on CIFAR-10, fc",
        _likelihood("cifar10", "fc", epochs=1, max_seconds=3),
        "3 s of training instead of 10,000 epochs, 2 test draws, one seed instead of three",
        _CIFAR_DIFFERS,
    ),
    Experiment(
        "table2-cifar10-cnn",
        "NLL on CIFAR-10, cnn",
        _likelihood("cifar10", "cnn", epochs=1, max_seconds=3),
        "3 s of training instead of 10,000 epochs, 2 test draws, one seed instead of three",
        _CIFAR_DIFFERS,
    ),
    Experiment(
        "table4-digits-fc",
        "EMA and MaP, one without the other, embedded digits (not in the paper)",
        _ablation("digits", "fc", epochs=40, evaluate_every=5),
        "40 epochs instead of 100, 2 test draws, one seed instead of three",
        _MAP_DIFFERS,
    ),
    Experiment(
        "table4-mnist-fc",
        "EMA and MaP, one without the other, MNIST",
        _ablation("mnist", "fc", epochs=1, max_seconds=4),
        "1 epoch or 4 s of training instead of 10,000 epochs, 2 test draws, one seed instead of three",
        _MAP_DIFFERS,
    ),
    Experiment(
        "figure-a4-matrices",
        "NLL of a 10-D multimodal density with full, triangular and LU matrices",
        _matrices,
        "5 s of training instead of 10,001 steps, one seed instead of three",
        "the base is N(0, I) instead of the authors' Laplace distribution; float64, because in float32 half "
        "of the points lie on hyperplanes; validation picks the weights; the published curves could not be obtained",
    ),
)
