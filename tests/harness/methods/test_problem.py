"""The question: sizes and names that make no sense are refused, in one line."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from harness.errors import InputError
from harness.methods import Problem


def test_dimension_is_the_product_of_the_shape() -> None:
    assert Problem(shape=(3, 4, 5)).dimension == 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "cn"}, "unknown architecture 'cn': did you mean cnn"),
        ({"dtype": "float16"}, "unknown dtype 'float16': did you mean float"),
        ({"shape": (0,)}, r"the dimension D must be at least 1, not a shape of \(0,\); give --dims"),
        ({"shape": (1, -4, -4)}, "the dimension D must be at least 1"),
        ({"shape": ()}, "the dimension D must be at least 1"),
        ({"layers": 1.5}, "layers must be a whole number, not 1.5"),
        ({"batch": "7"}, "batch must be a whole number, not '7'"),
        ({"shape": (2.0,)}, "the dimension D must be a whole number, not 2.0"),
        ({"noise": "a"}, "noise must be a number, not 'a'"),
        ({"seed": 0.5}, "seed must be a whole number, not 0.5"),
        ({"layers": 0}, r"layers \(L\) must be at least 1, not 0"),
        ({"batch": -1}, r"batch \(B\) must be at least 1, not -1"),
        ({"noise": 0.0}, "the noise scale must be a number above 0, not 0.0"),
        ({"noise": float("nan")}, "the noise scale must be a number above 0, not nan"),
        ({"noise": float("inf")}, "the noise scale must be a number above 0, not inf"),
    ],
)
def test_nonsense_is_refused_at_once(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        Problem(**changes)
    with pytest.raises(InputError, match=f"^{message}"):
        Problem().replace(**changes)


def test_numbers_of_numpy_become_plain_ones() -> None:
    """They could not be written as JSON into a saved model."""
    problem = Problem(shape=(np.int64(3),), batch=np.int32(5), noise=np.float32(0.5), refresh=np.int64(2))
    assert problem == Problem(shape=(3,), batch=5, noise=0.5, refresh=2)
    assert json.loads(json.dumps(dataclasses.asdict(problem)))["batch"] == 5


@pytest.mark.parametrize("seed", [-1, 2**62, 99_999_999_999_999_999_999])
def test_a_seed_that_no_generator_or_table_can_hold(seed: int) -> None:
    with pytest.raises(InputError, match=r"^the seed must be at least 0"):
        Problem(seed=seed)
