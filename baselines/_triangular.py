"""The triangular factors of a matrix without row exchanges, for layers that are made of them: no competitor itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["POSITIVE_DIAGONAL", "factors"]

POSITIVE_DIAGONAL = "its units start with slopes above zero, because the diagonal of its factors is positive"
"""How a layer starts from data whose factors have a positive diagonal."""

_ROWS_OF_LOOP = 16


def factors(weight: Tensor, above: float | None = None) -> tuple[Tensor, Tensor]:
    """Return L, lower triangular with a diagonal of ones, and U, upper triangular, with L U = W, in W's dtype.

    Args:
        weight: The matrix W, shape (D, D).
        above: What every number on the diagonal of U must be above; None for no such bound.

    Raises:
        ValueError: if W has no such factors.
    """
    import torch

    lower, upper = _factors(weight.double())
    if weight.device.type != "meta":
        if not torch.allclose(lower @ upper, weight.double(), rtol=1e-6, atol=1e-6 * float(weight.abs().max())):
            raise ValueError("an LU layer takes weights that factor without row exchanges")
        if above is not None and bool((upper.diag() <= above).any()):
            raise ValueError("an LU layer takes weights that factor without row exchanges, with a positive diagonal")
    return lower.to(weight), upper.to(weight)


def _factors(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Factor by halves: all but small blocks is products of matrices and triangular solves."""
    import torch

    size = len(weight)
    lower, upper = torch.eye(size).to(weight), torch.zeros_like(weight)
    if size <= _ROWS_OF_LOOP:
        rest = weight.clone()
        for k in range(size):
            upper[k, k:] = rest[k, k:]
            lower[k + 1 :, k] = rest[k + 1 :, k] / rest[k, k]
            rest[k + 1 :, k + 1 :] -= lower[k + 1 :, k : k + 1] * upper[k : k + 1, k + 1 :]
        return lower, upper
    half = size // 2
    first, last = slice(None, half), slice(half, None)
    lower[first, first], upper[first, first] = _factors(weight[first, first])
    upper[first, last] = torch.linalg.solve_triangular(
        lower[first, first], weight[first, last], upper=False, unitriangular=True
    )
    lower[last, first] = torch.linalg.solve_triangular(upper[first, first], weight[last, first], upper=True, left=False)
    rest = weight[last, last] - lower[last, first] @ upper[first, last]
    lower[last, last], upper[last, last] = _factors(rest)
    return lower, upper
