"""How an experiment is declared: timings over sizes, trainings over datasets, methods and seeds, and two more.

Cells, and with them torch, are imported when they are made: the experiments can be listed without.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness import datasets
from harness.methods import Method, Problem
from harness.methods.registry import registry
from harness.paper.configurations import TABULAR, Configuration, configuration, own
from harness.paper.recipes import PUBLISHED_LAYERS
from harness.training.configuration import TrainingConfig

if TYPE_CHECKING:
    from harness.cells import Cell, LikelihoodCell

_PAPER_SEEDS, _PAPER_REPEATS, _QUICK_DRAWS = 3, 25, 2
_SIDES = (16, 20, 24, 28, 32, 36, 40)  # n of the timings
_MORE_SIDES = {"fc": (8, *_SIDES, 48, 64), "cnn": (*_SIDES, 48, 64)}  # on a GPU, which has room for D = 12,288
_DIMENSIONS = (2, 8, 16, 32, 64, 128, 256)  # D of the estimates of log Z
_BLOCKS = 5  # of flows without linear layers on large tables, as in MAF (5)
_QUICK_DIMENSION = 64  # the largest D in the quick profile


@dataclass(frozen=True)
class Context:
    """What the command line adds to an experiment.

    Args:
        profile: The profile, quick or paper.
        device: The device that the cells run on, as torch names it.
        seed: The first seed.
        seeds: The number of seeds; None for one in the quick profile and three in the paper's.
        methods: The names of the methods to keep; none for all.
        epochs: A budget of fewer epochs than the recipe's; None for all of them.
        data_dir: The folder of the image data.
        offline: Whether the network is left alone.
        cuda_graphs: Whether training steps are recorded once and replayed.
    """

    profile: str
    device: str = "cpu"
    seed: int = 0
    seeds: int | None = None
    methods: tuple[str, ...] = ()
    epochs: int | None = None
    data_dir: Path | None = None
    offline: bool = False
    cuda_graphs: bool = False

    @property
    def quick(self) -> bool:
        """Whether experiments are shortened."""
        return self.profile == "quick"

    @property
    def downloads(self) -> bool:
        """Whether a cell may fetch the data that it lacks."""
        return not (self.quick or self.offline)

    def keeps(self, method: Method) -> bool:
        """Whether a method is asked for."""
        return not self.methods or method.name in self.methods

    def argv(self, experiment: str, methods: Sequence[str], seed: int) -> tuple[str, ...]:
        """Return the arguments of this program that ask for the cells of some methods and one seed alone."""
        words = ["reproduce", experiment, "--profile", self.profile, "--methods", ",".join(methods)]
        words += ["--seeds", "1", "--seed", str(seed), "--device", self.device]
        words += ["--epochs", str(self.epochs)] if self.epochs is not None else []
        return (*words, *(["--cuda-graphs"] if self.cuda_graphs else []))


class Plan(Protocol):
    """The declaration of an experiment's cells."""

    def cells(self, experiment: str, context: Context) -> Sequence[Cell]:
        """Return the units of work."""
        ...

    def shortened(self) -> str:
        """Say in words what the quick profile leaves out."""
        ...


@dataclass(frozen=True)
class Timings(Plan):
    """Seconds an iteration of every method on images of several sizes.

    Args:
        architecture: The architecture, fc or cnn.
        channels: C of the C x n x n images.
        quick_repeats: The number of repetitions in the quick profile; the paper's has 25.
        quick_sides: The values of n in the quick profile; none for all.
    """

    architecture: str
    channels: int
    quick_repeats: int
    quick_sides: tuple[int, ...] = ()

    def cells(self, experiment: str, context: Context) -> Sequence[Cell]:
        """Return one cell a size, with all methods; with replayed steps in the context, another one for these."""
        from harness.cells import Origin, RuntimeCell

        methods = [method.name for method in _methods(self.architecture, context) if method.iterative]
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
                repeats=self.quick_repeats if context.quick else _PAPER_REPEATS,
                config=TrainingConfig(cuda_graphs=replayed),
                origin=Origin(context.argv(experiment, methods, context.seed)),
            )
            for replayed in ((False, True) if context.cuda_graphs else (False,))
            for n in self._sides(context)
            if methods
        ]

    def _sides(self, context: Context) -> tuple[int, ...]:
        """Return the values of n."""
        if context.quick:
            return self.quick_sides or _SIDES
        return _SIDES if context.device == "cpu" else _MORE_SIDES[self.architecture]

    def shortened(self) -> str:
        sizes = f"n = {_listed([str(n) for n in self.quick_sides])} alone; " if self.quick_sides else ""
        return f"{sizes}{_counted(self.quick_repeats, 'repetition')} of each method instead of {_PAPER_REPEATS}"


