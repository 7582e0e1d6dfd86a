"""The base classes of the models of nflows: no competitors themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.methods import Model, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Blocks", "LinearStack", "NflowsModel"]


class NflowsModel(Model):
    """An nflows `Flow` on flattened samples, trained by maximum likelihood.

    Args:
        problem: The problem to build for.
        transforms: The transforms, data to latent. Those with a cache must leave it off: it goes stale without a word.
    """

    module: Any  # nflows comes without types

    def __init__(self, problem: Problem, transforms: Sequence[nn.Module]) -> None:
        from nflows.distributions.normal import StandardNormal
        from nflows.flows import Flow
        from nflows.transforms import CompositeTransform

        self.shape = problem.shape
        self.module = Flow(CompositeTransform(transforms), StandardNormal([problem.dimension]))

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return -self.module.log_prob(x.flatten(1)).mean()

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not len(x):  # nflows' couplings reshape by a size that an empty batch leaves open
            return x.flatten(1), x.new_zeros(0)
        return self.module._transform(x.flatten(1))

    def to_data(self, z: Tensor) -> Tensor:
        if not len(z):
            return z.view(0, *self.shape)
        # Not Flow.sample, which draws float32 noise from the global generator whatever the model is.
        return self.module._transform.inverse(z)[0].view(-1, *self.shape)


class LinearStack(NflowsModel):
    """The paper's fc: linear layers with a smooth leaky ReLU between them.

    Args:
        problem: The problem to build for.
        linear_layers: The L linear layers.
    """

    def __init__(self, problem: Problem, linear_layers: Sequence[Any]) -> None:
        from ebflow.interop.nflows import LayerTransform
        from ebflow.layers import SmoothLeakyReLU

        self.linear_maps = linear_layers
        chain: list[nn.Module] = [linear_layers[0]]
        for layer in linear_layers[1:]:
            chain += [LayerTransform(SmoothLeakyReLU(residual=problem.residual)), layer]
        super().__init__(problem, chain)


class Blocks(NflowsModel):
    """Transforms of vectors behind an ActNorm."""

    def __init__(self, problem: Problem, transforms: Sequence[nn.Module]) -> None:
        from nflows.transforms.normalization import ActNorm

        self.front = ActNorm(problem.dimension)
        # It would start from whatever it sees first in training mode, and look at a buffer at every step to know.
        del self.front.initialized
        self.front.initialized = True
        self.front.requires_grad_(not problem.frozen_actnorm)
        super().__init__(problem, [self.front, *transforms])

    def init_batch(self, x: Tensor) -> None:
        import torch

        if len(x) == 1:
            return  # one sample has no scale
        std, mean = torch.std_mean(x.flatten(1), 0)
        with torch.no_grad():
            self.front.log_scale.copy_(-(std + 1e-6).log())
            self.front.shift.copy_(-mean / (std + 1e-6))
