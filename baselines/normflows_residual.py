"""normflows (https://github.com/VincentStimper/normalizing-flows), residual flows, by maximum likelihood.

L times an ActNorm that starts from data and a block z = x + g(x), g a network of two hidden layers of 256 units whose
matrices have spectral norms of at most 0.9. The log-determinant is a power series of the Jacobian of g, cut at random
and with one random probe for its traces: it has no bias, and it is another at every call.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from baselines._global_noise import global_noise
from baselines._normflows_model import NormflowsModel, chain
from harness.methods import Method, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["METHODS"]

_HIDDEN = 256
_LAYERS = 3
_NORM = 0.9
_TERMS_IN_TRAINING, _TERMS = 2, 20  # before the cut; normflows' own choice in training and in eval mode


class ResidualModel(NormflowsModel):
    """A residual flow whose estimates have derivatives wherever they are asked for, in training and in eval mode.

    Args:
        problem: The problem to build for.
        module: The flow to train.
        generator: Source of the probes and cuts of `to_latent`, and of losses that are given no generator.
    """

    def __init__(self, problem: Problem, module: Any, generator: torch.Generator) -> None:
        super().__init__(problem, module)
        self.generator = generator
        self.blocks = [layer.iresblock for layer in module.flows if hasattr(layer, "iresblock")]
        for block in self.blocks:
            # Parameters that never get a gradient, and are read as numbers at every call.
            probability, rate = block.geom_p.detach(), block.lamb.detach()
            del block.geom_p, block.lamb
            block.geom_p, block.lamb = probability, rate

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        z, log_det = self._to_latent(x, _TERMS_IN_TRAINING, generator or self.generator)
        return (0.5 * z.square().sum(1) - log_det).mean()

    def after_step(self) -> None:
        from normflows.utils import update_lipschitz

        update_lipschitz(self.module, n_iterations=5)

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._to_latent(x, _TERMS, self.generator)

    def to_data(self, z: Tensor) -> Tensor:
        """Invert by fixed-point iterations to rounding; normflows stops at steps of 0.003."""
        import torch

        count = math.ceil(math.log(torch.finfo(z.dtype).eps) / (_LAYERS * math.log(_NORM)))
        for layer in self.module.flows:
            if hasattr(layer, "iresblock"):
                y = z
                for _ in range(count):
                    z = y - layer.iresblock.nnet(z)
            else:
                z, _ = layer(z)
        return z.view(-1, *self.shape)

    def get_extra_state(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])

    def _to_latent(self, x: Tensor, terms: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        import torch

        for block in self.blocks:
            # In eval mode the estimate has no derivatives.
            block.training, block.n_exact_terms = torch.is_grad_enabled(), terms
        with global_noise(generator):
            # normflows sets requires_grad on what it is given: a view of the caller's samples, not themselves.
            return super().to_latent(x.flatten(1)[:])


def _build(problem: Problem) -> ResidualModel:
    import torch
    from normflows.flows import ActNorm, Residual
    from normflows.nets import LipschitzMLP

    dimension = problem.dimension
    layers: list[nn.Module] = []
    with torch.device("cpu"):  # both look at numbers as they are built
        for _ in range(problem.layers):
            network = LipschitzMLP([dimension, _HIDDEN, _HIDDEN, dimension], lipschitz_const=_NORM)
            # With reduce_memory, a sample's gradient would be weighted as the first sample's is.
            layers += [ActNorm((dimension,)), Residual(network, reduce_memory=False)]
        flow = chain(problem, layers)
    return ResidualModel(problem, flow, torch.Generator().manual_seed(problem.seed))


METHODS = [
    Method(
        name="normflows-residual-ml",
        objective="ml",
        linear="none",
        build=_build,
        requires=("normflows",),
        summary="residual blocks with 2 x 256 hidden units; log-determinants are estimates, samples fixed points",
        paper="https://arxiv.org/abs/1906.02735",
        exact_log_prob=False,
    )
]
