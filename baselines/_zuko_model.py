"""The base class of the models of zuko: no competitor itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.methods import Model, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["ZukoModel"]


class ZukoModel(Model):
    """A composed lazy transform of zuko's on flattened samples, trained by maximum likelihood.

    A transform is built from the weights at every call and never kept: it would not see that they change.

    Args:
        problem: The problem to build for.
        transforms: Lazy transforms, data to latent.
    """

    module: Any  # zuko comes without types

    def __init__(self, problem: Problem, transforms: Sequence[nn.Module]) -> None:
        from zuko.lazy import LazyComposedTransform

        self.shape = problem.shape
        self.module = LazyComposedTransform(*transforms)

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        z, log_det = self.to_latent(x)
        return (0.5 * z.square().sum(1) - log_det).mean()

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not len(x):  # zuko sums over a reshape whose size an empty batch leaves open
            return x.flatten(1), x.new_zeros(0)
        return self.module().call_and_ladj(x.flatten(1))

    def to_data(self, z: Tensor) -> Tensor:
        return self.module().inv(z).view(-1, *self.shape)
