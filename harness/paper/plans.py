"""How an experiment is declared: timings over sizes, trainings over datasets, methods and seeds, and two more.

Cells, and with them torch, are imported when they are made: the experiments can be listed without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness import datasets
from harness.methods import Method, Problem
from harness.methods.registry import registry
from harness.paper.recipes import PUBLISHED_LAYERS

if TYPE_CHECKING:
    from harness.cells import Cell, LikelihoodCell
    from harness.training.configuration import TrainingConfig


@dataclass(frozen=True)
class Context:
    """What the command line adds to an experiment.

    Args:
        profile: quick or paper.
        device: Where to run.
        seed: Of the first run.
        seeds: How many runs; None for one in the quick profile and three in the paper's.
        methods: Names to keep; none for all.
        epochs: Fewer than the recipe's, as a budget; None for all.
        data_dir: Where the image data lie.
    """

    profile: str
    device: str = "cpu"
    seed: int = 0
    seeds: int | None = None
    methods: tuple[str, ...] = ()
    epochs: int | None = None
    data_dir: Path | None = None

    @property
    def quick(self) -> bool:
        """Whether experiments are shortened."""
        return self.profile == "quick"

    @property
    def all_seeds(self) -> range:
        """Of the repeated trainings."""
        return range(self.seed, self.seed + (self.seeds or (1 if self.quick else 3)))

    def keeps(self, method: Method) -> bool:
        """Whether a method is asked for."""
        return not self.methods or method.name in self.methods


class Plan(Protocol):
    """The declaration of an experiment's cells."""

    def cells(self, experiment: str, context: Context) -> Sequence[Cell]:
        """Return the units of work."""
        ...


@dataclass(frozen=True)
class Timings:
    """Seconds an iteration of every method on images of several sizes.

    Args:
        architecture: fc or cnn.
        channels: C.
        sides: n of the C x n x n images.
        quick_repeats: Repetitions in the quick profile; the paper's has 25.
        quick_sides: Values of n in the quick profile; None for all.
    """

    architecture: str
    channels: int
    quick_repeats: int
    quick_sides: tuple[int, ...] | None = None
    sides: tuple[int, ...] = (16, 20, 24, 28, 32, 36, 40)

    def cells(self, experiment: str, context: Context) -> Sequence[Cell]:
        """Return one cell a size, with all methods."""
        from harness.cells import RuntimeCell

        methods = [m.name for m in _methods(self.architecture) if m.iterative and context.keeps(m)]
        return [
            RuntimeCell(
                experiment=experiment,
                profile=context.profile,
                methods=tuple(methods),
                problem=Problem(
                    architecture=self.architecture,
                    shape=(self.channels, n, n),
                    layers=PUBLISHED_LAYERS[self.architecture],
                    device=context.device,
                    seed=context.seed,
                    residual=self.architecture == "cnn",
                ),
                repeats=self.quick_repeats if context.quick else 25,
            )
            for n in (context.quick and self.quick_sides) or self.sides
            if methods
        ]


