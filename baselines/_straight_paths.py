"""Straight paths from noise to data, the loss of a velocity along them, and its solutions: no competitor itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from baselines._velocity_network import dynamics, velocity
from harness.methods import moments

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["pairs", "path_loss", "solve", "whitening"]

_ROWS_AT_ONCE = 500  # what a processor's cache holds; the steps that a far point needs are then taken by few others


def whitening(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return a mean, shape (D,), and a matrix, shape (D, D), that whiten data of shape (N, D), in float64.

    With fewer than ten samples a dimension the matrix only standardises every component. Standard deviations below
    1e-6 of the largest one count as that much, and data without any spread keep their scale.
    """
    import torch

    data = moments([x])
    if data.n >= 10 * len(data.mean):
        variance, axes = torch.linalg.eigh(data.covariance)
    else:
        variance, axes = data.covariance.diag(), torch.eye(len(data.mean), dtype=torch.float64, device=x.device)
    largest = variance.max()
    scale = variance.clamp_min(1e-12 * largest).sqrt() if largest > 0 else torch.ones_like(variance)
    return data.mean, (axes / scale) @ axes.mT


def path_loss(layers: nn.ModuleList, x: Tensor, generator: torch.Generator | None, draws: int) -> Tensor:
    """Return the mean squared error, a scalar, of the velocity along straight paths from noise to data.

    Args:
        layers: Layers of `network`.
        x: Data of shape (B, D), whitened.
        generator: Generator of the paths' noise and of the times.
        draws: Number of paths that end at every sample. All paths of a batch have stratified times: one is uniform in
            each of as many equal parts of the unit interval.
    """
    import torch

    from ebflow.noise import normal, uniform

    x = x.repeat(draws, 1)
    t = uniform((len(x), 1), generator, x)
    t = (torch.arange(len(x), dtype=x.dtype, device=x.device)[:, None] + t) / len(x)
    noise = normal(x.shape, generator, x)
    return (velocity(layers, (1 - t) * noise + t * x, t) - (x - noise)).square().mean()


def solve(layers: nn.ModuleList, x: Tensor, start: float, end: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """Move points along the velocity from one time to another by zuko's adaptive Dormand-Prince solver.

    Args:
        layers: Layers of `network`.
        x: Points of shape (B, D) at the start, whose type the solution is computed in.
        start: Time of the given points: 0 for noise, 1 for data.
        end: Time of the points that are returned.
        tolerance: Error that a step may make in every number of the solution, relative to 1 + the number's size.

    Returns:
        The points at the end, shape (B, D), and the exact log-determinant in nats of this map, shape (B,). All are NaN
        if a point or a weight is not finite, of which the solver would make ever smaller steps.
    """
    import torch
    from zuko.utils import odeint

    state = torch.cat([x, x.new_zeros(len(x), 1)], 1)
    derivatives, weights = dynamics(layers, x.dtype)
    with torch.no_grad():
        finite = bool(derivatives(x.new_tensor(start), state).isfinite().all())
    if not finite:
        state = state * math.nan
    elif len(x):
        phi = [weights] if weights.requires_grad else []
        blocks = state.split(_ROWS_AT_ONCE)
        state = torch.cat([odeint(derivatives, x, start, end, phi, tolerance, tolerance) for x in blocks])
    return state[:, :-1], state[:, -1]


def pairs(layers: nn.ModuleList, z: Tensor, steps: int) -> Tensor:
    """Return the data, shape (B, D), that noise of that shape moves to in so many equal Dormand-Prince steps.

    The result has no gradient.
    """
    import torch
    from zuko.utils import dopri45

    with torch.no_grad():
        step = z.new_tensor(1 / steps)
        for index in range(steps):
            z = dopri45(lambda t, x: velocity(layers, x, t.view(1)), z, index * step, step)
    return z
