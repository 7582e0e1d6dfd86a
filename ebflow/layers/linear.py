"""Matrices: any square one, for which maximum likelihood pays O(D^3), and a triangular one, for which it does not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ebflow.layers.base import ConstantLayer, Shape, WithConstants, require_shape, solve, solve_triangular

__all__ = ["Bias", "Dense", "Triangular"]


class Dense(ConstantLayer):
    """z = W x + b with any square matrix W; starts as the identity.

    Args:
        dimension: Length D of a sample.
        bias: Whether the layer adds a b.

    Raises:
        ValueError: if the dimension is below 1.
    """

    def __init__(self, dimension: int, bias: bool = True) -> None:
        super().__init__()
        if dimension < 1:
            raise ValueError(f"a dense layer needs a dimension of at least 1, not {dimension}")
        self.weight = nn.Parameter(torch.eye(dimension))
        self.bias = nn.Parameter(torch.zeros(dimension)) if bias else None

    def linear(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT

    def adjoint(self, g: Tensor) -> Tensor:
        return g @ self.weight

    def offset(self) -> Tensor | float:
        return 0.0 if self.bias is None else self.bias

    def transform(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)

    def inverse(self, y: Tensor) -> Tensor:
        return solve(self, self.weight, (y - self.offset()).mT).mT

    def log_abs_det(self) -> Tensor:
        # LAPACK wants columns: the transpose of a row-major matrix is factored without a copy, 10 % faster all told.
        return torch.linalg.slogdet(self.weight.mT).logabsdet

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, (len(self.weight),))
        return shape


class Bias(ConstantLayer):
    """z = x + b, for matrices that bring no bias of their own; starts as the identity.

    Args:
        shape: Event shape, also that of b.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape))

    def linear(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, g: Tensor) -> Tensor:
        return g

    def offset(self) -> Tensor:
        return self.bias

    def inverse(self, y: Tensor) -> Tensor:
        return y - self.bias

    def log_abs_det(self) -> Tensor:
        return self.bias.new_zeros(())

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, tuple(self.bias.shape))
        return shape


class Triangular(WithConstants, ConstantLayer):
    """z = W x with W lower or upper triangular; starts as the identity.

    The determinant costs O(D) and the inverse is a substitution, O(D^2) a sample. Only the D (D + 1) / 2 entries of the
    triangle are trained. A diagonal entry may have either sign; where one is zero the layer is singular.

    Args:
        dimension: Length D of a sample.
        upper: Which triangle: in an upper one z_i depends on x_i, ..., x_D, in a lower one on x_1, ..., x_i.

    Raises:
        ValueError: if the dimension is below 1.
    """

    constants = ("upper",)

    def __init__(self, dimension: int, *, upper: bool) -> None:
        super().__init__()
        if dimension < 1:
            raise ValueError(f"a triangular layer needs a dimension of at least 1, not {dimension}")
        self.dimension = dimension
        self.upper = upper
        self.entries = nn.Parameter(torch.zeros(dimension * (dimension + 1) // 2))
        self.fill(torch.eye(dimension))

    @torch.no_grad()
    def fill(self, matrix: Tensor) -> None:
        """Take over the triangle of a matrix, shape (D, D), and leave out the rest."""
        self.entries.copy_(matrix[self._places()])

    def matrix(self) -> Tensor:
        """W, shape (D, D), differentiable."""
        empty = self.entries.new_zeros(self.dimension, self.dimension)
        return empty.index_put(self._places(), self.entries)

    def linear(self, x: Tensor) -> Tensor:
        return x @ self.matrix().mT

    def adjoint(self, g: Tensor) -> Tensor:
        return g @ self.matrix()

    def inverse(self, y: Tensor) -> Tensor:
        return solve_triangular(self, self.matrix(), y.mT, upper=self.upper).mT

    def log_abs_det(self) -> Tensor:
        return self.matrix().diagonal().abs().log().sum()

    def output_shape(self, shape: Shape) -> Shape:
        require_shape(self, shape, (self.dimension,))
        return shape

    def _places(self) -> tuple[Tensor, Tensor]:
        """Row and column of every entry."""
        indices = torch.triu_indices if self.upper else torch.tril_indices
        row, column = indices(self.dimension, self.dimension, device=self.entries.device)
        return row, column
