"""The rates of the machine itself, measured beside the methods: matrix products, and copying."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.methods import LayerCost, Problem
from harness.methods.precision import lowered, stored, tf32_where_declared
from harness.methods.seeds import generator

CUBE_METRIC = "gemm_rate_square"
COPY_METRIC = "copy_bandwidth"
REFERENCE_METRIC = "reference_gemm"

_REFERENCE_SIZE = 256


@dataclass(frozen=True)
class Rate:
    """Something to time whose amount is known.

    Args:
        metric: Metric of the rate's row.
        unit: Unit of the rate, such as flop/s.
        amount: Amount that one call does.
        call: Function that does it.
    """

    metric: str
    unit: str
    amount: float
    call: Callable[[], Tensor]


def product_metric(rows: int) -> str:
    """Return the metric's name for products with `rows` times B rows."""
    return "gemm_rate" if rows == 1 else f"gemm_rate_{rows}_rows"


def rates(problem: Problem, costs: Iterable[LayerCost]) -> list[Rate]:
    """Return the rates that the costs need: products of their heights, square products, a copy of L layers' weights.

    The three products of a height are those of training: rows x D by D x D, the same by its transpose, and D x rows by
    rows x D. All results go to memory that is already there.
    """
    heights = sorted({1, *(cost.rows for cost in costs)})
    products = [_products(problem, product_metric(rows), rows * problem.batch) for rows in heights]
    if any(cost.cubic for cost in costs):
        products.append(_products(problem, CUBE_METRIC, problem.dimension))
    shape = problem.layers, problem.dimension, problem.dimension
    source = torch.ones(shape, device=problem.device, dtype=stored(problem.dtype))
    target = torch.empty_like(source)
    return [*products, Rate(COPY_METRIC, "B/s", 2 * source.nbytes, lambda: target.copy_(source))]


def reference(device: str) -> Rate:
    """Return the rate of a product that is the same in every run, whatever the problem: it tells of a drift."""
    size = _REFERENCE_SIZE, _REFERENCE_SIZE
    left, right = (torch.ones(size, device=device, dtype=torch.float32) for _ in range(2))
    result = torch.empty_like(left)
    return Rate(REFERENCE_METRIC, "flop/s", 2 * _REFERENCE_SIZE**3, lambda: torch.mm(left, right, out=result))


def _products(problem: Problem, metric: str, height: int) -> Rate:
    numbers = generator(problem.seed, "timing", problem.device)
    size, device, dtype = problem.dimension, problem.device, lowered(problem.dtype)
    rows, weight = (torch.randn(n, size, generator=numbers, device=device, dtype=dtype) for n in (height, size))
    row_results, gradient = torch.empty_like(rows), torch.empty_like(weight)

    def products() -> Tensor:
        with tf32_where_declared(problem.dtype):
            torch.mm(rows, weight.mT, out=row_results)
            torch.mm(rows, weight, out=row_results)
            return torch.mm(rows.mT, row_results, out=gradient)

    return Rate(metric, "flop/s", 6 * height * size**2, products)