@dataclass(frozen=True)
class Trainings(Plan):
    """Test likelihoods of every method, seed by seed.

    Args:
        datasets: The names of the datasets.
        architecture: The one architecture.
        quick: Fields of the recipe that the quick profile shortens, with their new values.
        recipes: The names of the configurations.
        objectives: The objectives to train, beside what has a closed form; none for all.
        quick_objectives: The objectives to train in the quick profile, where it trains fewer.
        methods: The names of the methods that take part; none for all.
        variants: Fields of the problem with their new values, one mapping a variant, and an empty one for the recipe as
            it is. Only methods whose steps are not alike take part in a variant that sets their refresh.
        own: Whether only methods that can start from raw pixels take part, which are this project's own.
        settings: Pairs of EMA and MaP, crossed with all the rest.
        quick_problem: Fields of the problem that the quick profile shortens, with their new values.
        draws: K in the paper profile; the quick one makes at most two.
    """

    datasets: tuple[str, ...]
    architecture: str
    quick: Mapping[str, Any]
    recipes: tuple[str, ...] = ("paper",)
    objectives: tuple[str, ...] = ()
    quick_objectives: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    variants: tuple[Mapping[str, Any], ...] = ({},)
    own: bool = False
    settings: tuple[tuple[bool, bool], ...] = ((True, True),)
    quick_problem: Mapping[str, Any] = field(default_factory=dict)
    draws: int = 10

    def cells(self, experiment: str, context: Context) -> Sequence[Cell]:
        """Return one cell a recipe, setting, dataset, method, variant and seed."""
        quick, objectives, draws = context.quick, self.objectives, self.draws
        if quick:
            objectives, draws = self.quick_objectives or objectives, min(_QUICK_DRAWS, draws)
        methods = [
            method
            for method in _methods(self.architecture, context)
            if (not objectives or method.objective in objectives or not method.iterative)
            and (method.raw_pixels or not self.own)
            and (not self.methods or method.name in self.methods)
        ]
        seeds = range(context.seed, context.seed + (context.seeds or (1 if quick else _PAPER_SEEDS)))
        cells = []
        for recipe, (ema, preprocess), dataset, method, variant, seed in itertools.product(
            self.recipes, self.settings, self.datasets, methods, self.variants, seeds
        ):
            if "refresh" in variant and not method.periods:
                continue
            cell = configured_cell(
                experiment, context, method, dataset, self.architecture, recipe=recipe, seed=seed, draws=draws
            )
            if quick and cell.augment and not (method.iterative or context.methods):
                continue  # a closed form sees all copies, which takes minutes
            cell = replace(cell, preprocess=preprocess, download=context.downloads)
            # L has a column of its own in every table.
            named = [name if new is True else f"{name} {new}" for name, new in variant.items() if name != "layers"]
            cell = replace(overridden(cell, {}, variant), recipe=", ".join([recipe, *named]))
            if not ema:
                cell = overridden(cell, {"ema_decay": None})
            if context.cuda_graphs and method.iterative and not cell.config.skip_not_finite:
                cell = overridden(cell, {"cuda_graphs": True})
            if quick:
                # The closed form has one layer, whatever the others have.
                problem = {
                    name: new for name, new in self.quick_problem.items() if method.iterative or name != "layers"
                }
                cell = overridden(cell, {"evaluate_every": 1, **self.quick}, problem)
            else:
                cell = _budgeted(cell, context)
            cells.append(cell)
        return cells

    def shortened(self) -> str:
        recipes = [
            configuration(dataset, self.architecture, objective, recipe)
            for dataset in self.datasets
            for objective in self.quick_objectives or self.objectives or ("ml", "ssm", "dsm", "fdssm")
            for recipe in self.recipes
        ]
        usual = [vars(recipe.training) | vars(recipe.problem) for recipe in recipes]
        quick = {**self.quick, **self.quick_problem}
        parts = []
        if self.quick_objectives:
            parts.append(f"{_listed([objective.upper() for objective in self.quick_objectives])} alone")
        lengths, epochs = [], _span([settings["epochs"] for settings in usual])
        if "epochs" in quick:
            lengths.append(_counted(quick["epochs"], "epoch"))
        if "max_seconds" in quick:
            lengths.append(f"{quick['max_seconds']} s of training")
            epochs += " epochs"
        parts.append(f"{' or '.join(lengths)} instead of {epochs}")
        for name, word in (("batch", "batch"), ("layers", "L ="), ("learning_rate", "rate")):
            if name in quick:
                parts.append(f"{word} {quick[name]:g} instead of {_span([settings[name] for settings in usual])}")
        if self.draws > _QUICK_DRAWS:
            parts.append(f"{_QUICK_DRAWS} test draws instead of {self.draws}")
        return ", ".join([*parts, "one seed instead of three"])


