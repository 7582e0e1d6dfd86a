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


def affine(dimension: int, rows: int) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function from x, factors and b to z = L U x + b, shape (B, D), and log|det L U|, a scalar.

    The factors have the shape (D, D): U is the upper triangle, and L, whose diagonal is 1, lies below it.

    Args:
        dimension: The dimension D.
        rows: The most rows of a factor that a panel holds.
    """
    count = -(-dimension // rows)
    apply = _function(list(pairwise(dimension * index // count for index in range(count + 1))))
    return lambda x, factors, bias: apply(x, factors, bias)[:2]


def _function(panels: list[tuple[int, int]]) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function from x, factors and b to z, log|det L U| and y = U x, given the panels' first and last rows."""
    import torch
    from torch.nn.functional import linear

    class Affine(torch.autograd.Function):
        """Panel by panel, y = U x, and then z = y + (L - I) y + b; the output y, which backward needs, has no gradient.

        What is to be differentiated again, and what `torch.func` does, takes whole matrices.
        """

        @staticmethod
        def forward(x: Tensor, factors: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            parts = [
                linear(x[:, a:b], factors[a:b, a:b].triu()) + linear(x[:, b:], factors[a:b, b:]) for a, b in panels
            ]
            y = torch.cat(parts, 1)
            parts = [
                linear(y[:, :a], factors[a:b, :a], bias[a:b]) + linear(y[:, a:b], factors[a:b, a:b].tril(-1))
                for a, b in panels
            ]
            return y + torch.cat(parts, 1), factors.diagonal().abs().log().sum(), y

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
            x, factors, _ = inputs
            ctx.mark_non_differentiable(output[2])
            ctx.save_for_backward(x, output[2], factors)
            ctx.save_for_forward(x, factors)

        @staticmethod
        def backward(ctx: Any, of_z: Tensor, of_log_det: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
            if torch.is_grad_enabled():
                x, _, factors = ctx.saved_tensors
                return _gradients(x, factors, of_z, of_log_det)
            return _panel_gradients(panels, ctx, of_z, of_log_det)

        @staticmethod
        def jvp(ctx: Any, of_x: Tensor, of_factors: Tensor, of_bias: Tensor) -> tuple[Tensor, Tensor, None]:
            x, factors = ctx.saved_tensors
            return *_tangents(x, factors, of_x, of_factors, of_bias), None

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[tuple[Tensor, ...], int]:
            pairs = list(zip(inputs, in_dims, strict=True))
            ones = ([x if at is None else x.select(at, i) for x, at in pairs] for i in range(info.batch_size))
            each = [apply(*one) for one in ones]
            return tuple(torch.stack(outputs) for outputs in zip(*each, strict=True)), 0

    apply: Callable[..., tuple[Tensor, ...]] = Affine.apply
    return apply


def _panel_gradients(
    panels: list[tuple[int, int]], ctx: Any, of_z: Tensor, of_log_det: Tensor
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return the gradients at x, factors and bias panel by panel, in place."""
    import torch

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


def _gradients(x: Tensor, factors: Tensor, of_z: Tensor, of_log_det: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients at x, factors and bias by products with whole matrices, differentiable."""
    upper, of_y = factors.triu(), of_z + of_z @ factors.tril(-1)
    of_factors = (of_z.mT @ (x @ upper.mT)).tril(-1) + (of_y.mT @ x).triu()
    return of_y @ upper, of_factors + (of_log_det / factors.diagonal()).diag(), of_z.sum(0)


def _tangents(x: Tensor, factors: Tensor, of_x: Tensor, of_factors: Tensor, of_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tangents of z and of log|det L U| by products with whole matrices, differentiable."""
    upper, lower = factors.triu(), factors.tril(-1)
    of_y = of_x @ upper.mT + x @ of_factors.triu().mT
    of_z = of_y + of_y @ lower.mT + x @ upper.mT @ of_factors.tril(-1).mT + of_bias
    return of_z, (of_factors.diagonal() / factors.diagonal()).sum()
