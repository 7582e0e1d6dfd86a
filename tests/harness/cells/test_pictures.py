"""What a trained model looks like: small arrays, of the right distribution, and no reason for a training to fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from harness import datasets
from harness.cells import Cell, ImputationCell, LikelihoodCell
from harness.cells.sweep import run_cells
from harness.methods import Method, Model, Problem
from harness.results import Store
from harness.training.configuration import TrainingConfig

SHORT = TrainingConfig(optimizer="adam", learning_rate=1e-3, epochs=1, evaluate_every=1)
POINTS = LikelihoodCell(
    experiment="x",
    profile="custom",
    method="gaussian",
    problem=Problem(shape=(2,), architecture="toy", layers=1, dtype="float64"),
    dataset="sine",
    config=SHORT,
    draws=1,
)
IMAGES = replace(POINTS, problem=Problem(shape=(1, 8, 8), layers=1), dataset="digits")
IMPUTED = ImputationCell(
    experiment="x",
    profile="custom",
    method="gaussian",
    problem=IMAGES.problem,
    dataset="digits",
    config=SHORT,
    images=20,
    steps=20,
    warmup=5,
)


def arrays_of(cell: Cell, folder: Path) -> dict[str, np.ndarray]:
    store = Store(folder)
    rows = run_cells([cell], store, lambda cell, there: lambda *step: None)
    assert {row.status for row in rows} == {"ok"}
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) <= 200 * 1024
    return store.arrays("x", rows[0].cell)


def test_points_have_a_density_and_a_score_on_a_grid(tmp_path: Path) -> None:
    found = arrays_of(POINTS, tmp_path)
    low, high = found["extent"]
    area = ((high - low) / 100) ** 2
    for name in ("log_density", "true_log_density"):
        assert found[name].shape == (100, 100)
        assert found[name].dtype == np.float32
        assert np.exp(found[name]).sum() * area == pytest.approx(1, abs=0.1)
    density = datasets.load("sine").density
    middles = low + (torch.arange(16, dtype=torch.float64) + 0.5) * (high - low) / 16
    # Rows run along the second coordinate.
    exact = density.score(torch.tensor([[middles[3], middles[7]]]))
    assert found["true_score"][7, 3] == pytest.approx(exact[0].numpy(), rel=1e-5)
    # A Gaussian's score is linear: the middle of two is that between them.
    assert found["score"][4, 2] == pytest.approx((found["score"][3, 1] + found["score"][5, 3]) / 2, rel=1e-3)


def test_images_have_samples_beside_test_images(tmp_path: Path) -> None:
    found = arrays_of(IMAGES, tmp_path)
    data = datasets.load("digits")
    assert found["samples"].shape == found["real"].shape == (64, 1, 8, 8)
    assert found["samples"].dtype == np.uint8
    assert np.array_equal(found["real"], data.test[:64].numpy())
    assert found["levels"] == [17]
    assert found["samples"].max() <= 16
    # One Gaussian has the pixels' means about right.
    away = np.abs(found["samples"].mean((0, 1)) - data.train.double().mean((0, 1)).numpy())
    assert away.mean() < 2


def test_imputations_keep_what_was_known(tmp_path: Path) -> None:
    found = arrays_of(IMPUTED, tmp_path)
    known = found["missing"] == 0
    assert known.sum() == 32
    for name in ("gaussian", "posterior_mean", "last_iterate"):
        assert found[name].shape == (12, 1, 8, 8)
        assert np.array_equal(found[name][:, known], found["original"][:, known])


def test_a_method_that_cannot_be_drawn_from_keeps_its_nll(
    tmp_path: Path, with_methods: Callable[..., None], fake_method: Callable[..., Method], fake_model: type[Model]
) -> None:
    class NoWayBack(fake_model):
        def to_data(self, z: Tensor) -> Tensor:
            raise RuntimeError("there is none")

    with_methods(fake_method("oneway", NoWayBack), fake_method("silent", fake_model, samples=False))
    assert arrays_of(replace(IMAGES, method="oneway"), tmp_path / "oneway") == {}
    assert arrays_of(replace(IMAGES, method="silent"), tmp_path / "silent") == {}
