"""The patches of photographs: the recipe of BSDS300, written out once more, and what one Gaussian scores on them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from harness import datasets
from harness.datasets.dataset import Dataset


@pytest.fixture(scope="module")
def patches() -> Dataset:
    return datasets.load("patches")


def grey_levels() -> list[list[list[int]]]:
    return [
        [[round(0.299 * int(r) + 0.587 * int(g) + 0.114 * int(b)) for r, g, b in line] for line in photograph]
        for photograph in load_sample_images().images
    ]


def test_sizes(patches: Dataset) -> None:
    assert (len(patches.train), len(patches.validation), len(patches.test)) == (424_200, 840, 94_920)
    assert datasets.splits("patches") == (424_200, 840, 94_920)
    assert datasets.shape("patches") == patches.train.shape[1:] == (63,)


def test_every_value_is_a_level_with_noise_of_one_level_less_the_mean(patches: Dataset) -> None:
    grey = grey_levels()
    splits = ((patches.train, 0, 505), (patches.validation, 512, 1), (patches.test, 520, 113))
    for samples, first_column, columns in splits:
        for number in (0, columns - 1, columns, 420 * columns - 1, 420 * columns, 840 * columns - 1):
            photograph, rest = divmod(number, 420 * columns)
            row, column = divmod(rest, columns)
            corner = first_column + column
            levels = np.array([line[corner : corner + 8] for line in grey[photograph][row : row + 8]]).ravel()
            values = samples[number].double().numpy() * 256
            # Differences to the first pixel lose the mean, which noise on the pixel that was dropped has part of.
            noise = (values - values[0]) - (levels[:-1] - levels[0])
            assert np.abs(noise).max() < 1
            assert noise.std() > 0.1
            # The dropped pixel is minus the sum of the others, so that its noise is known as well.
            dropped = (-values.sum() - values[0]) - (levels[-1] - levels[0])
            assert abs(dropped) < 1 + 1e-4


def test_no_pixel_is_in_two_splits_and_the_noise_is_part_of_the_data(patches: Dataset) -> None:
    assert torch.equal(datasets.load("patches", seed=5).test, patches.test)
    # A patch of 8 columns that starts at column 504 is the last to train; the next split starts at 512, then 520.
    assert [505 - 1 + 8, 512 + 8] == [512, 520]
    assert len(torch.cat([patches.validation, patches.test[:1000], patches.train[:1000]]).unique(dim=0)) == 2840


def test_one_gaussian_has_the_log_likelihood_of_the_literature(patches: Dataset) -> None:
    train, test = patches.train.double(), patches.test.double()
    covariance = torch.cov(train.mT, correction=0)
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (test - train.mean(0)).mT, upper=False)
    log_likelihood = -0.5 * (z.square().sum(0).mean() + 63 * math.log(2 * math.pi) + torch.logdet(covariance))
    assert abs(float(log_likelihood) - 89.98) < 1  # another noise, and 100,000 patches: 89.98 +- 0.91