@dataclass(frozen=True)
class Trainings:
    """Test likelihoods of every method, seed by seed.

    Args:
        datasets: Names.
        architecture: One for all.
        recipes: Names of the configurations.
        objectives: Those to train, beside what has a closed form; none for all.
        quick_objectives: The same for the quick profile, where it trains fewer.
        own: Whether only methods that can start from raw pixels take part, which are this project's own.
        settings: Pairs of EMA and MaP, crossed with all the rest.
        quick: Fields of the recipe that the quick profile shortens.
        quick_problem: Fields of the problem likewise.
        draws: K in the paper profile; the quick one makes at most two.
    """

    datasets: tuple[str, ...]
    architecture: str
    recipes: tuple[str, ...] = ("paper",)
    objectives: tuple[str, ...] = ()
    quick_objectives: tuple[str, ...] = ()
    own: bool = False
    settings: tuple[tuple[bool, bool], ...] = ((True, True),)
    quick: Mapping[str, Any] = field(default_factory=dict)
    quick_problem: Mapping[str, Any] = field(default_factory=dict)
    draws: int = 10

    def cells(self, experiment: str, context: Context) -> Sequence[Cell]:
        """Return one cell a setting, dataset, method and seed."""
        objectives = (context.quick and self.quick_objectives) or self.objectives
        methods = [
            method
            for method in _methods(self.architecture)
            if context.keeps(method)
            and (not objectives or method.objective in objectives or not method.iterative)
            and (method.raw_pixels or not self.own)
        ]
        return [
            self._cell(experiment, context, dataset, method, recipe, seed, ema, preprocess)
            for recipe in self.recipes
            for ema, preprocess in self.settings
            for dataset in self.datasets
            for method in methods
            for seed in context.all_seeds
        ]

    def _cell(
        self,
        experiment: str,
        context: Context,
        dataset: str,
        method: Method,
        recipe: str,
        seed: int,
        ema: bool,
        preprocess: bool,
    ) -> Cell:
        from harness.paper.configurations import configured_cell

        cell = configured_cell(
            experiment,
            context.profile,
            method,
            dataset,
            datasets.shape(dataset),
            self.architecture,
            recipe=recipe,
            device=context.device,
            seed=seed,
            draws=min(2, self.draws) if context.quick else self.draws,
        )
        config, problem = cell.config, cell.problem
        if not ema:
            config = replace(config, ema_decay=None)
        if context.quick:
            config = replace(config, **{"evaluate_every": 1, **self.quick})
            # The closed form has one layer, whatever the others have.
            problem = problem.replace(
                **{key: value for key, value in self.quick_problem.items() if method.iterative or key != "layers"}
            )
        else:
            config, told = _budget(replace(cell, config=config), context)
            cell = replace(cell, recipe=told)
        return replace(
            cell,
            config=config,
            problem=problem,
            preprocess=preprocess,
            data_dir=context.data_dir,
            download=not context.quick,
        )


@dataclass(frozen=True)
class Imputations:
    """The lower half of held-out MNIST images, filled in by Langevin dynamics.

    Args:
        methods: Names, with the recipe that each is trained by.
        steps: Of every chain; 100 in the quick profile, on 50 images.
    """

    methods: tuple[tuple[str, str], ...]

    def cells(self, experiment: str, context: Context) -> Sequence[Cell]:
        """Return one cell a method."""
        from harness.cells import ImputationCell
        from harness.paper.configurations import configured_cell

        found = []
        for name, recipe in self.methods:
            method = registry().find(name)
            if not context.keeps(method):
                continue
            cell = configured_cell(
                experiment,
                context.profile,
                method,
                "mnist",
                datasets.shape("mnist"),
                "fc",
                recipe=recipe,
                device=context.device,
                seed=context.seed,
            )
            config, told = (replace(cell.config, max_seconds=5.0), recipe) if context.quick else _budget(cell, context)
            found.append(
                ImputationCell(
                    experiment=experiment,
                    profile=context.profile,
                    method=name,
                    problem=cell.problem,
                    dataset="mnist",
                    config=config,
                    recipe=told,
                    logit_alpha=cell.logit_alpha,
                    images=50 if context.quick else 1000,
                    steps=100 if context.quick else 600,
                    data_dir=context.data_dir,
                    download=not context.quick,
                )
            )
        return found


@dataclass(frozen=True)
class NormalizerErrors:
    """Monte Carlo estimates of log Z against the exact one.

    Args:
        dimensions: Values of D; the quick profile leaves out those above 64.
    """

    dimensions: tuple[int, ...] = (2, 8, 16, 32, 64, 128, 256)

    def cells(self, experiment: str, context: Context) -> Sequence[Cell]:
        """Return one cell a dimension."""
        from harness.cells import NormalizerCell

        return [
            NormalizerCell(
                experiment,
                context.profile,
                problem=Problem(shape=(size,), dtype="float64", device=context.device, seed=context.seed),
            )
            for size in self.dimensions
            if (size <= 64 or not context.quick) and context.keeps(registry().find("ebflow-ml"))
        ]


def _budget(cell: LikelihoodCell, context: Context) -> tuple[TrainingConfig, str]:
    """Return the recipe cut to the epochs that were asked for, and what rows call it."""
    if context.epochs is None or not registry().find(cell.method).iterative:
        return cell.config, cell.recipe
    told = f"{cell.recipe}, {context.epochs} of {cell.config.epochs:,} epochs"
    return replace(cell.config, epochs=context.epochs), told


def _methods(architecture: str) -> list[Method]:
    """All methods with this architecture, those that cannot run here included: their rows say why."""
    return [method for method in registry().methods.values() if architecture in method.architectures]