@dataclass(frozen=True)
class Imputations(Plan):
    """The lower half of held-out MNIST images, filled in by Langevin dynamics.

    Args:
        methods: The names of the methods, each with the recipe that it is trained by.
        quick: Images, steps of every chain, and seconds of training in the quick profile.
    """

    methods: tuple[tuple[str, str], ...]
    quick: tuple[int, int, float] = (50, 100, 5.0)

    def cells(self, experiment: str, context: Context) -> Sequence[Cell]:
        """Return one cell a method."""
        from harness.cells import ImputationCell

        images, steps, seconds = self.quick
        imputations = []
        for name, recipe in self.methods:
            method = registry().find(name)
            if not context.keeps(method):
                continue
            cell = configured_cell(experiment, context, method, "mnist", "fc", recipe=recipe, seed=context.seed)
            cell = overridden(cell, {"max_seconds": seconds}) if context.quick else _budgeted(cell, context)
            imputation = ImputationCell(
                experiment=experiment,
                profile=context.profile,
                method=name,
                problem=cell.problem,
                dataset="mnist",
                config=cell.config,
                recipe=cell.recipe,
                logit_alpha=cell.logit_alpha,
                data_dir=context.data_dir,
                download=context.downloads,
                origin=cell.origin,
            )
            imputations.append(replace(imputation, images=images, steps=steps) if context.quick else imputation)
        return imputations

    def shortened(self) -> str:
        images, steps, seconds = self.quick
        return f"{images} images instead of 1,000, {steps} steps instead of 600, {seconds:g} s of training"


@dataclass(frozen=True)
class NormalizerErrors(Plan):
    """Monte Carlo estimates of log Z against the exact one."""

    def cells(self, experiment: str, context: Context) -> Sequence[Cell]:
        """Return one cell a dimension."""
        from harness.cells import NormalizerCell, Origin

        method = registry().find("ebflow-ml")
        return [
            NormalizerCell(
                experiment=experiment,
                profile=context.profile,
                method=method.name,
                problem=Problem(shape=(size,), dtype="float64", device=context.device, seed=context.seed),
                origin=Origin(context.argv(experiment, [method.name], context.seed)),
            )
            for size in _DIMENSIONS
            if (size <= _QUICK_DIMENSION or not context.quick) and context.keeps(method)
        ]

    def shortened(self) -> str:
        return f"D up to {_QUICK_DIMENSION} alone"


