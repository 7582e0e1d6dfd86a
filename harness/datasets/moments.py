"""Mean and covariance of batches, in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Of n samples the mean, shape (D,), and the covariance, (D, D), float64."""

    n: int
    mean: Tensor
    covariance: Tensor


def moments(batches: Iterable[Tensor]) -> Moments:
    """Return those of all samples of batches of shape (B, *event), with one batch in memory at a time."""
    count, origin, total, products = 0, 0.0, 0.0, 0.0
    for batch in batches:
        x = batch.flatten(1).double()
        # Seen from near the mean, or far from zero the products would drown the covariance.
        origin = origin if count else x.mean(0)
        x = x - origin
        count, total, products = count + len(x), total + x.sum(0), products + x.mT @ x
    shift = total / count
    return Moments(count, origin + shift, products / count - torch.outer(shift, shift))
