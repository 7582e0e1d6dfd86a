"""Starts from data for dense flows, and the closed-form fit of the last layer after training.

All of it is maximum likelihood where that has a closed form or a one-dimensional search; nothing here takes a gradient.
The eigendecompositions, O(D^3), are paid once.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ebflow.flow import EBFlow
from ebflow.layers import Dense, ElementwiseLayer, Whitening
from ebflow.layers.whitening import mean_and_whitening

__all__ = ["calibrate", "fold", "from_data"]

# Slopes and biases tried for a unit of unit variance: from nearly linear to a bend as sharp as the activation has.
_SLOPES = tuple(sign * size for size in (1.0, 2.0, 3.0, 4.0, 6.0, 8.0) for sign in (1.0, -1.0))
_BIASES = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
_ROWS_OF_SEARCH = 5_000


@torch.no_grad()
def from_data(flow: EBFlow, x: Tensor) -> None:
    """Start a flow of dense and elementwise layers from data, layer after layer.

    A dense layer whitens what reaches it (symmetrically, so that a unit stays with its pixel). One that an elementwise
    layer follows also gets the slope, sign and bias for every unit that make the unit's own one-dimensional flow most
    likely. Other layers start as their `initialize` says.

    Args:
        flow: The flow, whose dense layers are overwritten.
        x: Data of shape (N, *shape), with more samples than dimensions.

    Raises:
        ValueError: if the covariance at some dense layer is singular, or a dense layer has no bias.
    """
    layers = list(flow.layers)
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        layer.initialize(x)
        if isinstance(layer, Dense):
            _whiten(layer, x)
            if isinstance(following, ElementwiseLayer):
                _fit_units(layer, following, layer.transform(x[:_ROWS_OF_SEARCH]))
        x, _ = layer(x)


@torch.no_grad()
def calibrate(flow: EBFlow, x: Tensor) -> None:
    """Refit the last layer of a flow, which must be dense: the exact maximum-likelihood optimum given all the others.

    With z the latent of the data, the best last layer is the old one followed by the whitening of z. Score matching
    leaves scales off, above all DSM, which learns those of the noised data; this takes one pass and one decomposition.

    Args:
        flow: Trained.
        x: Training data, shape (N, *shape), more samples than dimensions.

    Raises:
        ValueError: if the last layer is not dense with a bias, or the latent's covariance is singular.
    """
    last = flow.layers[-1]
    if not isinstance(last, Dense) or last.bias is None:
        raise ValueError("the last layer is refitted in closed form where it is dense, with a bias")
    z = torch.cat([flow(rows)[0] for rows in x.split(_ROWS_OF_SEARCH)])
    mean, matrix = mean_and_whitening(z)
    weight, bias = matrix @ last.weight.double(), matrix @ (last.bias.double() - mean)
    last.weight.copy_(weight)
    last.bias.copy_(bias)


@torch.no_grad()
def fold(flow: EBFlow) -> EBFlow:
    """Return the same density without its whitening layer, which the dense layer behind it takes up.

    Args:
        flow: A flow with at most one `Whitening`, and a `Dense` directly behind it.
    """
    layers = list(flow.layers)
    for index, (layer, following) in enumerate(pairwise(layers)):
        if isinstance(layer, Whitening) and isinstance(following, Dense):
            dense = Dense(len(following.weight)).to(following.weight)
            weight, bias = following.weight @ layer.matrix, following.transform(layer.offset())
            dense.load_state_dict({"weight": weight, "bias": bias})
            return EBFlow(flow.shape, [*layers[:index], dense, *layers[index + 2 :]])
    return flow


def _whiten(dense: Dense, x: Tensor) -> None:
    if dense.bias is None:
        raise ValueError("a dense layer without a bias cannot start from data")
    mean, matrix = mean_and_whitening(x)
    dense.weight.copy_(matrix)
    dense.bias.copy_(-matrix @ mean)


def _fit_units(dense: Dense, activation: ElementwiseLayer, u: Tensor) -> None:
    """Scale and shift each unit of the layer, whose output on data is u, shape (N, D).

    A unit y = f(a u + b) with the best affine map behind it has, up to a constant, the mean log-likelihood
    mean log(f'(a u + b)) + log|a| - log std(y). Slopes and biases are searched in turn.
    """
    slope, bias = torch.full_like(u[0], _SLOPES[0]), torch.zeros_like(u[0])
    best = torch.full_like(slope, -torch.inf)
    for _ in range(2):
        for a in _SLOPES:
            best, better = _improved(best, activation, u, torch.full_like(slope, a), bias)
            slope = slope.masked_fill(better, a)
        for b in _BIASES:
            best, better = _improved(best, activation, u, slope, torch.full_like(bias, b))
            bias = bias.masked_fill(better, b)
    assert dense.bias is not None  # or it could not have been whitened
    dense.weight.mul_(slope[:, None])
    dense.bias.mul_(slope).add_(bias)


def _improved(
    best: Tensor, activation: ElementwiseLayer, u: Tensor, slope: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the better likelihood of each unit, and where it is the new one; shape (D,) both."""
    before = slope * u + bias
    score = activation.slope(before).log().mean(0) + slope.abs().log() - activation.value(before).std(0).log()
    return torch.maximum(best, score), score > best
