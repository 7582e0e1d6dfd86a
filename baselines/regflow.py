"""RegFlow (Rehman et al. 2025, https://arxiv.org/abs/2506.01158), written from the paper, in one stage.

An invertible network g is trained by least squares, |g(z) - x|^2, on pairs of noise z and the data x that the solution
of a flow-matched velocity makes of it. No determinant is needed in training. The density is exact, by the change of
variables of g, and comes out in one pass.

The paper trains the velocity first and keeps a set of pairs. Here both are trained in every step, so that an
iteration's time is all of the training's: the flow-matching loss of the batch moves the velocity, and as many pairs are
made from fresh noise by four steps of the Dormand-Prince method for g to fit. The inverse is fitted too,
|g^-1(x) - z|^2. g is zuko's spline coupling: L pairs of couplings that transform one half of the components each, 8
bins on [-5, 5], networks of 2 x 256 units. It stands behind a fixed whitening of the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from baselines._straight_paths import pairs, path_loss, whitening
from baselines._velocity_network import network
from harness.methods import Method, Model, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["METHODS"]

_DRAWS, _STEPS = 4, 4


class RegressionModel(Model):
    """A spline coupling behind a fixed whitening, and the velocity network that makes its pairs.

    Args:
        problem: The problem to build for.
    """

    def __init__(self, problem: Problem) -> None:
        import torch
        import zuko

        size = problem.dimension
        if size < 2:
            raise ValueError("a coupling needs samples of at least two components, not D = 1; choose another method")
        self.shape = problem.shape
        self.layers = network(size, min(512, max(64, 8 * size)))
        with torch.device("cpu"):  # the masks are worked out from numbers
            flow = zuko.flows.NSF(
                size, transforms=2 * problem.layers, passes=2, hidden_features=(256, 256), activation=torch.nn.SiLU
            )
        self.flow: Any = flow.transform
        self.module = torch.nn.ModuleDict({"velocity": self.layers, "flow": self.flow})
        self.module.register_buffer("mean", torch.zeros(size))
        self.module.register_buffer("matrix", torch.eye(size))

    def init_batch(self, x: Tensor) -> None:
        mean, matrix = whitening(x)
        self.module.get_buffer("mean").copy_(mean)
        self.module.get_buffer("matrix").copy_(matrix)

    def _whitened(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - self.module.get_buffer("mean")) @ self.module.get_buffer("matrix").mT

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        from ebflow.noise import normal

        u = self._whitened(x)
        z = normal(u.shape, generator, u)
        target = pairs(self.layers, z, _STEPS)
        transform = self.flow()
        error = (transform.inv(z) - target).square().mean() + (transform(target) - z).square().mean()
        return path_loss(self.layers, u, generator, _DRAWS) + error

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        if not len(x):  # zuko sums over a reshape whose size an empty batch leaves open
            return x.flatten(1), x.new_zeros(0)
        z, log_det = self.flow().call_and_ladj(self._whitened(x))
        return z, log_det + torch.linalg.slogdet(self.module.get_buffer("matrix")).logabsdet

    def to_data(self, z: Tensor) -> Tensor:
        import torch

        u = self.flow().inv(z) if len(z) else z
        x = torch.linalg.solve(self.module.get_buffer("matrix"), u.mT).mT + self.module.get_buffer("mean")
        return x.view(-1, *self.shape)


METHODS = [
    Method(
        name="zuko-nsf-reg",
        objective="regression",
        linear="none",
        build=RegressionModel,
        requires=("zuko.utils",),
        architectures=("fc", "toy"),
        own_start="starts as its library does behind a fixed whitening, since it is no network of linear layers",
        own_gradient="the pairs count as constants while the velocity that made them is trained in the same step",
        summary="spline couplings fitted by least squares to a velocity's pairs, which is trained in the same steps",
        paper="https://arxiv.org/abs/2506.01158",
        meta_device=False,  # splines look up bins, and pairs are made in steps
    )
]
