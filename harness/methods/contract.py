"""What a competitor must offer, and what it declares about itself.

A *method* is a competitor together with a training objective, such as ``nflows-lu-ml``. A module of methods declares
``METHODS`` and imports torch and its own library only inside its builders, so that listing methods is quick and a
missing library disables its own methods alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from harness.errors import InputError, unknown
from harness.methods.cost import LayerCost
from harness.methods.problem import ARCHITECTURES, STARTS, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


SCORE_MATCHING = ("ssm", "tssm", "dsm", "fdssm")
"""Every other objective, also one that is not the paper's, fits the likelihood and is trained as maximum likelihood.

Of these the loss on the validation set is watched beside the NLL.
"""

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")


class Model(Protocol):
    """A built competitor: the harness trains it, times it and scores it through these members alone.

    The base distribution is N(0, I) and belongs to the harness: it derives log_prob and samples from `to_latent` and
    `to_data`. Subclass it to inherit the hooks that do nothing.

    A training that was stopped goes on in a new model: built, started from the same data and given the module's state
    dict. What else a model remembers between steps, such as a generator of its own, it offers as `Stateful`.
    """

    module: nn.Module

    def init_batch(self, x: Tensor) -> None:
        """Initialise from data; called once with samples of shape (N, *event), a batch or what the recipe says.

        The runtime measurement leaves it out, and a training counts it.
        """
        return  # else mypy takes a hook that does nothing for one that must be written

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the scalar to minimise for one batch of shape (B, *event); all noise comes from the generator."""
        ...

    def after_step(self) -> None:
        """Run after every optimiser step, inside the timing."""
        return

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data (B, *event) to z, shape (B, ...), and the whole log|det dz/dx| in nats, shape (B,)."""
        ...

    def to_data(self, z: Tensor) -> Tensor:
        """Map latents, in the shape that `to_latent` gives, to data of shape (B, *event)."""
        ...


@runtime_checkable
class SharedWeights(Protocol):
    """A model whose linear layers can be set from outside; the fairness tests give all such models the same ones."""

    def load_linear_layers(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Set the layers, first to last, to z = W x + b; a triangular-factor layer takes any W that has its factors.

        Args:
            layers: Pairs of W, shape (D, D), and b, shape (D,).
        """


@runtime_checkable
class ClosedForm(Protocol):
    """A model with a direct solution instead of training steps."""

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit to the batches, each of shape (B, *event), in one pass."""


@runtime_checkable
class Calibrated(Protocol):
    """A model whose last layer has a closed-form maximum-likelihood optimum, given all the others."""

    def calibrate(self, x: Tensor) -> None:
        """Set the last layer to it, given training data of shape (N, *event)."""


@runtime_checkable
class Stateful(Protocol):
    """A model that remembers more than the state dict of its module, and what follows from building and starting it."""

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return what else its losses and densities depend on, such as the state of a generator."""

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take up what `get_extra_state` of a model of the same problem has returned."""


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
        """Return the iterates of one chain a sample, all of shape (B, *event), that move the missing components alone.

        Args:
            x: Where the chains start, shape (B, *event).
            missing: Boolean, shape event.
            steps: Number of iterates.
            step_size: Of the chain, in units of the covariance where that is given.
            covariance: Of the data, shape (D, D), to precondition the chain; None: plain Langevin dynamics.
            adjusted: Whether proposals are accepted or refused, so that the chain has no bias.
            warmup: How many of the first iterates adapt the step size, where proposals are refused.
            leapfrog: Scores that a proposal costs; 1 is Langevin dynamics, more are Hamiltonian Monte Carlo.
            generator: Of all noise, on x's device.
        """
        ...


@runtime_checkable
class NormalizerEstimates(Protocol):
    """A model exp(-E(x)) / Z whose exact log Z can be held against Monte Carlo estimates of it."""

    def log_normalizer(self) -> Tensor:
        """Return the exact log Z in nats, a scalar."""
        ...

    def estimate_log_normalizer(
        self, estimator: str, data: Tensor, draws: int, generator: torch.Generator
    ) -> tuple[float, float, float]:
        """Estimate log Z without a determinant of the model.

        Args:
            estimator: prior (importance sampling from N(0, I)), gaussian (from a Gaussian fitted to the data) or bridge
                (between that Gaussian and exact samples of the model).
            data: Shape (B, *event).
            draws: Of the Gaussian; as many of the model where it is drawn from.
            generator: Of all noise, on the data's device.

        Returns:
            The estimate and its standard error, in nats, and the number of effective samples.
        """
        ...


@dataclass(frozen=True)
class Method:
    """A declared competitor.

    Args:
        name: Unique, ``library-layer-objective`` by custom.
        objective: ml, sml, ssm, dsm, fdssm, or what the author calls it.
        linear: How its linear layers are parametrised: dense (any matrix) or a restricted form such as lu.
        build: Makes a model for a problem; seeded and placed on the problem's device and dtype by the harness.
        requires: Import names of the libraries that `build` needs, torch aside; a submodule where importing the package
            alone proves nothing.
        architectures: Those of `harness.methods.ARCHITECTURES` that it implements.
        summary: One line.
        iterative: Whether it trains by steps; otherwise its models are `ClosedForm`.
        starts: Those of `harness.methods.STARTS` that it offers.
        raw_pixels: Whether `build` honours `Problem.raw_pixel_alpha`.
        fc_cost: What a layer of its fc costs, if the tables are to say how near to that it comes.
        paper: Link to where it is published.
        samples: Whether it can draw. Otherwise `to_data` is never called.
        exact_log_prob: Whether `to_latent` returns log|det| itself. Otherwise an estimate of it, that differs from call
            to call.
        meta_device: Whether it runs on torch's meta device, where nothing is computed. Code that looks at values
            does not.

    Raises:
        InputError: The declaration cannot be meant; the message says what to write.
    """

    name: str
    objective: str
    linear: str
    build: Callable[[Problem], Model]
    requires: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ("fc",)
    summary: str = ""
    iterative: bool = True
    starts: tuple[str, ...] = ("published",)
    raw_pixels: bool = False
    fc_cost: LayerCost | None = None
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
        for field in ("objective", "linear", "summary", "paper"):
            if not isinstance(getattr(self, field), str):
                raise InputError(f"{self.name}: {field} must be a text, not {getattr(self, field)!r}")
        if not self.architectures:
            raise InputError(f"{self.name}: architectures must name at least one of {', '.join(ARCHITECTURES)}")
        for field, known in (("requires", None), ("architectures", ARCHITECTURES), ("starts", STARTS)):
            values = getattr(self, field)
            if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
                raise InputError(f"{self.name}: {field} must be a tuple of strings such as ('fc',), not {values!r}")
            for value in values:
                if known is not None and value not in known:
                    raise InputError(f"{self.name}: {unknown(field[:-1], value, known)}")

    @property
    def limits(self) -> str | None:
        """What it declares that it cannot do, for tables; None where there is nothing."""
        said = []
        if not self.exact_log_prob:
            said.append("log_prob is an estimate that differs from call to call")
        if not self.samples:
            said.append("it cannot draw samples")
        return ", and ".join(said) or None
