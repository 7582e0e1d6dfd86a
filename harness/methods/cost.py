"""What an iteration must cost: its arithmetic and its memory traffic, and the time they take at a machine's own rates.

The count is for the fc architecture: L linear layers of D x D and a batch of B. A product multiplies a B x D matrix by
a layer's D x D matrix, or makes that layer's gradient from B rows; each takes 2 B D^2 flops. Everything elementwise is
left out, and so are products that no step needs: the result is a lower bound.
"""

from dataclasses import dataclass

from harness.methods.problem import Problem


@dataclass(frozen=True)
class LayerCost:
    """Arithmetic of loss and backward pass over L linear layers.

    Args:
        products: Number of products of a layer. Maximum likelihood takes 3: forward, gradient of the input, gradient of
            the weights.
        cubic: Number of flops of a layer in units of D^3: an LU factorisation is 2/3, the inverse from it 4/3.
        rows: Number of rows per sample that share a product; taller products run at a higher rate.
        saved: Number of products that the whole network does without, whatever its depth. Data need no gradient, so
            that the first layer saves the gradient of its input: one product for each row per sample.
    """

    products: float
    cubic: float = 0.0
    rows: int = 1
    saved: float = 1

    def flops(self, problem: Problem, period: int = 1) -> float:
        """Return the flops of loss and backward pass over all layers, in the mean of so many steps."""
        return self._of_products(problem) + self._of_cubes(problem) / period

    def seconds(self, problem: Problem, product_rate: float, cube_rate: float, period: int = 1) -> float:
        """Return the seconds that these flops take.

        Args:
            problem: The problem, which gives D, L and B.
            product_rate: Flops per second of products with `rows` times B rows.
            cube_rate: Flops per second of D x D by D x D products, which no factorisation surpasses.
            period: Number of steps, one of which does the cubic work.
        """
        return self._of_products(problem) / product_rate + self._of_cubes(problem) / cube_rate / period

    def _of_products(self, problem: Problem) -> float:
        products = problem.layers * self.products - self.saved
        return 2 * products * problem.batch * problem.dimension**2

    def _of_cubes(self, problem: Problem) -> float:
        return problem.layers * self.cubic * problem.dimension**3


def optimizer_bytes(parameters: int, item: int, moments: int, averaged: bool) -> int:
    """Return the bytes that an optimiser and an average of the weights move in one pass each.

    The optimiser reads weights, gradients and moments, and writes weights and moments. The average reads itself and the
    weights and is written.

    Args:
        parameters: Number of trained parameters.
        item: Bytes of one parameter.
        moments: Number of moments of the gradient that the optimiser keeps.
        averaged: Whether the weights are averaged.
    """
    return parameters * item * (3 + 2 * moments + (3 if averaged else 0))
