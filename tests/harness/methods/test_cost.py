"""The cost model, against the products that torch counts in a real iteration."""

from __future__ import annotations

import pytest
from torch.utils.flop_counter import FlopCounterMode

from harness.methods import LayerCost, Method, Problem
from harness.methods.cost import optimizer_bytes
from harness.methods.registry import registry
from harness.timing.interleaved import trainer_on_noise
from harness.training.configuration import TrainingConfig

WITH_COST = [method for method in registry().available("fc") if method.fc_cost is not None]


def test_flops_grow_as_they_should() -> None:
    cost = LayerCost(3, cubic=2)
    assert cost.flops(Problem(shape=(4,), layers=5, batch=7)) == 5 * (3 * 2 * 7 * 16 + 2 * 64)
    expected = 5 * (3 * 2 * 7 * 16 / 10 + 2 * 64 / 20)
    assert cost.seconds(Problem(shape=(4,), layers=5, batch=7), 10, 20) == pytest.approx(expected)
    assert cost.flops(Problem(shape=(4,), layers=5, batch=7), period=8) == 5 * (3 * 2 * 7 * 16 + 2 * 64 / 8)
    amortised = cost.seconds(Problem(shape=(4,), layers=5, batch=7), 10, 20, period=8)
    assert amortised == pytest.approx(5 * (3 * 2 * 7 * 16 / 10 + 2 * 64 / 20 / 8))
    assert optimizer_bytes(100, 4, moments=2, averaged=True) == 4_000
    assert optimizer_bytes(100, 8, moments=1, averaged=False) == 4_000


def test_every_shipped_fc_method_declares_its_cost() -> None:
    assert [m.name for m in registry().available("fc") if m.fc_cost is None and m.name.startswith("ebflow")] == []
    assert len(WITH_COST) >= 6


@pytest.mark.parametrize("method", WITH_COST, ids=lambda method: method.name)
def test_products_are_those_that_torch_counts(method: Method) -> None:
    """Per layer, in the limit of many; of the first layer's input no gradient is due, so the first layer costs less.

    Factorisations and triangular solves are not counted by torch, so the cubic part is left to where it is products.
    """
    counts = []
    for layers in (3, 4):
        problem = Problem(shape=(10,), layers=layers, batch=6)
        trainer, batch = trainer_on_noise(method, problem, TrainingConfig())
        with FlopCounterMode(display=False) as counter:
            trainer.gradient(batch)
        counts.append(counter.get_total_flops())
    (a_layer,) = {counts[1] - counts[0]}
    product = 2 * 6 * 10**2
    declared = method.fc_cost.products * product
    if method.linear == "lu":  # nothing is factored: D^3 flops are those of assembling the matrix
        declared += method.fc_cost.cubic * 10**3
    if method.objective == "sml":
        declared -= product  # two triangular solves
    assert a_layer == declared
