"""A trained model in the data's own space: log-densities of rows, and samples."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from harness.datasets.array_file import require_finite
from harness.datasets.preprocessing import Dequantize, GaussianNoise, Identity, Standardize
from harness.errors import InputError
from harness.methods import Model, Problem
from harness.methods.calls import guarded
from harness.methods.density import build, sample_and_change
from harness.methods.plain import whole
from harness.methods.precision import stored
from harness.methods.registry import registry, why_unavailable
from harness.methods.seeds import require_seed, stream
from harness.training.saved_model import Description, read_model, write_model
from harness.training.scoring import densities

__all__ = ["DensityModel", "load_model"]

Rows = TypeVar("Rows", np.ndarray, Tensor)

_SAMPLES_AT_ONCE = 10_000
_FAR = 10.0  # standard deviations
_LOST = 0.01  # standard deviations of a latent: more than rounding may change it


class DensityModel:
    """A trained density of rows or images, used on the data's own values.

    `harness.fit` and `harness.load_model` make it. Preprocessing is part of it, with its log-determinant.

    Args:
        model: The trained model, on the CPU.
        description: What the model is.
    """

    def __init__(self, model: Model, description: Description) -> None:
        self.description = description
        self._model = model

    def __repr__(self) -> str:
        told = self.description
        return f"DensityModel({told.method} on {told.data}, shape {self.shape})"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.description.problem.shape

    def log_prob(self, x: Rows, seed: int = 0) -> Rows:
        """Return the log-density of each row in nats, in the units of the data, without gradients.

        Grey levels have a probability, of which this is a lower bound under one draw of the dequantisation noise.
        So have whole numbers of a table, where the noise has width 1.

        Args:
            x: Samples of shape (N, *shape) or (N, D), as a numpy array or a tensor of floats or integers. For images
                they are grey levels.
            seed: Seed of the dequantisation noise of grey levels and of rounded columns; other data have none.

        Returns:
            An array or a tensor like x, shape (N,): float32 for float32, float64 for every other type.

        Raises:
            InputError: if x has another shape or type, holds NaN or infinity, or no grey levels where they are meant.
        """
        raw = self._raw(x)
        known = replace(self.description)
        # The model's density is that of points with the noise; the caller's points are taken as they are.
        if isinstance(known.preprocessing, GaussianNoise):
            known = replace(known, preprocessing=Identity())
        values = _all_densities(self._model, raw, known, stream(require_seed(seed), "test"))
        if isinstance(x, Tensor):
            return values.to(x.device, torch.float32 if x.dtype == torch.float32 else torch.float64)
        return values.numpy().astype(np.float32 if np.asarray(x).dtype == np.float32 else np.float64)

    def score_samples(self, x: Rows) -> Rows:
        """Return `log_prob` of x, by scikit-learn's name."""
        return self.log_prob(x)

    def test_densities(self, raw: Tensor, seed: int = 0) -> Tensor:
        """Return log-densities in nats as `harness train` scores a test set, noise of the data included.

        Args:
            raw: Raw samples of shape (N, *shape).
            seed: Number of the test pass: 0 for the first one of a training.

        Returns:
            Log-densities, float64, shape (N,).

        Raises:
            InputError: if the samples have another shape, or are not finite.
        """
        return _all_densities(self._model, self._raw(raw), self.description, stream(seed, "test"))

    def sample(self, n: int = 1, seed: int | torch.Generator = 0) -> np.ndarray | Tensor:
        """Draw n samples in the data's own space: grey levels, uint8 or int64, for images, floats otherwise.

        Args:
            n: Number of samples, at least 1.
            seed: Seed of the latents, for a numpy array; or a generator of torch, for a tensor.

        A RuntimeWarning says where rounding has spoilt the samples.

        Returns:
            Samples of shape (n, *shape), float64 where they are no grey levels; rounded where the columns of a table
            are.

        Raises:
            InputError: if n is below 1, the seed is none, or the method cannot draw samples.
        """
        n = whole("the number of samples", n)
        if n < 1:
            raise InputError(f"the number of samples must be at least 1, not {n}")
        if not registry().find(self.description.method).samples:
            raise InputError(f"{self.description.method} has a density, but cannot draw samples")
        as_tensor = isinstance(seed, torch.Generator)
        generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(require_seed(seed))
        blocks, changes = [], []
        with guarded("to_data") as renew, torch.no_grad():
            latent_shape = self._latent_shape()
            for first in range(0, n, _SAMPLES_AT_ONCE):
                renew()
                count = min(_SAMPLES_AT_ONCE, n - first)
                block, change = sample_and_change(self._model, latent_shape, count, generator)
                blocks.append(block)
                changes.append(change)
        if (worst := max(changes)) > _LOST:
            known = self.description
            warnings.warn(
                f"the samples of {known.method} are spoilt by rounding in {known.problem.dtype}: from latent to sample "
                f"and back, the latents change by {worst:.2g} standard deviations; train in float64, or with a method "
                "whose layers are further from singular",
                RuntimeWarning,
                stacklevel=2,
            )
        preprocessing = self.description.preprocessing
        samples = preprocessing.inverse(torch.cat(blocks).double())
        if isinstance(preprocessing, Standardize):
            samples = preprocessing.rounded(samples)
        if isinstance(preprocessing, Dequantize):
            most = preprocessing.levels - 1
            samples = samples.floor().clamp(0, most).to(torch.uint8 if most < 256 else torch.int64)
        return samples if as_tensor else samples.numpy()

    def far_columns(self, raw: Tensor) -> list[str]:
        """Return which standardised columns of a table, shape (N, D), lie far outside of the training data.

        Far is more than 10 of the training data's standard deviations from its mean, in more than half of the rows.
        """
        told = self.description
        known = told.preprocessing
        if not isinstance(known, Standardize) or not any(known.mean):  # the columns are used as they are
            return []
        mean, scale = (torch.tensor(values, dtype=torch.float64) for values in (known.mean, known.scale))
        z = (raw - mean) / scale
        names = told.columns or range(len(known.mean))
        far = (z.abs() > _FAR).double().mean(0) > 0.5
        return [repr(name) for name, beyond in zip(names, far.tolist(), strict=True) if beyond]

    def save(self, path: str | Path) -> None:
        """Write the model into a file that `load_model` and the commands of `harness` read; it holds no code."""
        write_model(Path(path), self.description, self._model.module.state_dict())

    def _latent_shape(self) -> tuple[int, ...]:
        """Return the shape of one latent, which only a model itself knows."""
        problem, preprocessing = self.description.problem, self.description.preprocessing
        middle = torch.ones(1, *self.shape)
        if isinstance(preprocessing, Dequantize):
            middle = middle * (preprocessing.levels // 2)
        x = preprocessing.draw(middle, torch.Generator().manual_seed(0), stored(problem.dtype))
        return tuple(self._model.to_latent(x)[0].shape[1:])

    def _raw(self, x: np.ndarray | Tensor) -> Tensor:
        """Return samples as a tensor of shape (N, *shape) on the CPU, checked."""
        if isinstance(x, Tensor):
            # numpy has no bfloat16.
            array = (x.double() if x.is_floating_point() else x).detach().cpu().numpy()
        else:
            array = np.asarray(x)
        if array.dtype.kind not in "fiu":
            raise InputError(f"samples must be floats or integers, not {array.dtype}")
        flat = (self.description.problem.dimension,)
        if array.ndim < 2 or array.shape[1:] not in (self.shape, flat):
            shape = ", ".join(map(str, self.shape))
            raise InputError(f"the model takes samples of shape (N, {shape}), not {array.shape}")
        require_finite(array)
        preprocessing = self.description.preprocessing
        if isinstance(preprocessing, Dequantize) and array.size:
            whole = (array == np.floor(array)).all()
            if not whole or array.min() < 0 or array.max() >= preprocessing.levels:
                raise InputError(f"the model takes grey levels, whole numbers from 0 to {preprocessing.levels - 1}")
        return torch.from_numpy(array.astype(np.float64)).reshape(len(array), *self.shape)


def load_model(path: str | Path) -> DensityModel:
    """Load a model that `harness train --save` or `DensityModel.save` has written; nothing in the file is executed.

    Raises:
        InputError: if the file is none of ours or is damaged, its method is not installed here, or its weights belong
            to a model whose constants or shapes differ.
    """
    description, weights = read_model(Path(path))
    problem = description.problem
    # What is computed in less during training is stored as float32; likelihoods are evaluated in that.
    problem = problem.replace(device="cpu", dtype="float64" if problem.dtype == "float64" else "float32")
    if description.method not in registry().methods:
        raise InputError(f"{path}: its method {description.method} is not installed here; install its package")
    method = registry().find(description.method)
    if reason := why_unavailable(method):
        raise InputError(f"{path}: its method {method.name} is unavailable: {reason}")
    model = build(method, problem)
    try:
        model.module.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path} holds no weights for {method.name} as it is here: {reason}") from error
    model.module.eval()
    return DensityModel(model, replace(description, problem=problem))


def _all_densities(model: Model, raw: Tensor, known: Description, seed: int) -> Tensor:
    problem: Problem = known.problem
    blocks = list(densities(model, raw, known.preprocessing, problem, seed)) if len(raw) else []
    return torch.cat([torch.empty(0, dtype=torch.float64), *blocks])
