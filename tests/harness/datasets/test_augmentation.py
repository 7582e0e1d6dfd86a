"""Augmented images are the images, mirrored or not, moved by at most a pixel, each way as often as it should be."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.nn.functional import pad

from harness.datasets.augmentation import augmented


def ways(image: Tensor) -> dict[bytes, tuple[bool, int, int]]:
    """All that may become of an image (C, H, W), cut from the image with its edges repeated."""
    _, height, width = image.shape
    found = {}
    for mirrored in (False, True):
        source = image.flip(-1) if mirrored else image
        padded = pad(source[None].double(), (1, 1, 1, 1), mode="replicate")[0].to(image.dtype)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                cut = padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
                found[cut.contiguous().numpy().tobytes()] = (mirrored, down, right)
    return found


def test_every_way_is_as_frequent_as_the_others() -> None:
    image = torch.randint(0, 256, (3, 5, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    known, draws = ways(image), 9_000
    made = augmented(image.expand(draws, -1, -1, -1), torch.Generator().manual_seed(1))
    assert (made.shape, made.dtype) == ((draws, 3, 5, 4), torch.uint8)
    counts = Counter(known[one.contiguous().numpy().tobytes()] for one in made)
    assert len(known) == len(counts) == 18
    # Each way is binomial: 500 with a standard deviation of 22.
    assert all(abs(count - draws / 18) < 5 * 22 for count in counts.values())


def test_images_of_a_batch_are_changed_one_by_one_and_by_the_seed() -> None:
    images = torch.arange(2 * 4 * 4, dtype=torch.float64).reshape(2, 1, 4, 4).repeat(50, 1, 1, 1)
    once, again, other = (augmented(images, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    for before, after in zip(images, once, strict=True):
        assert after.contiguous().numpy().tobytes() in ways(before)
