"""The 8 x 8 digits that come with scikit-learn: D = 64, no download."""

from __future__ import annotations

import torch

from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import LogitPreprocessing

_SPLITS = (1200, 297, 300)


def load() -> Dataset:
    """Load the 1,797 digits: 1,200 training, 297 validation and 300 test images of 17 levels.

    The file's order follows the writers, so the images are shuffled, always in the same way.

    Returns:
        A set of shape `(1, 8, 8)` in `uint8`.
    """
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images).to(torch.uint8).unsqueeze(1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, validation, test = images[order].split(_SPLITS)
    return Dataset("digits", (1, 8, 8), train, validation, test, LogitPreprocessing(levels=17))
