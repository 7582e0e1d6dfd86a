"""The start from whitened data and the refit of the last layer: one for all methods that have the paper's fc.

All of it is maximum likelihood in closed form, or by a search in one dimension; nothing takes a gradient. What the
layers start from depends on the data and on the fixed activation alone, so that it is computed here, once for every
library, and given to a model through `SharedWeights.load_linear_layers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from harness.errors import InputError, UnavailableError
from harness.methods.contract import LossBeforeMap, Method, Model, Observed, Prepared, SharedWeights, Stateful
from harness.methods.moments import moments
from harness.methods.problem import Problem

Layers = list[tuple[Tensor, Tensor]]
"""Pairs of W, shape (D, D), and b, shape (D,), from the first layer to the last."""

# Slopes and biases tried for a unit of unit variance: from nearly linear to a bend as sharp as the activation has.
_SLOPES = tuple(sign * size for size in (1.0, 2.0, 3.0, 4.0, 6.0, 8.0) for sign in (1.0, -1.0))
_BIASES = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
_ROWS_AT_ONCE = 5_000


class Whitened(Model):
    """A model of the paper's fc behind a fixed whitening u = A x + c, which the data set and no step changes.

    Losses are taken behind the whitening. With the start ``whitened-start`` those that match scores are taken in front
    of it: score matching depends on the space, and maximum likelihood does not.

    Args:
        method: The method of the model.
        problem: The problem, whose start is not the published one.
        model: The model, built for vectors and the published start.

    Raises:
        InputError: if the model's linear layers cannot be set.
    """

    def __init__(self, method: Method, problem: Problem, model: Model) -> None:
        if not isinstance(model, SharedWeights):
            raise InputError(f"{method.name} lacks load_linear_layers or linear_layers: it cannot start from data")
        self.model, self.method, self.problem = model, method, problem
        self.module = nn.Module()
        self.module.add_module("flow", model.module)
        self.module.register_buffer("matrix", torch.eye(problem.dimension))
        self.module.register_buffer("shift", torch.zeros(problem.dimension))
        self.module.register_buffer("log_det", torch.zeros(()))

    @property
    def linear_model(self) -> SharedWeights:
        """The model behind the whitening, whose linear layers can be read and set."""
        assert isinstance(self.model, SharedWeights)
        return self.model

    @torch.no_grad()
    def init_batch(self, x: Tensor) -> None:
        """Whiten by the data, and start the linear layers from what is whitened.

        Raises:
            ValueError: if the covariance is singular, from too few samples or a component that depends on others.
            UnavailableError: if the model's layers cannot take any start from data.
        """
        mean, matrix = whitening(x)
        self.module.get_buffer("matrix").copy_(matrix)
        self.module.get_buffer("log_det").copy_(torch.linalg.slogdet(self.module.get_buffer("matrix")).logabsdet)
        self.module.get_buffer("shift").copy_(-matrix @ mean)
        self.model.init_batch(self._whitened(x))  # whatever else of the model starts from data
        _load_start(self.linear_model, self._whitened(x), self.problem)

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if self.problem.start == "whitened" or not self.method.matches_scores:
            return self.model.training_loss(self._whitened(x), generator)
        if not isinstance(self.model, LossBeforeMap):
            raise UnavailableError(f"{self.method.name} matches scores behind the whitening alone: no loss_before_map")
        matrix, shift = self.module.get_buffer("matrix"), self.module.get_buffer("shift")
        return self.model.loss_before_map(x.flatten(1), matrix, shift, generator)

    def after_step(self) -> None:
        self.model.after_step()

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.model.to_latent(self._whitened(x))
        return z, log_det + self.module.get_buffer("log_det")

    def to_data(self, z: Tensor) -> Tensor:
        matrix, shift = self.module.get_buffer("matrix"), self.module.get_buffer("shift")
        u = self.model.to_data(z).flatten(1)
        return torch.linalg.solve(matrix, (u - shift).mT).mT.reshape(-1, *self.problem.shape)

    def linear_layers(self) -> Layers:
        return self.linear_model.linear_layers()

    def load_linear_layers(self, layers: Layers) -> None:
        self.linear_model.load_linear_layers(layers)

    def observations(self) -> dict[str, float]:
        return self.model.observations() if isinstance(self.model, Observed) else {}

    def prepare(self) -> bool:
        if isinstance(self.model, Prepared):
            return self.model.prepare()
        return not self.get_extra_state()

    def prepared(self) -> AbstractContextManager[object]:
        return self.model.prepared() if isinstance(self.model, Prepared) else nullcontext()

    def get_extra_state(self) -> dict[str, Tensor]:
        return self.model.get_extra_state() if isinstance(self.model, Stateful) else {}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        if isinstance(self.model, Stateful):
            self.model.set_extra_state(state)

    def folded_layers(self) -> Layers:
        """Return linear layers of the same density without a whitening in front: the first one takes it up."""
        (weight, bias), *others = self.linear_layers()
        matrix, shift = self.module.get_buffer("matrix"), self.module.get_buffer("shift")
        return [(weight @ matrix, weight @ shift + bias), *others]

    def _whitened(self, x: Tensor) -> Tensor:
        return linear(x.flatten(1), self.module.get_buffer("matrix"), self.module.get_buffer("shift"))


def whitening(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, shape (D,), and the symmetric inverse root of the covariance, shape (D, D), in float64.

    Args:
        x: Samples of shape (N, *event).

    Raises:
        ValueError: if the covariance is singular, from too few samples or a component that depends on others.
    """
    data = moments([x])
    variance, axes = torch.linalg.eigh(data.covariance)
    if not bool(variance[0] > 1e-12 * variance[-1]):
        reason = data.why_singular() or "its variances are too far apart: scale the components"
        raise ValueError(f"the covariance is singular: {reason}")
    return data.mean, (axes / variance.sqrt()) @ axes.mT


