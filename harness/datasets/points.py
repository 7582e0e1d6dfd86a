"""The paper's three 2-D sets: points drawn from a seed, with their exact density."""

from __future__ import annotations

import torch

from harness.datasets.base import Dataset
from harness.datasets.densities import NOISE_STD, Checkerboard, Density, Sine, Swirl
from harness.datasets.preprocessing import GaussianNoise

__all__ = ["DENSITIES", "load"]

DENSITIES: dict[str, Density] = {"sine": Sine(), "swirl": Swirl(), "checkerboard": Checkerboard()}

_SPLITS = (50_000, 10_000, 10_000)


def load(name: str, seed: int) -> Dataset:
    """Draw a 2-D set: 50,000 training, 10,000 validation and 10,000 test points, clean, in float64.

    Args:
        name: one of `DENSITIES`.
        seed: seed of the draw.

    Returns:
        A set of shape `(2,)` whose preprocessing adds the noise that its density accounts for.
    """
    density = DENSITIES[name]
    points = density.sample_clean(sum(_SPLITS), torch.Generator().manual_seed(seed))
    train, validation, test = points.split(_SPLITS)
    return Dataset(name, (2,), train, validation, test, GaussianNoise(NOISE_STD), density)
