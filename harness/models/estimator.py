"""The density models as an estimator of scikit-learn."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from harness.datasets.array_file import FEWEST_ROWS
from harness.methods.problem import DtypeName
from harness.models.fitting import fit
from harness.models.trained import DensityModel

__all__ = ["FlowDensity"]


class FlowDensity(DensityMixin, BaseEstimator):
    """A normalizing flow as a density estimator of scikit-learn, for pipelines and searches over parameters.

    The parameters are those of `harness.fit`, with scikit-learn's `random_state` in place of the seed.

    Args:
        method: Name of a method (`harness list`).
        recipe: Name of the training configuration.
        layers: Number of linear layers; the recipe's if None.
        batch: Batch size; the recipe's if None.
        epochs: Number of passes over the rows; the recipe's if None.
        learning_rate: Learning rate at the start; the recipe's if None.
        max_seconds: Time after which the training ends; no limit if None.
        dtype: Number format of the model.
        random_state: Seed of everything random, or a generator of numpy to draw it from.

    Attributes:
        model_: The fitted `DensityModel`.
    """

    model_: DensityModel

    def __init__(
        self,
        method: str = "ebflow-aml",
        *,
        recipe: str = "tuned",
        layers: int | None = None,
        batch: int | None = None,
        epochs: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        dtype: DtypeName = "float64",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.method = method
        self.recipe = recipe
        self.layers = layers
        self.batch = batch
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.max_seconds = max_seconds
        self.dtype = dtype
        self.random_state = random_state

    def fit(self, X: Any, y: object = None) -> Self:
        """Fit the density to the rows of X, shape (N, D); y is not used."""
        rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=FEWEST_ROWS)
        options = self.get_params()
        seed = options.pop("random_state")
        if not isinstance(seed, int):
            seed = int(check_random_state(seed).randint(2**31 - 1))
        self.model_ = fit(rows, seed=seed, **options)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-density of each row of X in nats, shape (N,)."""
        check_is_fitted(self)
        rows: np.ndarray = validate_data(self, X, dtype=np.float64, reset=False)
        return self.model_.log_prob(rows)

    def score(self, X: Any, y: object = None) -> float:
        """Return the mean log-density of the rows of X in nats; larger is better, and y is not used."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = 0) -> np.ndarray:
        """Draw samples, shape (n_samples, D)."""
        check_is_fitted(self)
        seed = random_state if isinstance(random_state, int) else check_random_state(random_state).randint(2**31 - 1)
        return np.asarray(self.model_.sample(n_samples, int(seed)))