def configured_cell(
    experiment: str,
    context: Context,
    method: Method,
    dataset: str,
    architecture: str,
    *,
    recipe: str = "paper",
    seed: int = 0,
    draws: int = 10,
) -> LikelihoodCell:
    """Return the cell that trains a method on a dataset by a recipe.

    Raises:
        InputError: If the recipe is unknown, or changes nothing here.
    """
    from harness.cells import LikelihoodCell, Origin

    base = "paper" if recipe == "own" else recipe
    chosen = configuration(dataset, architecture, method.objective, base, method.family)
    chosen, caveat = own(chosen, method, dataset) if recipe == "own" else suited(chosen, method, recipe, dataset)
    return LikelihoodCell(
        experiment=experiment,
        profile=context.profile,
        recipe=recipe,
        method=method.name,
        problem=chosen.problem.replace(shape=datasets.shape(dataset), device=context.device, seed=seed),
        dataset=dataset,
        config=chosen.training,
        draws=draws,
        logit_alpha=chosen.logit_alpha,
        smooth_noise=chosen.smooth_noise,
        augment=chosen.augment,
        clean_batches=chosen.clean_batches,
        data_dir=context.data_dir,
        caveat=caveat,
        origin=Origin(context.argv(experiment, [method.name], seed), recipe, shortened=False),
    )


def suited(chosen: Configuration, method: Method, recipe: str, dataset: str) -> tuple[Configuration, str]:
    """Return a configuration as a method can take it, and what tables say where that is not as others take it."""
    caveats = []
    if chosen.problem.start != "published":
        if not method.is_papers_fc:
            samples = chosen.training.start_samples if dataset in TABULAR else None
            chosen = chosen.changed({"start_samples": samples, "calibrate": False}, start="published")
        if method.iterative and (method.own_start or not method.is_papers_fc):
            caveats.append(method.own_start or "it starts as its library does, and its last layer is not refitted")
    fc = chosen.problem.architecture == "fc"
    if recipe.startswith("tuned") and dataset in TABULAR and fc and method.linear == "none":
        chosen = chosen.changed({}, layers=_BLOCKS)
    if method.rate is not None and recipe.startswith("tuned"):
        rate = method.rate.factor * chosen.training.learning_rate
        chosen = chosen.changed({"learning_rate": rate})
        caveats.append(f"its learning rate is {rate:g}, {method.rate.factor:g} times the recipe's: {method.rate.why}")
    if not method.iterative:
        chosen = chosen.changed({}, layers=1)
    return chosen, "; ".join(caveats)


def overridden(
    cell: LikelihoodCell, training: Mapping[str, Any], problem: Mapping[str, Any] | None = None
) -> LikelihoodCell:
    """Return a cell with fields of its recipe and of its problem changed; its rows will tell which.

    Args:
        cell: A cell as `configured_cell` returns it, or this function.
        training: Fields of the training configuration, with their new values.
        problem: Fields of the problem, with their new values.
    """
    problem = problem or {}
    config = replace(cell.config, **training)
    changed = {name: value for name, value in training.items() if value != getattr(cell.config, name)}
    changed |= {name: value for name, value in problem.items() if value != getattr(cell.problem, name)}
    shorter = config.epochs < cell.config.epochs or config.max_seconds is not None
    origin = replace(
        cell.origin,
        overrides={**cell.origin.overrides, **changed},
        shortened=registry().find(cell.method).iterative and (cell.origin.shortened or shorter),
    )
    return replace(cell, config=config, problem=cell.problem.replace(**problem), origin=origin)


def _budgeted(cell: LikelihoodCell, context: Context) -> LikelihoodCell:
    """Return a cell cut to the epochs that were asked for, and named so."""
    if context.epochs is None or not registry().find(cell.method).iterative:
        return cell
    label = f"{cell.recipe}, {context.epochs} of {cell.config.epochs:,} epochs"
    return replace(overridden(cell, {"epochs": context.epochs}), recipe=label)


def _methods(architecture: str, context: Context) -> list[Method]:
    """Return the methods to measure with this architecture, also those that cannot run here: their rows say why."""
    return [m for m in registry().methods.values() if architecture in m.architectures and context.keeps(m)]


def _listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
