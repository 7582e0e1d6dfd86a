"""The paper's synthetic sets, three in 2-D and one in 10-D: points drawn from a seed, with their exact density."""

from __future__ import annotations

import torch

from harness.datasets.dataset import Dataset
from harness.datasets.densities import NOISE_STD, Checkerboard, Density, Multimodal, Sine, SmoothedDensity, Swirl
from harness.datasets.preprocessing import GaussianNoise, Identity

DENSITIES: dict[str, Density] = {
    "sine": Sine(),
    "swirl": Swirl(),
    "checkerboard": Checkerboard(),
    "multimodal10": Multimodal(),
}

_SPLITS = (50_000, 10_000, 10_000)


def load(name: str, seed: int) -> Dataset:
    """Draw a synthetic set: 50,000 training, 10,000 validation and 10,000 test points, clean, in float64.

    Args:
        name: one of `DENSITIES`.
        seed: seed of the draw.

    Returns:
        A set of shape `(D,)` whose preprocessing adds the noise that its density accounts for, if any.
    """
    density = DENSITIES[name]
    points = density.sample_clean(sum(_SPLITS), torch.Generator().manual_seed(seed))
    train, validation, test = points.split(_SPLITS)
    preprocessing = GaussianNoise(NOISE_STD) if isinstance(density, SmoothedDensity) else Identity()
    return Dataset(name, tuple(points.shape[1:]), train, validation, test, preprocessing, density)
