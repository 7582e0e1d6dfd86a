"""The base classes of the models of normflows: no competitors themselves.

normflows maps latent to data in `forward`, so a layer's data-to-latent map is its `inverse`, and lists run from latent
to data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.methods import Model, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["LinearStack", "NormflowsModel", "chain"]


class NormflowsModel(Model):
    """A `NormalizingFlow` on flattened samples, trained by maximum likelihood.

    Args:
        problem: The problem to build for.
        module: The flow to train.
    """

    module: Any  # normflows comes without types

    def __init__(self, problem: Problem, module: nn.Module) -> None:
        from normflows.flows import ActNorm

        self.shape = problem.shape
        self.module = module
        self.actnorms = [layer for layer in module.modules() if isinstance(layer, ActNorm)]
        for layer in self.actnorms:
            layer.requires_grad_(not problem.frozen_actnorm)
            # It would start from whatever it sees first, samples and single points too, and look at a buffer to know.
            del layer.data_dep_init_done
            layer.data_dep_init_done = True

    def init_batch(self, x: Tensor) -> None:
        import torch

        if not self.actnorms or len(x) == 1:
            return  # one sample has no scale
        for layer in self.actnorms:
            layer.data_dep_init_done = False
        with torch.no_grad():
            self.to_latent(x)

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        # Not forward_kld: it adds the log-determinants in float32 whatever the model's dtype is.
        return -self.module.log_prob(x.flatten(1)).mean()

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = x.flatten(1), x.new_zeros(len(x))
        # Normflows' spline couplings reshape by a size that an empty batch leaves open.
        for layer in reversed(self.module.flows) if len(x) else ():
            z, term = layer.inverse(z)
            log_det = log_det + term
        return z, log_det

    def to_data(self, z: Tensor) -> Tensor:
        return self.module.forward(z).view(-1, *self.shape) if len(z) else z.view(0, *self.shape)


class LinearStack(NormflowsModel):
    """The paper's fc: linear layers with a smooth leaky ReLU between them.

    Args:
        problem: The problem to build for.
        linear: A function that makes the layers of one linear map, data to latent.
        load: A function that sets these layers to z = W x + b.
        read: A function that returns W and b of these layers.
    """

    def __init__(
        self,
        problem: Problem,
        linear: Callable[[], list[Any]],
        load: Callable[[list[Any], Tensor, Tensor], None],
        read: Callable[[list[Any]], tuple[Tensor, Tensor]],
    ) -> None:
        from ebflow.interop.normflows import LayerFlow
        from ebflow.layers import SmoothLeakyReLU

        self.load, self.read = load, read
        self.linear_maps = [linear() for _ in range(problem.layers)]
        layers: list[nn.Module] = [*self.linear_maps[0]]
        for parts in self.linear_maps[1:]:
            layers += [LayerFlow(SmoothLeakyReLU(residual=problem.residual)), *parts]
        super().__init__(problem, chain(problem, layers))

    def linear_layers(self) -> list[tuple[Tensor, Tensor]]:
        import torch

        with torch.no_grad():
            return [self.read(parts) for parts in self.linear_maps]

    def load_linear_layers(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        import torch

        with torch.no_grad():
            for parts, (weight, bias) in zip(self.linear_maps, layers, strict=True):
                self.load(parts, weight, bias)


def chain(problem: Problem, layers: Sequence[nn.Module]) -> Any:
    """Make a flow on vectors of its layers, data to latent."""
    import normflows

    # The base is trained by default.
    base = normflows.distributions.DiagGaussian(problem.dimension, trainable=False)
    return normflows.NormalizingFlow(base, layers[::-1])
