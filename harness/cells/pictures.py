"""What a trained model looks like, as small arrays that are kept beside a cell's rows and drawn later."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from harness.datasets.dataset import Dataset
from harness.datasets.densities import Density
from harness.datasets.preprocessing import Dequantize
from harness.methods import Method, Model, Problem
from harness.methods.calls import guarded
from harness.methods.density import log_prob, sample, score
from harness.methods.precision import stored
from harness.methods.seeds import generator

Arrays = dict[str, np.ndarray]

_BYTES = 150_000  # the most that the images of one cell take
_LIMIT = 20.0  # seconds; a picture is worth no more
_GRID, _COARSE = 100, 16
_IMAGES, _IMPUTED = 64, 12


def learned(method: Method, model: Model, dataset: Dataset, problem: Problem) -> Arrays:
    """Return what can be seen of a trained model: a density in two dimensions, or samples of images.

    A method that fails here has its NLL all the same, and no picture.

    Returns:
        For points, on a grid over the square that holds the test data: ``extent``, the lower and upper end of the
        square; ``log_density`` and ``true_log_density``, float32, (100, 100), rows along the second coordinate;
        ``score`` and ``true_score``, (16, 16, 2). For images: ``samples`` and ``real``, uint8, (N, C, H, W), and
        ``levels``.
    """
    try:
        if dataset.density is not None and dataset.shape == (2,):
            return _density(model, dataset, dataset.density, problem)
        if isinstance(dataset.preprocessing, Dequantize) and method.samples:
            return _samples(model, dataset, dataset.preprocessing, problem)
    except Exception:  # a competitor may fail in any way
        pass
    return {}


def imputed(truth: Tensor, missing: Tensor, filled: dict[str, Tensor], levels: int) -> Arrays:
    """Return some images with what was missing and what filled it in.

    Args:
        truth: The true grey levels, shape (N, C, H, W).
        missing: Whether a pixel is missing, boolean, shape (C, H, W).
        filled: Estimates of all pixels, by name, each of shape (N, C, H, W); known pixels stay as they are.
        levels: The number of levels of a pixel.

    Returns:
        ``original`` and one array a name, uint8, (12, C, H, W); ``missing``, uint8, (C, H, W); ``levels``.
    """
    some = truth[:_IMPUTED]
    whole = {name: torch.where(missing, levels_of[:_IMPUTED], some) for name, levels_of in filled.items()}
    arrays = {name: _bytes(images) for name, images in {"original": some, **whole}.items()}
    return {**arrays, "missing": _bytes(missing), "levels": np.array([levels])}


def as_levels(preprocessing: Dequantize, x: Tensor) -> Tensor:
    """Return the grey levels, float64, whose dequantised values lie at x in model space."""
    return preprocessing.inverse(x.double()).floor().clamp(0, preprocessing.levels - 1)


def _density(model: Model, dataset: Dataset, truth: Density, problem: Problem) -> Arrays:
    noise = generator(0, "picture", problem.device)
    data = dataset.preprocessing.draw(dataset.test.to(problem.device), noise, torch.float64)
    low, high = math.floor(float(data.min())), math.ceil(float(data.max()))
    fine, coarse = (_grid(low, high, cells, problem) for cells in (_GRID, _COARSE))
    with guarded("a density on a grid", _LIMIT):
        with torch.no_grad():
            density = log_prob(model, fine)
        fields = {"log_density": density, "score": score(model, coarse)}
    fields["true_log_density"] = truth.log_prob(fine)
    if (exact := truth.score(coarse)) is not None:
        fields["true_score"] = exact
    shapes = {"score": (_COARSE, _COARSE, 2), "log_density": (_GRID, _GRID)}
    arrays = {name: values.float().nan_to_num().cpu().numpy() for name, values in fields.items()}
    arrays = {name: values.reshape(shapes[name.removeprefix("true_")]) for name, values in arrays.items()}
    return {**arrays, "extent": np.array([low, high], dtype=np.float32)}


def _grid(low: float, high: float, cells: int, problem: Problem) -> Tensor:
    """Return the middles of the cells of a square, (cells * cells, 2), the first coordinate running fastest."""
    middles = low + (torch.arange(cells, dtype=torch.float64) + 0.5) * (high - low) / cells
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1).to(problem.device, stored(problem.dtype))


def _samples(model: Model, dataset: Dataset, preprocessing: Dequantize, problem: Problem) -> Arrays:
    noise = generator(0, "picture", problem.device)
    count = max(1, min(_IMAGES, _BYTES // (2 * dataset.dimension)))
    real = dataset.test[:count]
    x = preprocessing.draw(real.to(problem.device), noise, stored(problem.dtype))
    with torch.no_grad(), guarded("samples", _LIMIT):
        latent = model.to_latent(x)[0].shape[1:]
        drawn = sample(model, tuple(latent), count, noise)
    levels = as_levels(preprocessing, drawn.nan_to_num()).view(count, *dataset.shape)
    return {"samples": _bytes(levels), "real": _bytes(real), "levels": np.array([preprocessing.levels])}


def _bytes(values: Tensor) -> np.ndarray:
    return values.to(torch.uint8).cpu().numpy()
