"""What an iteration must cost: its arithmetic and its memory traffic, and the time they take at a machine's own rates.

The model is for the fc architecture: L linear layers of D x D, a batch of B. A product is that of a B x D matrix with a
layer's D x D one, or the B rows' outer product that makes its gradient; each is 2 B D^2 flops. Everything elementwise
is left out, so that the bound stays a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.methods.problem import Problem


@dataclass(frozen=True)
class LayerCost:
    """Loss and backward of one linear layer.

    Args:
        products: Number of products: ML takes 3 (forward, gradient of the input, gradient of the weights).
        cubic: Number of D^3 flops: an LU factorisation is 2/3, the inverse from it 4/3.
        rows: Rows a sample that share a product: tall products run faster, and the bound must know it.
    """

    products: float
    cubic: float = 0.0
    rows: int = 1

    def flops(self, problem: Problem) -> float:
        """Return the flops of loss and backward, all layers."""
        return self._of_products(problem) + self._of_cubes(problem)

    def seconds(self, problem: Problem, product_rate: float, cube_rate: float) -> float:
        """Return the time these flops take.

        Args:
            problem: Its sizes.
            product_rate: Flops a second of products with ``rows`` times B rows.
            cube_rate: Flops a second of D x D by D x D products, which no factorisation surpasses.
        """
        return self._of_products(problem) / product_rate + self._of_cubes(problem) / cube_rate

    def _of_products(self, problem: Problem) -> float:
        return problem.layers * 2 * self.products * problem.batch * problem.dimension**2

    def _of_cubes(self, problem: Problem) -> float:
        return problem.layers * self.cubic * problem.dimension**3


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