def layers_from_data(x: Tensor, problem: Problem, *, rising: bool = False) -> Layers:
    """Return the linear layers of the paper's fc, started from data layer after layer.

    A layer whitens what reaches it, symmetrically, so that a unit stays with its component. One that an activation
    follows also gets the slope, sign and bias of every unit that make the unit's own one-dimensional flow most likely.

    Args:
        x: Data of shape (N, D), with more samples than dimensions.
        problem: The problem, which gives L and the form of the activation.
        rising: Whether slopes below zero are left out, as for layers whose factors have a positive diagonal.

    Raises:
        ValueError: if the covariance at some layer is singular.
    """
    slopes = _SLOPES[::2] if rising else _SLOPES
    layers: Layers = []
    for index in range(problem.layers):
        mean, matrix = whitening(x)
        weight, bias = matrix.to(x), (-matrix @ mean).to(x)
        if index < problem.layers - 1:
            slope, offset = _fitted_units(linear(x[:_ROWS_AT_ONCE], weight, bias), problem.residual, slopes)
            weight, bias = weight * slope[:, None], bias * slope + offset
            x = _activation(linear(x, weight, bias), problem.residual)[0]
        layers.append((weight, bias))
    return layers


@torch.no_grad()
def refit(model: Model, x: Tensor) -> None:
    """Refit the last linear layer of a model: the exact maximum-likelihood optimum, given all the others.

    With z the latent of the data, the best last layer is the old one followed by the whitening of z. Score matching
    leaves scales off, above all DSM, which learns those of the noised data; this takes one pass and one decomposition.

    Args:
        model: A model that is `SharedWeights`.
        x: Training data, shape (N, *event), more samples than dimensions.

    Raises:
        ValueError: if the latent's covariance is singular, or the model's last layer cannot be set to the optimum.
    """
    assert isinstance(model, SharedWeights)
    mean, matrix = whitening(torch.cat([model.to_latent(rows)[0].flatten(1) for rows in x.split(_ROWS_AT_ONCE)]))
    *others, (weight, bias) = model.linear_layers()
    layers = [*others, (matrix @ weight.double(), matrix @ (bias.double() - mean))]
    try:
        model.load_linear_layers(layers)
    except ValueError:  # the layer has triangular factors
        model.load_linear_layers(_last_turned(layers))


def _load_start(model: SharedWeights, x: Tensor, problem: Problem) -> None:
    """Load the start from data, shape (N, D), or the nearest one that the model's factors can take."""
    reason = ""
    for layers in _starts(x, problem):
        try:
            model.load_linear_layers(layers)
        except ValueError as error:
            reason = str(error)
        else:
            return
    raise UnavailableError(f"its layers cannot take a start from data: {reason}")


def _starts(x: Tensor, problem: Problem) -> Iterator[Layers]:
    """Yield the start, the same density by a triangular last layer, and one for factors with a positive diagonal."""
    layers = layers_from_data(x, problem)
    yield layers
    yield _last_turned(layers)
    yield _last_turned(layers_from_data(x, problem, rising=True))


def _last_turned(layers: Layers) -> Layers:
    """Turn the latent, so that the last layer is upper triangular with a positive diagonal; the density is the same."""
    *others, (weight, bias) = layers
    turn, upper = torch.linalg.qr(weight)
    signs = upper.diag().sign()
    return [*others, ((upper * signs[:, None]).triu(), signs * (turn.mT @ bias))]


def _activation(x: Tensor, residual: bool) -> tuple[Tensor, Tensor]:
    """Return the value and the slope of the paper's smooth leaky ReLU, elementwise."""
    lowest = 0.3 + residual
    return lowest * x + 0.7 * softplus(x, threshold=40), lowest + 0.7 * torch.sigmoid(x)


def _fitted_units(u: Tensor, residual: bool, slopes: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return a slope and a bias for each unit of a layer whose output on data is u, shape (N, D); shape (D,) both.

    A unit y = f(a u + b) with the best affine map behind it has, up to a constant, the mean log-likelihood
    mean log(f'(a u + b)) + log|a| - log std(y). Slopes and biases are searched in turn.
    """
    slope, bias = torch.full_like(u[0], slopes[0]), torch.zeros_like(u[0])
    best = torch.full_like(slope, -torch.inf)

    def better(slope: Tensor, bias: Tensor) -> Tensor:
        nonlocal best
        value, derivative = _activation(slope * u + bias, residual)
        score = derivative.log().mean(0) + slope.abs().log() - value.std(0).log()
        improved = score > best
        best = torch.maximum(best, score)
        return improved

    for _ in range(2):
        for a in slopes:
            slope = slope.masked_fill(better(torch.full_like(slope, a), bias), a)
        for b in _BIASES:
            bias = bias.masked_fill(better(slope, torch.full_like(bias, b)), b)
    return slope, bias
