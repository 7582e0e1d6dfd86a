"""Products of a batch with two triangular factors that share one matrix: no competitor itself.

The factors multiply the batch in panels of some of their rows, without the part of a panel that is zero: with many
panels, a product of B rows with a factor costs little more than half of one with a full matrix. Only the blocks on the
diagonal are masked, and both factors' gradients go straight into their halves of one matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["affine"]


def affine(dimension: int, rows: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return a function from x, factors and b to z = L U x + b, shape (B, D), and log|det L U|, a scalar.

    The factors have the shape (D, D): U is the upper triangle, and L, whose diagonal is 1, lies below it.

    Args:
        dimension: The dimension D.
        rows: The most rows of a factor that a panel holds.
    """
    import torch
    from torch.autograd.function import once_differentiable
    from torch.nn.functional import linear

    count = -(-dimension // rows)
    panels = list(pairwise(dimension * index // count for index in range(count + 1)))

    class Affine(torch.autograd.Function):
        """Panel by panel, y = U x, and then z = y + (L - I) y + b."""

        @staticmethod
        def forward(ctx: Any, x: Tensor, factors: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
            parts = [
                linear(x[:, a:b], factors[a:b, a:b].triu()) + linear(x[:, b:], factors[a:b, b:]) for a, b in panels
            ]
            y = torch.cat(parts, 1)
            parts = [
                linear(y[:, :a], factors[a:b, :a], bias[a:b]) + linear(y[:, a:b], factors[a:b, a:b].tril(-1))
                for a, b in panels
            ]
            ctx.save_for_backward(x, y, factors)
            return y + torch.cat(parts, 1), factors.diagonal().abs().log().sum()

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, of_z: Tensor, of_log_det: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
            # Under autocast the products are of a smaller type than what is kept.
            dtype = ctx.saved_tensors[-1].dtype
            x, y, factors = (tensor.to(of_z.dtype) for tensor in ctx.saved_tensors)
            of_x, of_y = torch.zeros_like(x) if ctx.needs_input_grad[0] else None, of_z.clone()
            of_factors = torch.empty_like(factors)
            for a, b in panels:
                of_y[:, :a].addmm_(of_z[:, a:b], factors[a:b, :a])
                of_y[:, a:b].addmm_(of_z[:, a:b], factors[a:b, a:b].tril(-1))
            for a, b in panels:
                if of_x is not None:
                    of_x[:, b:].addmm_(of_y[:, a:b], factors[a:b, b:])
                    of_x[:, a:b].addmm_(of_y[:, a:b], factors[a:b, a:b].triu())
                torch.mm(of_z[:, a:b].mT, y[:, :b], out=of_factors[a:b, :b])
                torch.mm(of_y[:, a:b].mT, x[:, b:], out=of_factors[a:b, b:])
                of_factors[a:b, a:b].tril_(-1).add_((of_y[:, a:b].mT @ x[:, a:b]).triu_())
            of_factors = of_factors.to(dtype)
            of_factors.diagonal().add_(of_log_det / ctx.saved_tensors[-1].diagonal())
            return of_x, of_factors, of_z.sum(0)

    return Affine.apply
