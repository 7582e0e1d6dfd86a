"""The cost model, against the products that torch counts in a real iteration."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.methods import LayerCost, Method, Problem
from harness.methods.cost import optimizer_bytes
from harness.methods.registry import registry
from harness.timing.interleaved import trainer_on_noise
from harness.training.configuration import TrainingConfig

WITH_COST = [method for method in registry().available("fc") if method.fc_cost is not None]


def test_flops_grow_as_they_should() -> None:
    cost, problem = LayerCost(3, cubic=2), Problem(shape=(4,), layers=5, batch=7)
    products, cubes = (5 * 3 - 1) * 2 * 7 * 16, 5 * 2 * 64  # the first layer's input needs no gradient
    assert cost.flops(problem) == products + cubes
    assert cost.seconds(problem, 10, 20) == pytest.approx(products / 10 + cubes / 20)
    assert cost.flops(problem, period=8) == products + cubes / 8
    assert cost.seconds(problem, 10, 20, period=8) == pytest.approx(products / 10 + cubes / 20 / 8)
    assert LayerCost(9, rows=3, saved=3).flops(problem) == (5 * 9 - 3) * 2 * 7 * 16
    assert optimizer_bytes(100, 4, moments=2, averaged=True) == 4_000
    assert optimizer_bytes(100, 8, moments=1, averaged=False) == 4_000


def test_every_shipped_fc_method_declares_its_cost() -> None:
    assert [m.name for m in registry().available("fc") if m.fc_cost is None and m.name.startswith("ebflow")] == []
    assert len(WITH_COST) >= 6


def counter() -> FlopCounterMode:
    """A counter of torch's that also knows factorisations, solves and sums in place, which it leaves out by itself."""

    def cube(size: torch.Size) -> float:
        return size[-1] ** 3

    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten.addmm_: lambda total, left, right, *args, **kwargs: 2 * math.prod(left) * right[-1],
            aten._linalg_slogdet: lambda matrix, *args, **kwargs: 2 / 3 * cube(matrix),
            # The backward pass of a determinant: the inverse from the factors.
            aten.linalg_lu_solve: lambda factors, *args, **kwargs: 4 / 3 * cube(factors),
            # A factorisation, and two triangular solves of the right-hand sides.
            aten._linalg_solve_ex: lambda matrix, right, *args, **kwargs: (
                2 / 3 * cube(matrix) + 2 * right[-1] * matrix[-1] ** 2
            ),
        },
    )


def counted(method: Method, problem: Problem) -> float:
    trainer, batch = trainer_on_noise(method, problem, TrainingConfig())
    if method.objective == "snl":
        trainer.gradient(batch)  # its proposal is drawn at the first step
    with counter() as flops:
        trainer.gradient(batch)
    return flops.get_total_flops()


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("method", WITH_COST, ids=lambda method: method.name)
def test_the_declared_cost_is_what_torch_counts(method: Method, layers: int) -> None:
    problem = Problem(shape=(10,), layers=layers, batch=6)
    declared = method.fc_cost.flops(problem)
    if layers == 1 or method.name == "plain-lu-ml":  # a layer that is first and last; products by panels
        assert declared <= counted(method, problem) * (1 + 1e-12)
    else:
        assert declared == pytest.approx(counted(method, problem), rel=1e-12)


def test_triangles_of_many_panels_cost_little_more_than_half() -> None:
    method, problem = registry().find("plain-lu-ml"), Problem(shape=(512,), layers=2, batch=2)
    assert counted(method, problem) / method.fc_cost.flops(problem) == pytest.approx(1 + 1 / 4)


def test_the_counter_knows_every_operation_of_cubic_cost() -> None:
    problem = Problem(shape=(10,), layers=2, batch=6)
    assert counted(registry().find("ebflow-ml"), problem) == pytest.approx(5 * 1_200 + 2 * 2_000)
    assert counted(registry().find("ebflow-dsm"), problem) == 11 * 1_200
