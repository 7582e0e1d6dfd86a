"""Mean and covariance of data that come in batches, in one pass: what a closed-form fit needs.

The module uses tensors and does not import torch, so that `harness.methods` can offer it to adapters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """The mean of n samples, shape (D,), and their covariance (divided by n), shape (D, D), in float64."""

    n: int
    mean: Tensor
    covariance: Tensor


def moments(batches: Iterable[Tensor]) -> Moments:
    """Compute the moments of all samples of one or more batches, each of shape (B, *event), one at a time."""
    remaining = iter(batches)
    first = next(remaining)
    # Samples are seen from near their mean: far from zero, the products would drown the covariance.
    origin = first.flatten(1).double().mean(0)
    count, total, products = 0, origin.new_zeros(()), origin.new_zeros(())
    for batch in chain([first], remaining):
        x = batch.flatten(1).double() - origin
        count, total, products = count + len(x), total + x.sum(0), products + x.mT @ x
    shift = total / count
    return Moments(count, origin + shift, products / count - shift[:, None] * shift)
