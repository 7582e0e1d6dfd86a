"""The rates of the machine itself, measured beside the methods: matrix products, and copying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.precision import lowered, stored, tf32_where_declared
from harness.problem import Problem

__all__ = ["Rate", "rates"]


@dataclass(frozen=True)
class Rate:
    """Something to time whose amount is known.

    Args:
        metric: Name of its row.
        unit: Of the amount, a second.
        amount: How much one call does.
        call: Does it.
    """

    metric: str
    unit: str
    amount: float
    call: Callable[[], Tensor]


def rates(problem: Problem) -> list[Rate]:
    """Return the products of one dense layer at the problem's B, D and arithmetic, and a copy of L layers' weights.

    The three products are those of training: B x D by D x D, the same by its transpose, and D x B by B x D. All results
    go to memory that is already there.
    """
    generator = torch.Generator(problem.device).manual_seed(problem.seed)
    size, batch = problem.dimension, problem.batch
    like = {"device": problem.device, "dtype": lowered(problem.dtype)}
    rows, weight = (torch.randn(n, size, generator=generator, **like) for n in (batch, size))
    row_results, gradient = torch.empty_like(rows), torch.empty_like(weight)

    def products() -> Tensor:
        with tf32_where_declared(problem.dtype):
            torch.mm(rows, weight.mT, out=row_results)
            torch.mm(rows, weight, out=row_results)
            return torch.mm(rows.mT, row_results, out=gradient)

    source = torch.ones(problem.layers, size, size, device=problem.device, dtype=stored(problem.dtype))
    target = torch.empty_like(source)
    return [
        Rate("gemm_rate", "flop/s", 6 * batch * size**2, products),
        Rate("copy_bandwidth", "B/s", 2 * source.numel() * source.element_size(), lambda: target.copy_(source)),
    ]
