"""The sets that need no download: the paper's densities, and the digits and photographs that scikit-learn ships."""

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


class Patches(Declaration):
    """Grey 8 x 8 patches of two photographs by the recipe of BSDS300, as MAF uses it (https://arxiv.org/abs/1705.07057).

    Grey levels are 0.299 R + 0.587 G + 0.114 B, rounded. A patch gets uniform noise on [0, 1), is divided by 256, loses
    its mean, and then its last pixel, which the others determine. The noise belongs to the data: it is drawn once, by a
    fixed seed. Patches are split by place, so that no pixel is in two splits: the left 80 % of the columns train,
    the rest tests, and the eight columns between the two validate.
    """

    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        import torch
        from sklearn.datasets import load_sample_images

        from harness.datasets.preprocessing import Identity

        weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
        photographs = torch.stack([torch.tensor(image) for image in load_sample_images().images])
        grey = (photographs.to(torch.float64) @ weights).round()  # (2, 427, 640)
        noise = torch.Generator().manual_seed(0)
        splits = []
        for columns in (slice(0, 512), slice(512, 520), slice(520, 640)):
            levels = grey[:, :, columns].unfold(1, 8, 1).unfold(2, 8, 1).reshape(-1, 64)
            values = (levels + torch.rand(levels.shape, generator=noise, dtype=torch.float64)) / 256
            splits.append((values - values.mean(1, keepdim=True))[:, :-1].to(torch.float32))
        train, validation, test = splits
        return Dataset(self.name, self.shape, train, validation, test, Identity())


SYNTHETIC = tuple(
    Synthetic(name, shape, (50_000, 10_000, 10_000))
    for name, shape in {"sine": (2,), "swirl": (2,), "checkerboard": (2,), "multimodal10": (10,)}.items()
)
DIGITS = Digits("digits", (1, 8, 8), (1200, 297, 300), levels=17)
PATCHES = Patches("patches", (63,), (424_200, 840, 94_920))
