"""A density of a user's own array in one line, and as an estimator of scikit-learn."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import SkipTestWarning
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator

import harness
from harness.datasets.preprocessing import Standardize
from harness.errors import InputError


@pytest.fixture(scope="module")
def banana() -> np.ndarray:
    """Rows of a skewed density, whose columns have far other units."""
    x = np.random.default_rng(0).normal(size=(600, 2))
    return np.stack([1e5 * np.exp(x[:, 0]), 1e-4 * x[:, 1]], axis=1)


def test_a_flow_beats_the_gaussian_in_any_unit(banana: np.ndarray) -> None:
    gaussian = harness.fit(banana, "gaussian").log_prob(banana).mean()
    flow = harness.fit(banana, epochs=60)
    assert flow.description.method == "ebflow-aml"
    assert flow.log_prob(banana).mean() > gaussian + 0.1
    # The units of the data are those of the density.
    other = harness.fit(1000 * banana, epochs=60)
    np.testing.assert_allclose(other.log_prob(1000 * banana), flow.log_prob(banana) - 2 * np.log(1000), rtol=1e-5)
    preprocessing = flow.description.preprocessing
    assert isinstance(preprocessing, Standardize)
    assert preprocessing.scale[0] > 1e4 > 1e-3 > preprocessing.scale[1]


def test_arrays_and_tensors_of_any_number_type_are_taken() -> None:
    rows = np.random.default_rng(0).integers(0, 50, size=(40, 2))
    expected = harness.fit(rows, "gaussian").sample(3)
    for same in (rows.astype(np.float32), torch.from_numpy(rows), rows.tolist()):
        np.testing.assert_allclose(harness.fit(same, "gaussian").sample(3), expected)
    # Float32 could not hold the samples of a column of large numbers.
    assert harness.fit(rows, "gaussian", dtype="float32").sample(3).dtype == np.float64


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_a_fit_is_the_same_where_gradients_are_off(without_gradients: type) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 2))
    expected = harness.fit(rows, epochs=2, batch=10).log_prob(rows)
    with without_gradients():
        np.testing.assert_array_equal(harness.fit(rows, epochs=2, batch=10).log_prob(rows), expected)


def test_numbers_of_numpy_are_taken_everywhere(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 2))
    model = harness.fit(rows, epochs=np.int64(1), batch=np.int64(10), learning_rate=np.float32(1e-3), seed=np.int64(0))
    model.save(tmp_path / "model.safetensors")
    again = harness.load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.sample(np.int64(2), np.int64(3)), model.sample(2, 3))


def test_samples_of_few_bits_are_taken() -> None:
    rows = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    model = harness.fit(rows.double(), "gaussian")
    values = model.log_prob(rows)
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, model.log_prob(rows.double()), rtol=0, atol=0)


@pytest.mark.parametrize(("seed", "message"), [(10**22, "below 2^62"), (-1, "at least 0"), (0.5, "a whole number")])
def test_seeds_that_are_none(seed: int, message: str) -> None:
    model = harness.fit(np.random.default_rng(0).normal(size=(40, 2)), "gaussian")
    for use in (lambda: model.sample(2, seed), lambda: model.log_prob(np.zeros((1, 2)), seed)):
        with pytest.raises(InputError, match=re.escape(message)):
            use()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (np.ones(20), {}, "data must be 10 rows of numbers or more, shape (N, D), not float64 of shape (20,)"),
        (np.ones((9, 2)), {}, "data must be 10 rows of numbers or more, shape (N, D), not float64 of shape (9, 2)"),
        (np.full((20, 2), "a"), {}, "data must be 10 rows of numbers or more, shape (N, D), not <U1 of shape (20, 2)"),
        (np.diag(np.full(20, np.inf)), {}, "row 0 (counting from 0) holds NaN or infinity"),
        (
            np.eye(20)[:, :3] * 0 + [1, 2, 3],
            {},
            "array: columns with one value in all rows, and so no density: 0 (1), ",
        ),
        (
            np.arange(40.0)[:, None] * [1, 2],
            {},
            "array: columns that other columns determine, so that there is no density: 1 (from 0)",
        ),
        (np.random.default_rng(0).normal((0, 1e15), 1, (20, 2)), {}, "float64 cannot resolve: 1 (numbers up to 1e+15"),
        (np.random.default_rng(0).normal(size=(20, 30)), {"method": "gaussian"}, "gaussian cannot be fitted to these "),
        (np.ones((20, 2)), {"method": "ebflow-amml"}, "unknown method 'ebflow-amml': did you mean ebflow-aml"),
        (np.random.default_rng(0).normal(size=(20, 2)), {"recipe": "x"}, "unknown recipe 'x'"),
        (np.random.default_rng(0).normal(size=(20, 2)), {"epochs": 0}, "epochs must be a number above 0, not 0"),
        (np.random.default_rng(0).normal(size=(20, 2)), {"epochs": 1.5}, "epochs must be a whole number, not 1.5"),
        (np.random.default_rng(0).normal(size=(20, 2)), {"layers": "3"}, "layers must be a whole number, not '3'"),
    ],
)
def test_bad_data_are_one_line(data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        harness.fit(data, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_estimator_keeps_the_rules_of_scikit_learn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)  # the check of array_api needs a variable of the environment
        check_estimator(harness.FlowDensity(epochs=2))


def test_the_estimator_is_the_fitted_model(banana: np.ndarray) -> None:
    estimator = harness.FlowDensity(epochs=3, random_state=5).fit(banana)
    model = harness.fit(banana, epochs=3, seed=5)
    np.testing.assert_array_equal(estimator.score_samples(banana), model.log_prob(banana))
    assert estimator.score(banana) == pytest.approx(model.log_prob(banana).mean())
    np.testing.assert_array_equal(estimator.sample(4, random_state=2), model.sample(4, 2))
    drawn = harness.FlowDensity("gaussian", random_state=np.random.RandomState(0)).fit(banana)
    assert drawn.sample(2, np.random.RandomState(1)).shape == (2, 2)


def test_a_search_over_methods_chooses_by_likelihood(banana: np.ndarray) -> None:
    search = GridSearchCV(harness.FlowDensity(epochs=60), {"method": ["gaussian", "ebflow-ml"]}, cv=2).fit(banana)
    assert search.best_params_ == {"method": "ebflow-ml"}
