"""What a competitor must offer, and what it declares about itself.

A *method* is a competitor together with a training objective, such as ``nflows-lu-ml``. A module of methods declares
the list ``METHODS``. It imports torch and its own library only inside its builders, so that listing methods is quick
and a missing library disables only the methods that need it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from harness.errors import InputError, unknown
from harness.methods.cost import LayerCost
from harness.methods.problem import ARCHITECTURES, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SCORE_MATCHING = ("ssm", "tssm", "dsm", "fdssm", "lcss")
"""The names of objectives that match scores where a method does not declare its family."""

FAMILIES = ("likelihood", "score-matching")
"""How a method is trained: as maximum likelihood is, or as score matching, whose own loss is watched beside the NLL."""

_PAPERS_FC = ("dense", "lu", "luperm")

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")


class Model(Protocol):
    """A built competitor: the harness trains it, times it and scores it through these members alone.

    The base distribution is N(0, I) and belongs to the harness, which derives log_prob and samples from `to_latent` and
    `to_data`. A subclass of this class inherits the hooks that do nothing.

    A stopped training goes on in a new model that is built, started from the same data and given the module's state
    dict. If a model remembers more than that between steps, such as the state of a generator, it must be `Stateful`.
    """

    module: nn.Module

    def init_batch(self, x: Tensor) -> None:
        """Initialise the model from data of shape (N, *event), one batch or as many samples as the recipe says.

        The harness calls this once, before the first step. Its time counts as training time, and not in the timing of
        an iteration.
        """
        return  # else mypy takes a hook that does nothing for one that must be written

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the scalar to minimise for one batch of shape (B, *event); all noise comes from the generator."""

    def after_step(self) -> None:
        """Do what follows every optimiser step, such as restoring a constraint; its time is part of an iteration."""
        return

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data (B, *event) to z, shape (B, ...), and the whole log|det dz/dx| in nats, shape (B,)."""

    def to_data(self, z: Tensor) -> Tensor:
        """Map latents, in the shape that `to_latent` gives, to data of shape (B, *event)."""


@runtime_checkable
class SharedWeights(Protocol):
    """A model whose linear layers can be read and set from outside.

    The fairness tests give all such models the same weights. The harness gives them one start from data, and refits
    their last layer, where a recipe says so.
    """

    def linear_layers(self) -> list[tuple[Tensor, Tensor]]:
        """Return W, shape (D, D), and b, shape (D,), of each linear layer z = W x + b as it is now, first to last."""

    def load_linear_layers(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Set each linear layer to z = W x + b; a layer of triangular factors takes every W that has such factors.

        Args:
            layers: Pairs of W, shape (D, D), and b, shape (D,), from the first layer to the last.

        Raises:
            ValueError: if the factors of a layer cannot make a W; then the harness tries the same density by another W.
        """


