"""What an iteration must cost: its arithmetic and its memory traffic, and the time they take at a machine's own rates.

The model is for the fc architecture: L linear layers of D x D, a batch of B. A product is that of a B x D matrix with a
layer's D x D one, or the B rows' outer product that makes its gradient; each is 2 B D^2 flops. Everything elementwise
is left out, so that the bound stays a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.problem import Problem

__all__ = ["LayerCost", "optimizer_bytes"]


@dataclass(frozen=True)
class LayerCost:
    """Loss and backward of one linear layer.

    Args:
        products: Number of products: ML takes 3 (forward, gradient of the input, gradient of the weights).
        cubic: Number of D^3 flops: an LU factorisation is 2/3, the inverse from it 4/3.
    """

    products: float
    cubic: float = 0.0

    def flops(self, problem: Problem) -> float:
        """Return the flops of loss and backward, all layers."""
        size = problem.dimension
        return problem.layers * (2 * self.products * problem.batch * size**2 + self.cubic * size**3)


def optimizer_bytes(parameters: int, item: int, averaged: bool) -> int:
    """Bytes moved by an optimiser and an average that each pass over the weights once.

    The optimiser reads weights, gradients and two moments and writes all but the gradients; the average reads itself
    and the weights and is written.

    Args:
        parameters: How many numbers are trained.
        item: Bytes of one.
        averaged: Whether there is an average.
    """
    return parameters * item * (10 if averaged else 7)
