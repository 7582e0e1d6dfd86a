"""nflows 0.14 (https://github.com/bayesiains/nflows), QR and SVD layers, trained by maximum likelihood.

The stack is the paper's fc. An orthogonal factor is a product of Householder reflections, which nflows applies one by
one in Python: D of them, for any orthogonal matrix, would take seconds a step. Here there are 16, so that a layer is a
triangular or diagonal matrix turned in at most 16 directions. Diagonals are positive; the layers start at +I.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines._nflows_model import LinearStack
from harness.methods import LayerCost, Method, Problem

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METHODS"]

_REFLECTIONS = 16


def _reflections(problem: Problem) -> int:
    """Return the number of reflections: above 2 D the start fails, and an SVD layer asserts that it is even."""
    return min(_REFLECTIONS, 2 * problem.dimension)


def _qr(problem: Problem) -> LinearStack:
    import torch
    from nflows.transforms.qr import QRLinear

    class QR(QRLinear):
        """QRLinear with an inverse that does without the deprecated torch.triangular_solve, and a start at +I."""

        def _initialize(self) -> None:
            torch.nn.init.ones_(self.bias)

        def inverse_no_cache(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            turned, _ = self.orthogonal.inverse(inputs - self.bias)
            x = torch.linalg.solve_triangular(self._create_upper(), turned.mT, upper=True).mT
            return x, -self.logabsdet().expand(len(x))

    with torch.device("cpu"):  # the reflections start from lists of indices, which the meta device cannot read
        return LinearStack(problem, [QR(problem.dimension, _reflections(problem)) for _ in range(problem.layers)])


def _svd(problem: Problem) -> LinearStack:
    import torch
    from nflows.transforms.svd import SVDLinear

    with torch.device("cpu"):
        layers = [SVDLinear(problem.dimension, _reflections(problem)) for _ in range(problem.layers)]
    for layer in layers:
        torch.nn.init.ones_(layer.bias)
    return LinearStack(problem, layers)


METHODS = [
    Method(
        name=f"nflows-{name}-ml",
        objective="ml",
        linear=name,
        build=build,
        requires=("nflows.flows",),
        fc_cost=cost,
        own_start="it starts at +I and is not refitted, because 16 reflections make few orthogonal factors",
        summary=summary,
        paper=paper,
    )
    for name, build, cost, summary, paper in [
        (
            "qr",
            _qr,
            LayerCost(3),  # of the triangular factor; a reflection is a product with a vector
            "QRLinear: 16 Householder reflections (2 D below D = 8) and a triangular factor, no O(D^3) term",
            "https://arxiv.org/abs/1901.11137",
        ),
        (
            "svd",
            _svd,
            None,  # no product with a D x D matrix at all
            "SVDLinear: twice 16 Householder reflections (2 D below D = 8) and a diagonal, no D x D matrix",
            "https://arxiv.org/abs/1803.09327",
        ),
    ]
]
