"""The machine's rates: what is counted is what is done."""

from __future__ import annotations

import pytest
import torch

from harness.methods import LayerCost, Problem
from harness.timing.machine import COPY_METRIC, CUBE_METRIC, product_metric, rates


@pytest.mark.parametrize("dtype", ["float32", "float64", "bf16"])
def test_amounts_are_those_of_the_calls(dtype: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    problem = Problem(shape=(2, 3), layers=5, batch=7, dtype=dtype)
    costs = [LayerCost(9, rows=3), LayerCost(3, cubic=2), LayerCost(6)]
    *products, copies = rates(problem, costs)
    assert {rate.metric: rate.amount for rate in products} == {
        product_metric(1): 6 * 7 * 6**2,
        product_metric(3): 6 * 21 * 6**2,
        CUBE_METRIC: 6 * 6**3,
    }
    for rate in products:
        with FlopCounterMode(display=False) as counter:
            gradient = rate.call()
        assert counter.get_total_flops() == rate.amount
        assert gradient.dtype == {"bf16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}[dtype]
    assert [rate.metric for rate in rates(problem, [])] == [product_metric(1), COPY_METRIC]
    target = copies.call()
    assert copies.amount == 2 * target.nbytes == 2 * 5 * 36 * (8 if dtype == "float64" else 4)
    assert bool((target == 1).all())
