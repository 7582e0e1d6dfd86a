"""Errors of estimates of log Z as rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.cells import NormalizerCell
from harness.errors import InputError
from harness.methods import Method, Problem

CELL = NormalizerCell(
    experiment="normalizer", profile="custom", problem=Problem(shape=(8,), dtype="float64"), draws=1000, repeats=4
)


def test_every_estimator_makes_three_rows() -> None:
    told: list[tuple[int, int, str]] = []
    rows = CELL.run(lambda *step: told.append(step)).rows
    assert [(row.metric, row.unit) for row in rows] == [
        (f"{metric}_{name}", unit)
        for name in ("prior", "gaussian", "bridge")
        for metric, unit in (("log_z_error", "nats"), ("log_z_standard_error", "nats"), ("ess", "1"))
    ]
    assert {(row.status, row.n, row.dataset, row.D) for row in rows} == {("ok", 4, "normal", 8)}
    found = {row.metric: row.value for row in rows}
    assert found["log_z_error_bridge"] < 0.1 < found["log_z_error_prior"]
    assert found["log_z_error_gaussian"] < 0.2
    assert found["ess_prior"] < found["ess_gaussian"] < found["ess_bridge"] < 1000
    assert (told[0], told[-1]) == ((1, 12, "prior"), (12, 12, "bridge"))


def test_the_naive_error_grows_with_the_dimension() -> None:
    small, large = (
        {row.metric: row.value for row in replace(CELL, problem=Problem(shape=(size,), dtype="float64")).run().rows}
        for size in (4, 32)
    )
    assert large["log_z_error_prior"] > small["log_z_error_prior"] + 5
    assert large["ess_prior"] < small["ess_prior"]
    assert large["log_z_error_bridge"] < 0.3


def test_errors_are_absolute_and_from_the_exact_value(
    fake_method: Callable[..., Method], fake_model: type, with_methods: Callable[..., None]
) -> None:
    class Known(fake_model):
        def linear_layers(self) -> None: ...

        def load_linear_layers(self, layers: Any) -> None:
            assert [tuple(weight.shape) for weight, _ in layers] == [(8, 8)] * 2
            singular = torch.linalg.svdvals(layers[0][0])
            assert (singular.max().item(), singular.min().item()) == pytest.approx((1.5, 0.9))

        def log_normalizer(self) -> Tensor:
            return torch.tensor(3.0)

        def estimate_log_normalizer(
            self, estimator: str, data: Tensor, draws: int, generator: torch.Generator
        ) -> tuple[float, float, float]:
            assert data.shape == (10_000, 8)
            assert draws == 1000
            return {"prior": 1.0, "gaussian": 4.0, "bridge": 3.0}[estimator], 0.5, 7.0

    with_methods(fake_method("known", Known))
    found = {row.metric: row.value for row in replace(CELL, method="known").run().rows}
    assert [found[f"log_z_error_{name}"] for name in ("prior", "gaussian", "bridge")] == [2, 1, 0]
    assert (found["log_z_standard_error_prior"], found["ess_prior"]) == (0.5, 7)


def test_what_cannot_be_done_is_a_row(
    fake_method: Callable[..., Method], fake_model: type, with_methods: Callable[..., None]
) -> None:
    class Broken(fake_model):
        def linear_layers(self) -> None: ...

        def load_linear_layers(self, layers: Any) -> None:
            raise RuntimeError("no\nkernel")

        def log_normalizer(self) -> None: ...

        def estimate_log_normalizer(self) -> None: ...

    with_methods(fake_method(), fake_method("gone", requires=("no_such_library",)), fake_method("broken", Broken))
    reasons = {}
    for name in ("fake", "gone", "broken"):
        (row,) = replace(CELL, method=name).run().rows
        reasons[name] = (row.status, row.reason)
    assert reasons == {
        "fake": ("unavailable", "fake has no estimates of log Z"),
        "gone": ("unavailable", "no_such_library is not installed: pip install no_such_library"),
        "broken": ("failed", "RuntimeError: no kernel"),
    }


def test_a_shape_that_does_not_fit_is_raised_first() -> None:
    CELL.check()
    with pytest.raises(InputError, match="squeeze halves images"):
        replace(CELL, problem=Problem(architecture="cnn", shape=(1, 6, 6), layers=3)).check()


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "ebflow-sml"},
        {"draws": 10},
        {"repeats": 2},
        {"problem": CELL.problem.replace(seed=1)},
        {"problem": CELL.problem.replace(shape=(9,))},
    ],
    ids=str,
)
def test_the_key_changes_with_whatever_determines_the_result(changes: dict[str, Any]) -> None:
    assert replace(CELL, **changes).key() != CELL.key()


def test_titles_tell_cells_apart() -> None:
    assert CELL.title == "log Z of ebflow-ml, D = 8, L = 2"