@runtime_checkable
class LossBeforeMap(Protocol):
    """A model that matches scores, and can match them in front of a fixed linear map as well as behind it."""

    def loss_before_map(
        self, x: Tensor, matrix: Tensor, shift: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the loss, a scalar, of the density of x that this model has of A x + c.

        Args:
            x: A batch of shape (B, D).
            matrix: The matrix A, shape (D, D).
            shift: The vector c, shape (D,).
            generator: Generator of all noise.
        """


@runtime_checkable
class ClosedForm(Protocol):
    """A model with a direct solution instead of training steps."""

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit the model to the batches, each of shape (B, *event), in one pass."""


@runtime_checkable
class Stateful(Protocol):
    """A model that remembers more than its module's state dict and what follows from building and starting it."""

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return everything else that losses and densities depend on, such as the state of a generator, by name."""

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take up the state that `get_extra_state` of a model of the same problem returned."""


@runtime_checkable
class Prepared(Protocol):
    """A model whose step looks at numbers now and then, which a step that is recorded and replayed cannot."""

    def prepare(self) -> bool:
        """Do the part of a step that looks at numbers; the harness calls it before every step that it replays.

        Returns:
            Whether all that is left of a step is the same operations on the same tensors every time.
        """

    def prepared(self) -> AbstractContextManager[object]:
        """Return a context in which `training_loss` leaves that part out: in it, a step is recorded."""


@runtime_checkable
class Observed(Protocol):
    """A model that tells numbers of its own at every validation."""

    def observations(self) -> dict[str, float]:
        """Return plain numbers by the name of a metric, for the weights and gradients that the last step has left.

        Every training keeps them as rows of its curve, and a metric ``refreshes``, the number of refreshes of a method
        whose steps are not alike, also as the steps that a refresh lasts.
        """


@runtime_checkable
class Imputes(Protocol):
    """A model that fills in missing components by Langevin dynamics."""

    def impute(
        self,
        x: Tensor,
        missing: Tensor,
        *,
        steps: int,
        step_size: float,
        covariance: Tensor | None,
        adjusted: bool,
        warmup: int,
        leapfrog: int,
        generator: torch.Generator,
    ) -> Iterator[Tensor]:
        """Run one chain for each sample, which moves the missing components alone, and return its iterates.

        Args:
            x: Starting points of the chains, shape (B, *event). All iterates have this shape.
            missing: Boolean mask of the missing components, shape event.
            steps: Number of iterates.
            step_size: Step size of the chain, in units of the covariance if one is given.
            covariance: Covariance of the data, shape (D, D), that preconditions the chain; None for plain Langevin
                dynamics.
            adjusted: Whether proposals are accepted or refused, so that the chain has no bias.
            warmup: Number of first iterates that adapt the step size if proposals may be refused.
            leapfrog: Number of scores that a proposal costs; 1 is Langevin dynamics, more are Hamiltonian Monte Carlo.
            generator: Generator of all noise, on the device of x.
        """


@runtime_checkable
class NormalizerEstimates(Protocol):
    """A model exp(-E(x)) / Z whose exact log Z can be compared with Monte Carlo estimates of it."""

    def log_normalizer(self) -> Tensor:
        """Return the exact log Z in nats, a scalar."""

    def estimate_log_normalizer(
        self, estimator: str, data: Tensor, draws: int, generator: torch.Generator
    ) -> tuple[float, float, float]:
        """Estimate log Z without a determinant of the model.

        Args:
            estimator: Name of the estimator: prior (importance sampling from N(0, I)), gaussian (importance sampling
                from a Gaussian fitted to the data) or bridge (between that Gaussian and exact samples of the model).
            data: Data of shape (B, *event).
            draws: Number of draws from the Gaussian, and from the model if the estimator samples it.
            generator: Generator of all noise, on the device of the data.

        Returns:
            The estimate and its standard error, both in nats, and the number of effective samples.
        """


@dataclass(frozen=True)
class Rate:
    """A learning rate of a method's own in the tuned recipes.

    Args:
        factor: Factor on the recipe's learning rate.
        why: Reason for it, in words that tables print.

    Raises:
        InputError: if the factor is not above 0, or there is no reason.
    """

    factor: float
    why: str

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf or not self.why:
            raise InputError(f"a rate needs a factor above 0 and a reason, not {self.factor!r} and {self.why!r}")


@dataclass(frozen=True)
class OwnRecipe:
    """What a method's own paper, or its library's example, publishes for training it on one dataset: the recipe `own`.

    Args:
        steps: Number of training steps.
        training: Fields of `harness.training.configuration.TrainingConfig` with their values, such as a learning rate.
        problem: Fields of `Problem` with their values, such as the batch size B and the number of layers L.
        caveat: What the adapter does otherwise than published, in words that tables print; empty if nothing.
    """

    steps: int
    training: Mapping[str, Any]
    problem: Mapping[str, Any]
    caveat: str = ""


@dataclass(frozen=True)
class Method:
    """A declared competitor.

    Args:
        name: Unique name of the method, by custom ``library-layer-objective``.
        objective: Name of the training objective: ml, sml, ssm, tssm, dsm, fdssm, or a name of the author's own.
        linear: How the linear layers are parametrised: dense (any matrix) or a restricted form such as lu.
        build: Function that makes the model of a problem. The harness seeds torch before the call and moves the model
            to the problem's device and dtype after it.
        requires: Import names of the libraries that `build` needs, torch aside. Name a submodule if importing the
            package alone does not prove that it works.
        architectures: The architectures that the method implements, out of `harness.methods.ARCHITECTURES`.
        summary: Description of the method in one line.
        iterative: Whether the method trains by steps. If not, its models are `ClosedForm`.
        family: How the method is trained, one of `harness.methods.FAMILIES`. If it is empty, the
            objective's name tells: those of `harness.methods.SCORE_MATCHING` match scores, and all others do not.
        rate: A learning rate of the method's own in the tuned recipes, with a reason; None for that of the recipe.
        own_recipes: Recipes of the method's own, by the name of the dataset that they are published for.
        own_start: How the method's start differs from the one that the tuned recipes give all others, and why, in words
            for tables; empty if it does not.
        own_gradient: Which gradient `training_loss` leaves instead of its derivative in the weights, such as the
            relative gradient, and why, in words; empty if it leaves its derivative.
        raw_pixels: Whether `build` honours `Problem.raw_pixel_alpha`.
        fc_cost: Cost of one linear layer of the fc architecture. With it, tables compare timings with a lower bound.
        periods: For a method whose steps are not alike, the number of steps after which its work repeats, by
            architecture. Blocks of timing hold whole periods. Where the method decides by itself, it is the mean of a
            real training, and the summary says which; `Problem.refresh` sets another.
        paper: Link to the publication of the method.
        samples: Whether the method can draw samples. If not, `to_data` is never called.
        exact_log_prob: Whether `to_latent` returns the exact log|det|. If not, it returns an estimate that differs from
            call to call.
        meta_device: Whether the method can be built on torch's meta device, where nothing is computed. Code that looks
            at values cannot.

    Raises:
        InputError: if the declaration makes no sense; the message says what to write.
    """

    name: str
    objective: str
    linear: str
    build: Callable[[Problem], Model]
    requires: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ("fc",)
    summary: str = ""
    iterative: bool = True
    family: str = ""
    rate: Rate | None = None
    own_recipes: Mapping[str, OwnRecipe] = field(default_factory=dict, hash=False)
    own_start: str = ""
    own_gradient: str = ""
    raw_pixels: bool = False
    fc_cost: LayerCost | None = None
    periods: Mapping[str, int] = field(default_factory=dict, hash=False)
    paper: str = ""
    samples: bool = True
    exact_log_prob: bool = True
    meta_device: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InputError(
                f"a method's name has lower-case letters, digits and, inside, . _ -, like mine-ml, unlike {self.name!r}"
            )
        if not callable(self.build):
            raise InputError(f"{self.name}: build must be a function of a Problem, not {self.build!r}")
        self._check_words()
        if not self.architectures:
            raise InputError(f"{self.name}: architectures must name at least one of {', '.join(ARCHITECTURES)}")
        for name, period in self.periods.items():
            if name not in self.architectures or not isinstance(period, int) or period < 1:
                raise InputError(f"{self.name}: periods must give steps by architecture, not {self.periods!r}")
        for name, known in (("requires", None), ("architectures", ARCHITECTURES)):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
                raise InputError(f"{self.name}: {name} must be a tuple of strings such as ('fc',), not {values!r}")
            for value in values:
                if known is not None and value not in known:
                    raise InputError(f"{self.name}: {unknown(name[:-1], value, known)}")

        for dataset, recipe in self.own_recipes.items():
            if not isinstance(dataset, str) or not isinstance(recipe, OwnRecipe) or recipe.steps < 1:
                raise InputError(f"{self.name}: own_recipes must give an OwnRecipe by the name of a dataset")

    def _check_words(self) -> None:
        for name in ("objective", "linear", "summary", "paper", "family", "own_start", "own_gradient"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{self.name}: {name} must be a text, not {getattr(self, name)!r}")
        if self.family not in ("", *FAMILIES):
            raise InputError(f"{self.name}: {unknown('family', self.family, FAMILIES)}")
        if not isinstance(self.rate, Rate | None):
            raise InputError(f"{self.name}: rate must be a harness.methods.Rate, not {self.rate!r}")

    def period(self, problem: Problem) -> int:
        """Return the number of steps after which the work of a step repeats; 1 for steps that are all alike."""
        return (problem.refresh or self.periods.get(problem.architecture, 1)) if self.periods else 1

    @property
    def matches_scores(self) -> bool:
        """Whether the method is trained like score matching, and not like maximum likelihood."""
        return matches_scores(self.objective, self.family)

    @property
    def is_papers_fc(self) -> bool:
        """Whether the method claims to train the paper's fc, its linear layers those of `SharedWeights`."""
        return self.linear in _PAPERS_FC and self.iterative and "fc" in self.architectures

    @property
    def limits(self) -> str | None:
        """The method's declared limits in words, for tables; None if it has none."""
        estimated = [] if self.exact_log_prob else ["log_prob is an estimate that differs from call to call"]
        one_way = [] if self.samples else ["it cannot draw samples"]
        return ", and ".join(estimated + one_way) or None


def matches_scores(objective: str, family: str = "") -> bool:
    """Return whether an objective is trained like score matching, by its name or by the family that is declared."""
    return family == "score-matching" if family else objective in SCORE_MATCHING
