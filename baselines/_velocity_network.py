"""A velocity network with an exact divergence that costs little more than the velocity: no competitor itself.

The network has two hidden layers of H units beside a fixed part,

    v(x, t) = a(t) x + W3 s(W2 s(W1 x + T features(t) + b1) + b2) + b3,    a(t) = (2 t - 1) / (t^2 + (1 - t)^2).

With d1 and d2 the slopes of the activation s at the two hidden layers, the divergence of v is

    D a(t) + tr(W3 diag(d2) W2 diag(d1) W1) = D a(t) + d2^T (W2 o (W1 W3)^T) d1,

where o is the elementwise product. The H x H matrix in the middle is computed once for a whole solution. A divergence
then costs one product of the batch with an H x H matrix, whatever D is. Autograd would need D vector-Jacobian products.

The fixed part a(t) x is the mean velocity of straight paths from N(0, I) to N(0, I). Alone it moves every point back to
where it started, so that on whitened data the flow starts as the Gaussian with the data's mean and covariance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["dynamics", "network", "velocity"]

_FREQUENCIES = 2  # sines and cosines of pi t and 2 pi t; faster ones would cost the solver steps


def network(dimension: int, width: int) -> nn.ModuleList:
    """Return the four layers W1 and b1, T, W2 and b2, W3 and b3 for vectors of this dimension; the last starts at 0."""
    import torch

    layers = torch.nn.ModuleList(
        [
            torch.nn.Linear(dimension, width),
            torch.nn.Linear(2 * _FREQUENCIES, width, bias=False),
            torch.nn.Linear(width, width),
            torch.nn.Linear(width, dimension),
        ]
    )
    for parameter in layers[3].parameters():
        torch.nn.init.zeros_(parameter)
    return layers


def _features(t: Tensor) -> Tensor:
    """Return the sines and cosines of times of shape (..., 1), shape (..., 2 _FREQUENCIES)."""
    import torch

    angles = math.pi * t * torch.arange(1, _FREQUENCIES + 1, dtype=t.dtype, device=t.device)
    return torch.cat([angles.sin(), angles.cos()], -1)


def _gain(t: Tensor) -> Tensor:
    return (2 * t - 1) / (t.square() + (1 - t).square())


def velocity(layers: nn.ModuleList, x: Tensor, t: Tensor) -> Tensor:
    """Return the velocity, shape (B, D), at points of shape (B, D) and times of shape (B, 1) or (1,)."""
    from torch.nn.functional import silu

    first, time, second, third = layers
    return _gain(t) * x + third(silu(second(silu(first(x) + time(_features(t))))))


def dynamics(layers: nn.ModuleList, dtype: torch.dtype) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """Return the velocity with the exact divergence beside it, and all weights that it depends on, for a solver.

    Args:
        layers: Layers of `network`.
        dtype: The type to compute in.

    Returns:
        A function of a time, shape (), and points beside their log-determinant in nats, shape (B, D + 1), that returns
        the derivatives in time of both, in the same shape; and the weights in one tensor, for gradients.
    """
    import torch
    from torch.nn.functional import linear

    w1, _, _, w2, _, w3, _ = weights = [p.to(dtype) for p in layers.parameters()]
    weights.append(w2 * (w1 @ w3).mT)
    # All in one tensor: the solver's backward pass does its arithmetic in Python, tensor by tensor.
    together = torch.cat([w.flatten() for w in weights])
    parts = together.split([w.numel() for w in weights])
    w1, b1, w_time, w2, b2, w3, b3, middle = (part.view(w.shape) for part, w in zip(parts, weights, strict=True))

    def derivatives(t: Tensor, state: Tensor) -> Tensor:
        x = state[:, :-1]
        u1 = linear(x, w1, linear(_features(t.view(1)), w_time) + b1)
        gate1 = u1.sigmoid()
        u2 = linear(u1 * gate1, w2, b2)
        gate2 = u2.sigmoid()
        slope1, slope2 = (gate * (1 + u * (1 - gate)) for u, gate in ((u1, gate1), (u2, gate2)))
        gain = _gain(t)
        divergence = x.shape[1] * gain + (linear(slope1, middle) * slope2).sum(1, keepdim=True)
        return torch.cat([gain * x + linear(u2 * gate2, w3, b3), divergence], 1)

    return derivatives, together
