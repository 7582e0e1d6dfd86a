"""The sets that need no download: the paper's synthetic densities, and the 8 x 8 digits of scikit-learn."""

from __future__ import annotations

from pathlib import Path

from harness.datasets.dataset import Dataset, Declaration
from harness.methods.seeds import generator


class Synthetic(Declaration):
    """Points of one of `harness.datasets.densities.DENSITIES`, in float64, drawn from the seed without noise.

    The preprocessing adds the noise that the density accounts for, if any.
    """

    drawn = True

    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        from harness.datasets.densities import DENSITIES, NOISE_STD, SmoothedDensity
        from harness.datasets.preprocessing import GaussianNoise, Identity

        density = DENSITIES[self.name]
        points = density.sample_clean(sum(self.splits), generator(seed, "data"))
        preprocessing = GaussianNoise(NOISE_STD) if isinstance(density, SmoothedDensity) else Identity()
        train, validation, test = points.split(self.splits)
        return Dataset(self.name, self.shape, train, validation, test, preprocessing, density)


class Digits(Declaration):
    """The digits, in `uint8`. The order of the file follows the writers, so they are shuffled, always the same way."""

    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        import torch
        from sklearn.datasets import load_digits

        from harness.datasets.preprocessing import LogitPreprocessing

        images = torch.from_numpy(load_digits().images).to(torch.uint8).unsqueeze(1)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))  # since the first version
        train, validation, test = images[order].split(self.splits)
        return Dataset(self.name, self.shape, train, validation, test, LogitPreprocessing(self.levels))


SYNTHETIC = tuple(
    Synthetic(name, shape, (50_000, 10_000, 10_000))
    for name, shape in {"sine": (2,), "swirl": (2,), "checkerboard": (2,), "multimodal10": (10,)}.items()
)
DIGITS = Digits("digits", (1, 8, 8), (1200, 297, 300), levels=17)
