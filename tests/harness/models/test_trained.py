"""A trained model that comes back: in the data's own space, for numpy and torch, and refused in one line."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import harness
from harness import datasets
from harness.errors import InputError
from harness.methods import Problem
from harness.methods.density import build
from harness.methods.registry import registry
from harness.methods.seeds import generator
from harness.models.fitting import fit
from harness.models.trained import DensityModel, load_model
from harness.training.checkpoints import read_tensors, write_tensors
from harness.training.saved_model import describe, write_model

UNITS = np.array([1.0, 1e6, 1e-3])


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(300, 3)) @ generator.normal(size=(3, 3)) * UNITS + 5


@pytest.fixture(scope="module")
def gaussian(table: np.ndarray) -> DensityModel:
    return fit(table, "gaussian")


def exact(table: np.ndarray, model: DensityModel) -> np.ndarray:
    """The log-density of one Gaussian, in float64, fitted to the rows that the model has seen."""
    seen = table[torch.randperm(len(table), generator=generator(0, "split")).numpy()][30:]
    mean, covariance = seen.mean(0), np.cov(seen.T, bias=True)
    offset = table - mean
    squared = (offset @ np.linalg.inv(covariance) * offset).sum(1)
    return -0.5 * (squared + np.linalg.slogdet(2 * math.pi * covariance)[1])


def test_log_prob_is_in_the_units_of_the_data(table: np.ndarray, gaussian: DensityModel) -> None:
    np.testing.assert_allclose(gaussian.log_prob(table), exact(table, gaussian), rtol=1e-9)
    np.testing.assert_array_equal(gaussian.score_samples(table), gaussian.log_prob(table))
    samples = gaussian.sample(20_000, seed=3)
    np.testing.assert_allclose(samples.mean(0), table.mean(0), atol=0.2 * table.std(0).max(), rtol=0.2)
    np.testing.assert_allclose(samples.std(0) / table.std(0), 1, atol=0.1)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f8", "int32", "uint8"])
def test_the_same_kind_comes_out_as_went_in(dtype: str, gaussian: DensityModel) -> None:
    x = np.arange(12).reshape(4, 3).astype(dtype)
    values = gaussian.log_prob(x)
    assert isinstance(values, np.ndarray)
    assert (values.shape, values.dtype) == ((4,), np.float32 if dtype == "float32" else np.float64)
    tensor = torch.from_numpy(x.astype(x.dtype.newbyteorder("=")))
    of_tensor = gaussian.log_prob(tensor)
    assert isinstance(of_tensor, torch.Tensor)
    assert of_tensor.dtype == (torch.float32 if dtype == "float32" else torch.float64)
    np.testing.assert_array_equal(of_tensor.numpy(), values)
    assert gaussian.log_prob(x[:0]).shape == (0,)


def test_samples_follow_the_seed_or_a_generator(gaussian: DensityModel) -> None:
    first, again, other = gaussian.sample(5), gaussian.sample(5, 0), gaussian.sample(5, 1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    tensor = gaussian.sample(5, torch.Generator().manual_seed(1))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), other)
    with pytest.raises(InputError, match=r"^the number of samples must be at least 1, not 0$"):
        gaussian.sample(0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((4, 2)), "the model takes samples of shape (N, 3), not (4, 2)"),
        (np.ones(3), "the model takes samples of shape (N, 3), not (3,)"),
        (np.ones((4, 1, 3)), "the model takes samples of shape (N, 3), not (4, 1, 3)"),
        (np.array([[1, 2, 3], [1, np.nan, 3]]), "row 1 (counting from 0) holds NaN or infinity, as do 1 of 2 rows"),
        (np.ones((4, 3), complex), "samples must be floats or integers, not complex128"),
        (np.array([["a", "b", "c"]]), "samples must be floats or integers, not <U1"),
    ],
)
def test_bad_samples_are_one_line(x: np.ndarray, message: str, gaussian: DensityModel) -> None:
    with pytest.raises(InputError) as caught:
        gaussian.log_prob(x)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_saved_model_is_the_same_model(table: np.ndarray, tmp_path: Path) -> None:
    model = fit(table.astype(np.float32), "ebflow-ml", epochs=2, layers=3, dtype="float32", seed=4)
    model.save(tmp_path / "new" / "m.safetensors")
    loaded = load_model(tmp_path / "new" / "m.safetensors")
    np.testing.assert_array_equal(loaded.log_prob(table), model.log_prob(table))
    np.testing.assert_array_equal(loaded.sample(4), model.sample(4))
    assert replace(loaded.description, versions={}) == replace(model.description, versions={})
    assert dict(loaded.description.versions).keys() == {"ebflow-bench", "python", "torch"}
    assert loaded.description.problem.layers == 3
    assert repr(loaded) == "DensityModel(ebflow-ml on array, shape (3,))"


def digits_model(method: str, **changes: Any) -> DensityModel:
    data = datasets.load("digits")
    problem = Problem(shape=data.shape, dtype="float64", **changes)
    model = build(registry().find(method), problem)
    return DensityModel(model, describe(registry().find(method), problem, data, "paper"))


def test_images_are_grey_levels_on_both_sides() -> None:
    model, data = digits_model("ebflow-dsm"), datasets.load("digits")
    images = model.sample(8)
    assert images.shape == (8, 1, 8, 8)
    assert images.dtype == np.uint8
    assert 0 <= images.min() <= images.max() <= 16
    raw = data.test[:5]
    values = model.log_prob(raw)
    torch.testing.assert_close(model.log_prob(raw.flatten(1).double()), values)  # flat, and of another dtype
    torch.testing.assert_close(values.double(), model.test_densities(raw))
    assert not torch.equal(model.log_prob(raw, seed=1), values), "another draw of the noise"
    for bad in (raw.double() + 0.5, raw.double() - 1, raw.double() + 17):
        with pytest.raises(InputError, match=r"^the model takes grey levels, whole numbers from 0 to 16$"):
            model.log_prob(bad)


def test_points_of_a_set_with_noise_are_taken_as_they_are() -> None:
    data, method = datasets.load("sine"), registry().find("gaussian")
    problem = Problem(shape=(2,), dtype="float64", layers=1)
    model = build(method, problem)
    trained = DensityModel(model, describe(method, problem, data, "paper"))
    values = trained.log_prob(data.test[:3])
    torch.testing.assert_close(values, trained.log_prob(data.test[:3], seed=9))
    assert not torch.equal(values, trained.test_densities(data.test[:3]))


class TestRefusals:
    """What is no model, or none that can be used here, ends in one line."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        digits_model("ebflow-dsm", residual=True).save(tmp_path / "m")
        return tmp_path / "m"

    def assert_refused(self, path: Path, message: str) -> None:
        with pytest.raises(InputError) as caught:
            load_model(path)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def rewritten(self, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
        tensors, metadata = read_tensors(path)
        fields = json.loads(metadata["model"])
        change(fields)
        write_tensors(path, tensors, {"format": metadata["format"], "model": json.dumps(fields)})
        return path

    def test_other_files(self, path: Path, tmp_path: Path) -> None:
        self.assert_refused(tmp_path / "absent", "absent is no model that `harness train --save` wrote (No such file")
        self.assert_refused(tmp_path, "is no model that `harness train --save` wrote (Is a directory)")
        path.write_bytes(path.read_bytes()[:-1])
        self.assert_refused(path, "m is no model that `harness train --save` wrote (its content is not what was writt")
        path.write_bytes(b"\x80\x04K\x01.")
        self.assert_refused(path, "it has no seal")
        write_tensors(path, {"weight": torch.ones(2)}, {"format": "4"})
        self.assert_refused(path, "m is no model that `harness train --save` wrote, or one of another version")

    def test_constants_that_differ_are_named(self, path: Path) -> None:
        self.rewritten(path, lambda fields: fields["problem"].update(residual=False))
        self.assert_refused(path, "SmoothLeakyReLU has residual = 0, the weights were made with 1")

    def test_another_shape(self, path: Path) -> None:
        self.rewritten(path, lambda fields: fields["problem"].update(shape=[1, 4, 4]))
        self.assert_refused(path, "holds no weights for ebflow-dsm as it is here: size mismatch")

    def test_a_method_that_is_not_here(self, path: Path, with_methods: Any, fake_method: Any) -> None:
        self.rewritten(path, lambda fields: fields.update(method="their-flow"))
        self.assert_refused(path, "m: its method their-flow is not installed here; install its package")
        with_methods(fake_method("their-flow", requires=("no_such_library",)))
        self.assert_refused(path, "its method their-flow is unavailable: no_such_library is not installed: pip install")

    @pytest.mark.parametrize("place", ["problem", "preprocessing", None])
    def test_fields_of_another_version(self, place: str | None, path: Path) -> None:
        self.rewritten(path, lambda fields: (fields[place] if place else fields).update(new=1))
        self.assert_refused(path, f"m was written by version {harness.__version__}, which {harness.__version__} cannot")

    def test_a_method_without_samples(self, table: np.ndarray, with_methods: Any, fake_method: Any) -> None:
        with_methods(fake_method("one-way-ml", samples=False))
        with pytest.raises(InputError, match=r"^one-way-ml has a density, but cannot draw samples$"):
            fit(table, "one-way-ml", recipe="paper", epochs=1).sample(3)


def test_a_model_file_is_whole_at_any_moment(
    gaussian: DensityModel, table: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    gaussian.save(path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"no space left"):
        write_model(path, gaussian.description, {"weight": torch.zeros(3)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_importing_harness_is_quick_and_names_come_when_asked_for() -> None:
    code = "import sys, harness; assert 'torch' not in sys.modules; print(harness.load_model, dir(harness))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "load_model" in done.stdout
    assert "FlowDensity" in done.stdout
    with pytest.raises(AttributeError, match=r"module 'harness' has no attribute 'lode_model'"):
        _ = harness.lode_model


def test_samples_that_rounding_has_spoilt_are_told(
    table: np.ndarray, fake_method: Any, fake_model: Any, with_methods: Any, recwarn: pytest.WarningsRecorder
) -> None:
    class Inexact(fake_model):
        off = 0.5

        def to_data(self, z: torch.Tensor) -> torch.Tensor:
            return super().to_data(z + self.off)

    with_methods(fake_method("fake", Inexact))
    model = fit(table, "fake", recipe="paper", epochs=1)
    told = r"^the samples of fake are spoilt by rounding in float64: .* change by 0.5 standard deviations; train in"
    with pytest.warns(RuntimeWarning, match=told):
        assert model.sample(100).shape == (100, 3)
    Inexact.off = 1e-4
    model.sample(100)
    assert not recwarn.list
