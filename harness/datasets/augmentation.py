"""Random changes of training images that leave them as likely as they were."""

from __future__ import annotations

import torch
from torch import Tensor


def augmented(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mirror half of the images left to right, and move each by -1, 0 or 1 pixels along either axis.

    It is what the authors' code does with CIFAR-10. Where an image moves away from an edge, the pixels there are
    repeated.

    Args:
        images: Raw images, shape (N, C, H, W), of any dtype.
        generator: Source of all draws, on the device of the images.
    """
    count, _, height, width = images.shape
    device = images.device
    mirrored = torch.rand(count, 1, 1, 1, generator=generator, device=device) < 0.5
    images = torch.where(mirrored, images.flip(-1), images)
    moves = torch.randint(-1, 2, (2, count, 1), generator=generator, device=device)
    rows = (torch.arange(height, device=device) + moves[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=device) + moves[1]).clamp(0, width - 1)
    samples = torch.arange(count, device=device)[:, None, None]
    return images[samples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
