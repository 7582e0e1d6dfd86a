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

_DEPENDENT = 1e-12  # of a variance: what rounding leaves of it


@dataclass(frozen=True)
class Moments:
    """The mean of n samples, shape (D,), and their covariance (divided by n), shape (D, D), in float64."""

    n: int
    mean: Tensor
    covariance: Tensor

    def why_singular(self) -> str:
        """Return in words why the covariance is singular, naming a component, or nothing if it is not."""
        import torch

        n, mean, covariance = self.n, self.mean, self.covariance
        size = len(mean)
        if n <= size:
            return f"{n} samples are too few in {size} dimensions: use more than {size}"
        variance = covariance.diagonal()
        constant = variance <= 1e-28 * mean.square()  # what rounding leaves of it in float64
        if bool(constant.any()):
            first = int(constant.nonzero()[0])
            return f"component {first} is {float(mean[first]):g} in all {n} samples: leave it out, or add noise"
        factor, failed = torch.linalg.cholesky_ex(covariance)
        share = factor.diagonal().square() / variance  # of the variance that the components before leave unexplained
        dependent = ~(share > _DEPENDENT) if not failed else torch.arange(size, device=mean.device) >= int(failed) - 1
        if not bool(dependent.any()):
            return ""
        first = int(dependent.nonzero()[0])
        weights = torch.linalg.lstsq(covariance[:first, :first], covariance[:first, first:][:, :1]).solution[:, 0]
        part = weights.abs() * (variance[:first] / variance[first]).sqrt()
        others = ", ".join(str(int(index)) for index in (part > 1e-3 * part.max()).nonzero()[:4])
        return f"component {first} depends linearly on others ({others}): leave it out, or add noise"


def moments(batches: Iterable[Tensor]) -> Moments:
    """Compute the moments of all samples of one or more batches, each of shape (B, *event), one at a time.

    Raises:
        ValueError: if there is no sample, or if a number is not finite: the message names its component.
    """
    remaining = iter(batches)
    first = next(remaining)
    # Samples are seen from near their mean: far from zero, the products would drown the covariance.
    origin = first.flatten(1).double().mean(0)
    count, total, products = 0, origin.new_zeros(()), origin.new_zeros(())
    for batch in chain([first], remaining):
        x = batch.flatten(1).double() - origin
        if not x.is_meta and not bool(x.isfinite().all()):
            odd = batch.flatten(1)
            sample, component = (~odd.isfinite()).nonzero()[0].tolist()
            raise ValueError(f"the data hold {float(odd[sample, component])} at component {component}")
        count, total, products = count + len(x), total + x.sum(0), products + x.mT @ x
    if not count:
        raise ValueError("no samples have no covariance")
    shift = total / count
    return Moments(count, origin + shift, products / count - shift[:, None] * shift)
