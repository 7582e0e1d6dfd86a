"""The experiments: each published table or figure as a list of cells, in full or shortened.

``quick`` shortens every experiment to minutes on two cores and says how; ``paper`` runs the published protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.cells import Cell, LikelihoodCell, RuntimeCell
from harness.errors import unknown
from harness.paper.configurations import configuration
from harness.problem import Problem
from harness.registry import registry
from harness.training import TrainingConfig

__all__ = ["EXPERIMENTS", "PROFILES", "Context", "Experiment", "likelihood_cell", "select"]

PROFILES = ("quick", "paper")

_SHAPES = {
    "sine": (2,),
    "swirl": (2,),
    "checkerboard": (2,),
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
}

OBJECTIVES = ("ebflow-ml", "ebflow-sml", "ebflow-ssm", "ebflow-dsm", "ebflow-fdssm")
SCORE_MATCHING = ("ebflow-ssm", "ebflow-dsm", "ebflow-fdssm")
PEERS = ("nflows-dense-ml", "nflows-lu-ml", "normflows-dense-ml", "normflows-lu-ml", "normflows-luperm-ml")


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


def likelihood_cell(
    experiment: str,
    context: Context,
    method: str,
    dataset: str,
    architecture: str,
    seed: int,
    draws: int,
    shorten: Callable[[TrainingConfig], TrainingConfig] = lambda training: training,
) -> LikelihoodCell:
    """Return a cell with the published configuration, its training shortened by the given function."""
    recipe = configuration(dataset, architecture, registry().find(method).objective)
    problem = Problem(
        architecture=architecture,
        shape=_SHAPES[dataset],
        layers=recipe.layers,
        batch=recipe.batch,
        dtype=recipe.dtype,
        device=context.device,
        seed=seed,
        residual=recipe.residual,
        noise=recipe.noise,
    )
    return LikelihoodCell(
        experiment=experiment,
        profile=context.profile,
        method=method,
        problem=problem,
        dataset=dataset,
        config=shorten(recipe.training),
        draws=draws,
        logit_alpha=recipe.logit_alpha,
        clean_batches=recipe.clean_batches,
        data_dir=context.data_dir,
        download=not context.quick,
    )


def _runtime(architecture: str, channels: int) -> Callable[[str, Context], Sequence[Cell]]:
    def cells(name: str, context: Context) -> Sequence[Cell]:
        methods = OBJECTIVES + (PEERS if architecture == "fc" else ())
        repeats = (7 if architecture == "fc" else 3) if context.quick else 25
        return [
            RuntimeCell(
                experiment=name,
                profile=context.profile,
                methods=methods,
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


def _likelihood(
    dataset: str, architecture: str, methods: Sequence[str], **quick: float
) -> Callable[[str, Context], Sequence[Cell]]:
    def cells(name: str, context: Context) -> Sequence[Cell]:
        def shorten(training: TrainingConfig) -> TrainingConfig:
            return replace(training, **{"evaluate_every": 1, **quick}) if context.quick else training

        return [
            likelihood_cell(name, context, method, dataset, architecture, seed, 2 if context.quick else 10, shorten)
            for method in methods
            for seed in context.seeds
        ]

    return cells


def _points(name: str, context: Context) -> Sequence[Cell]:
    def shorten(training: TrainingConfig) -> TrainingConfig:
        # The published rates are for 50,000 steps; a short run needs larger ones, the same for every method.
        if context.quick:
            return replace(training, learning_rate=1e-3, epochs=24, evaluate_every=8)
        return training

    cells = [
        likelihood_cell(name, context, method, dataset, "toy", seed, 1, shorten)
        for dataset in ("sine", "swirl", "checkerboard")
        for method in ("gaussian", *OBJECTIVES)
        for seed in context.seeds
    ]
    if not context.quick:
        return cells
    return [replace(cell, problem=cell.problem.replace(batch=1000)) for cell in cells]


def _ablation(dataset: str, architecture: str, **quick: float) -> Callable[[str, Context], Sequence[Cell]]:
    def cells(name: str, context: Context) -> Sequence[Cell]:
        return [
            replace(cell, preprocess=with_map, config=replace(cell.config, ema_decay=0.999 if with_ema else None))
            for with_ema, with_map in ((False, False), (True, False), (False, True), (True, True))
            for cell in _likelihood(dataset, architecture, SCORE_MATCHING, **quick)(name, context)
        ]

    return cells


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
        "1,200 steps of batch 1,000 and rate 1e-3 instead of 50,000 to 100,000 steps of batch 2,048 to 10,000",
        "divergences are from the exact density of the noised data; the published ones are from a kernel estimate, "
        "and their values could not be obtained",
    ),
    Experiment(
        "digits-fc",
        "NLL on the embedded 8 x 8 digits, fc (not in the paper)",
        _likelihood("digits", "fc", ("gaussian", *OBJECTIVES, *PEERS), epochs=40, evaluate_every=5),
        "40 epochs instead of 100, 2 test draws instead of 10, one seed instead of three",
    ),
    Experiment(
        "table2-mnist-fc",
        "NLL on MNIST, fc",
        _likelihood("mnist", "fc", ("gaussian", *OBJECTIVES, *PEERS), epochs=2, max_seconds=15),
        "2 epochs or 15 s of training instead of 10,000 epochs, 2 test draws, one seed instead of three",
    ),
    Experiment(
        "table2-mnist-cnn",
        "NLL on MNIST, cnn",
        _likelihood("mnist", "cnn", ("gaussian", *OBJECTIVES), epochs=2, max_seconds=8),
        "2 epochs or 8 s of training instead of 1,000 epochs, 2 test draws, one seed instead of three",
    ),
    Experiment(
        "table2-cifar10-fc",
        "NLL on CIFAR-10, fc",
        _likelihood("cifar10", "fc", ("gaussian", *OBJECTIVES), epochs=1, max_seconds=8),
        "8 s of training instead of 10,000 epochs, 2 test draws, one seed instead of three",
        _CIFAR_DIFFERS,
    ),
    Experiment(
        "table2-cifar10-cnn",
        "NLL on CIFAR-10, cnn",
        _likelihood("cifar10", "cnn", ("gaussian", *OBJECTIVES), epochs=1, max_seconds=8),
        "8 s of training instead of 10,000 epochs, 2 test draws, one seed instead of three",
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
        _ablation("mnist", "fc", epochs=1, max_seconds=10),
        "1 epoch or 10 s of training instead of 10,000 epochs, 2 test draws, one seed instead of three",
        _MAP_DIFFERS,
    ),
)
