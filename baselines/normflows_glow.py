"""normflows (https://github.com/VincentStimper/normalizing-flows), Glow blocks on images, by maximum likelihood.

The arrangement of `ebflow.architectures.glow`: L blocks of ActNorm, 1 x 1 convolution and channel coupling, half of
them at each of two resolutions, with a split between them. Half of the channels leave as they are, where ebflow couples
them once more. The convolutions are P L U with a fixed P.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from baselines._normflows_model import NormflowsModel
from harness.methods import Method, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["METHODS"]


class GlowModel(NormflowsModel):
    """A `MultiscaleFlow`; its two latents are one vector outside, the deeper one first."""

    def __init__(self, problem: Problem, module: nn.Module) -> None:
        super().__init__(problem, module)
        channels, height, width = problem.shape
        self.latent_shapes = [(8 * channels, height // 4, width // 4), (2 * channels, height // 2, width // 2)]

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        z, log_det = self.to_latent(x)
        return (0.5 * z.square().sum(1) - log_det).mean()

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        parts, log_det = self.module.inverse_and_log_det(x)
        return torch.cat([part.flatten(1) for part in parts], 1), log_det

    def to_data(self, z: Tensor) -> Tensor:
        parts = [part.view(-1, *shape) for part, shape in zip(z.chunk(2, 1), self.latent_shapes, strict=True)]
        return self.module.forward_and_log_det(parts)[0]


def _build(problem: Problem) -> GlowModel:
    import normflows
    import torch
    from normflows.distributions import DiagGaussian
    from normflows.flows import GlowBlock, Merge, Squeeze

    if len(problem.shape) != 3 or problem.shape[1] % 4 or problem.shape[2] % 4:
        raise ValueError(f"glow takes images whose sides are multiples of 4, not samples of shape {problem.shape}")
    if problem.layers % 2:
        raise ValueError(f"glow has half of its layers at each resolution: L must be even, not {problem.layers}")

    def level(channels: int) -> list[nn.Module]:
        return [*(GlowBlock(channels, hidden_channels=512) for _ in range(problem.layers // 2)), Squeeze()]

    channels = problem.shape[0]
    with warnings.catch_warnings(), torch.device("cpu"):  # ActNorm looks at numbers as it is built
        # Building the convolutions factors a matrix with Tensor.lu.
        warnings.filterwarnings("ignore", "torch.lu is deprecated")
        bases = [DiagGaussian(problem.dimension // 2, trainable=False) for _ in range(2)]
        levels = [level(8 * channels), level(4 * channels)]
        return GlowModel(problem, normflows.MultiscaleFlow(bases, levels, [Merge()], class_cond=False))


METHODS = [
    Method(
        name="normflows-glow-ml",
        objective="ml",
        linear="lu",
        build=_build,
        requires=("normflows",),
        architectures=("glow",),
        summary="GlowBlock: ActNorm, P L U 1 x 1 convolution and coupling by convolutions of 512 channels",
        paper="https://arxiv.org/abs/1807.03039",
    )
]
