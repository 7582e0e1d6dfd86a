"""Imputation: chains hold what is known, rows compare what they should, and a better model fills in better."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.cells.imputation import ImputationCell, peak_signal_to_noise
from harness.errors import InputError
from harness.methods import Method, Problem
from harness.training.configuration import TrainingConfig

CELL = ImputationCell(
    experiment="imputation",
    profile="custom",
    method="gaussian",
    problem=Problem(shape=(1, 8, 8), layers=1),
    dataset="digits",
    config=TrainingConfig(optimizer="adam", learning_rate=1e-3, epochs=2, evaluate_every=1),
    images=100,
    steps=250,
    warmup=50,
)


def test_a_gaussian_s_chain_finds_the_posterior_mean() -> None:
    rows = {row.metric: row for row in CELL.run().rows}
    assert list(rows) == [
        "psnr_mean_image",
        "psnr_gaussian",
        "psnr_last_iterate",
        "psnr_posterior_mean",
        "psnr_gain",
        "accepted",
        "sampling_seconds",
        "training_seconds",
        "validation_nll",
        "reference_gemm_drift",
    ]
    assert {row.status for row in rows.values()} == {"ok"}
    psnr = {metric: row.value for metric, row in rows.items()}
    assert psnr["psnr_posterior_mean"] > psnr["psnr_mean_image"] + 1
    assert psnr["psnr_last_iterate"] < psnr["psnr_mean_image"]  # a draw has the posterior's variance on top
    assert psnr["psnr_gain"] == pytest.approx(psnr["psnr_posterior_mean"] - psnr["psnr_mean_image"])
    assert psnr["accepted"] == pytest.approx(0.651, abs=0.1)
    gain, filled = rows["psnr_gain"], rows["psnr_posterior_mean"]
    assert (gain.unit, gain.n, filled.dataset, filled.shape) == ("dB", 100, "digits", "1x8x8")
    assert gain.ci_low < gain.value < gain.ci_high


def test_a_network_from_whitened_data_and_plain_chains() -> None:
    cell = replace(
        CELL,
        method="ebflow-ml",
        problem=Problem(shape=(1, 8, 8), layers=2, start="whitened"),
        config=TrainingConfig(epochs=1, learning_rate=1e-9, evaluate_every=1, start_samples=1000),
        images=20,
        steps=20,
        warmup=10,
    )
    adjusted = {row.metric: row.value for row in cell.run().rows}
    plain = {row.metric: row.value for row in replace(cell, preconditioned=False, adjusted=False).run().rows}
    assert plain["accepted"] == 1
    assert plain["psnr_posterior_mean"] != adjusted["psnr_posterior_mean"]
    assert plain["psnr_mean_image"] == adjusted["psnr_mean_image"]
    assert plain["validation_nll"] == adjusted["validation_nll"]


class Asked:
    """What a chain was asked for, and one that does nothing, or ends in no number."""

    def __init__(self, fake_model: type, end: float) -> None:
        self.calls: list[dict[str, Any]] = []
        asked = self

        class Recording(fake_model):
            def impute(self, x: Tensor, missing: Tensor, **rest: Any) -> Iterator[Tensor]:
                asked.calls.append({"x": x, "missing": missing, **rest})
                return iter([x] * (rest["steps"] - 1) + [x * end])

        self.model = Recording


def test_the_lower_half_is_missing_and_the_upper_half_known(
    fake_method: Callable[..., Method], fake_model: type, with_methods: Callable[..., None]
) -> None:
    asked = Asked(fake_model, 1.0)
    with_methods(fake_method("asked", asked.model))
    cell = replace(CELL, method="asked", step_size=0.25, adjusted=False)
    rows = {row.metric: row.value for row in cell.run().rows}
    assert rows["accepted"] == 0
    assert rows["psnr_last_iterate"] == pytest.approx(rows["psnr_posterior_mean"])  # all iterates are the start
    (call,) = asked.calls
    assert not call["missing"][:, :4].any()
    assert call["missing"][:, 4:].all()
    assert (call["steps"], call["step_size"], call["adjusted"], call["warmup"]) == (250, 0.25, False, 50)
    assert call["x"].shape == (100, 1, 8, 8)
    variances = call["x"].double().flatten(1).var(0)
    torch.testing.assert_close(call["covariance"].diagonal().sqrt(), variances.sqrt(), rtol=0.5, atol=0.5)


def test_a_chain_that_ends_in_no_number_diverges(
    fake_method: Callable[..., Method], fake_model: type, with_methods: Callable[..., None]
) -> None:
    with_methods(fake_method("nan", Asked(fake_model, math.nan).model))
    rows = {row.metric: row for row in replace(CELL, method="nan").run().rows}
    chain = rows.pop("psnr_posterior_mean")
    assert (chain.status, chain.reason) == ("diverged", "the chain is not finite: use a smaller step")
    # The training stands.
    assert rows.keys() >= {"training_seconds", "validation_nll"}
    assert {row.status for row in rows.values()} == {"ok"}


def test_what_cannot_be_done_is_a_row(
    fake_method: Callable[..., Method], with_methods: Callable[..., None], tmp_path: Path
) -> None:
    with_methods(fake_method("gone", requires=("no_such_library",)), fake_method())

    def failure(**changes: Any) -> tuple[str, str]:
        (row,) = [row for row in replace(CELL, **changes).run().rows if row.status != "ok"]
        return row.status, row.reason

    assert failure(method="gone") == ("unavailable", "no_such_library is not installed: pip install no_such_library")
    assert failure(method="fake") == ("unavailable", "fake cannot impute")
    assert failure(dataset="sine") == ("unavailable", "sine holds no images to fill in")
    assert failure(dataset="mnist", data_dir=tmp_path)[0] == "unavailable"
    assert failure(step_size=-1.0) == ("failed", "ValueError: the step size must be a number above 0, not -1.0")


def test_the_user_s_mistakes_are_raised_first() -> None:
    CELL.check()
    with pytest.raises(InputError, match="250 steps has no mean after a warm-up of 250"):
        replace(CELL, warmup=250).check()
    with pytest.raises(InputError, match="squeeze halves images"):
        replace(CELL, method="ebflow-ml", problem=Problem(architecture="cnn", shape=(1, 6, 6), layers=3)).check()


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "ebflow-ml"},
        {"images": 50},
        {"steps": 300},
        {"warmup": 20},
        {"step_size": 0.2},
        {"preconditioned": False},
        {"adjusted": False},
        {"leapfrog": 1},
        {"logit_alpha": 1.0},
        {"config": TrainingConfig()},
    ],
    ids=str,
)
def test_the_key_changes_with_whatever_determines_the_result(changes: dict[str, Any]) -> None:
    assert replace(CELL, **changes).key() != CELL.key()


def test_the_key_does_not_change_with_where_files_lie(tmp_path: Path) -> None:
    moved = replace(CELL, data_dir=tmp_path, download=True)
    assert moved.key() == CELL.key()
    assert CELL.title == "imputation by gaussian on digits, fc, seed 0"


def test_psnr_is_of_the_missing_pixels() -> None:
    missing = torch.tensor([[[False, False], [True, True]]])
    truth = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    levels = torch.tensor([[9.0, 9, 3, 4], [9, 9, 255, 255], [9, 9, 0, 0]]).view(3, 1, 2, 2)
    expected = torch.tensor([10 * math.log10(255**2 / 12.5), 0.0, 10 * math.log10(255**2 * 12)], dtype=torch.float64)
    torch.testing.assert_close(peak_signal_to_noise(levels, truth, missing, 255), expected)
