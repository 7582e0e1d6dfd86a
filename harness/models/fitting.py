"""A density model of a user's own array, in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.datasets.array_file import FEWEST_ROWS, require_finite, shuffled, standardized
from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import Identity
from harness.datasets.table_checks import require_density
from harness.errors import InputError
from harness.methods.density import build
from harness.methods.problem import DtypeName
from harness.methods.registry import registry, why_unavailable
from harness.models.trained import DensityModel
from harness.paper.configurations import configuration
from harness.paper.plans import suited
from harness.training.saved_model import describe
from harness.training.scoring import fit as train

__all__ = ["fit"]

_VALIDATION = 0.1  # of the rows: they choose the weights that are kept


def fit(
    data: np.ndarray | Tensor,
    method: str = "ebflow-aml",
    *,
    recipe: str = "tuned",
    layers: int | None = None,
    batch: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    max_seconds: float | None = None,
    dtype: DtypeName = "float64",
    seed: int = 0,
) -> DensityModel:
    """Fit a density to the rows of an array; a tenth of them, drawn at random, choose the best weights.

    Columns are standardised, and log-densities and samples stay in the units of the data.

    Args:
        data: Rows of shape (N, D), floats or integers, at least 10 of them.
        method: Name of a method (`harness list`) that has the fc architecture.
        recipe: Name of the training configuration, which the other arguments change.
        layers: Number of linear layers.
        batch: Batch size.
        epochs: Number of passes over the rows.
        learning_rate: Learning rate at the start.
        max_seconds: Time after which the training ends.
        dtype: Number format of the model.
        seed: Seed of the initial weights, the noise and the order of training; the split is the same for every seed.

    Returns:
        The model with the best validated weights.

    Raises:
        InputError: if the data are no such array or hold NaN, the method is unknown, unavailable or cannot model them,
            or an option makes no sense.
        harness.training.loop.Divergence: if the training meets numbers that are not finite.
    """
    rows = np.asarray(data.detach().cpu() if isinstance(data, Tensor) else data)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or len(rows) < FEWEST_ROWS or not rows.shape[1]:
        raise InputError(
            f"data must be {FEWEST_ROWS} rows of numbers or more, shape (N, D), not {rows.dtype} of shape {rows.shape}"
        )
    require_finite(rows)
    chosen_method = registry().find(method)
    if reason := why_unavailable(chosen_method):
        raise InputError(f"{method} is unavailable: {reason}")
    rows = rows.astype(np.float64)
    mixed = shuffled(rows)
    validation, training = mixed.tensor_split([max(1, round(_VALIDATION * len(mixed)))])
    require_density(rows, (), "array", standardize=True, float32=dtype != "float64")
    table = Dataset("array", tuple(rows.shape[1:]), training, validation, validation[:0], Identity())
    table = standardized(table)
    published = configuration("array", "fc", chosen_method.objective, recipe, chosen_method.family)
    settings, _ = suited(published, chosen_method, recipe, table.name)
    settings = settings.changed(
        _given(epochs=epochs, learning_rate=learning_rate, max_seconds=max_seconds),
        **_given(layers=layers, batch=batch),
    )
    problem = settings.problem.replace(shape=table.shape, dtype=dtype, seed=seed)
    try:
        # Whoever evaluates models without gradients may fit one there all the same.
        with torch.inference_mode(False), torch.enable_grad():
            model = build(chosen_method, problem)
            train(model, problem, table, table, settings.training)
    except ValueError as error:
        raise InputError(f"{method} cannot be fitted to these data: {error}") from error
    return DensityModel(model, describe(chosen_method, problem, table, recipe))


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}
