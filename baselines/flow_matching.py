"""Flow matching (Lipman et al. 2022, https://arxiv.org/abs/2210.02747), written from the paper.

A velocity v(x, t) is regressed on x1 - x0 at the points (1 - t) x0 + t x1 of straight paths from noise x0 to data x1
(the paper's optimal-transport paths with sigma_min = 0). A sample of a batch ends four paths, each with noise and a
time of its own, which is worth seven nats on digits (docs/newer-methods.md). The whole happens behind a fixed
whitening of the data, and the network of `baselines._velocity_network` starts as a Gaussian there.

The density is exact up to the solver's tolerance: `to_latent` solves dx/dt = v from t = 1 to t = 0 together with the
integral of the exact divergence. Solutions are always computed in float64: in float32 rounding would set a floor to the
tolerance. Steps are chosen for a whole batch, so that a sample's log-density depends on its batch by about the
tolerance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines._straight_paths import path_loss, solve, whitening
from baselines._velocity_network import network
from harness.methods import Method, Model, Problem, Rate

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["METHODS", "TOLERANCES"]

TOLERANCES = {"float32": 1e-5, "float64": 2e-9}
"""The solver's absolute and relative tolerance by the type of the data; a change holds from the next call on."""

_DRAWS = 4


class FlowMatchingModel(Model):
    """A continuous flow behind a fixed whitening; its network has 8 D units a hidden layer, 64 at least, 512 at most.

    Args:
        problem: The problem to build for. Architecture and number of layers do not matter.
    """

    def __init__(self, problem: Problem) -> None:
        import torch

        size = problem.dimension
        self.shape = problem.shape
        self.layers = network(size, min(512, max(64, 8 * size)))
        self.module = torch.nn.Module()
        self.module.add_module("velocity", self.layers)
        self.module.register_buffer("mean", torch.zeros(size))
        self.module.register_buffer("matrix", torch.eye(size))

    def init_batch(self, x: Tensor) -> None:
        mean, matrix = whitening(x)
        self.module.get_buffer("mean").copy_(mean)
        self.module.get_buffer("matrix").copy_(matrix)

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, matrix = self.module.get_buffer("mean"), self.module.get_buffer("matrix")
        return path_loss(self.layers, (x.flatten(1) - mean) @ matrix.mT, generator, _DRAWS)

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        mean, matrix = self._whitening()
        z, log_det = solve(self.layers, (x.flatten(1).double() - mean) @ matrix.mT, 1.0, 0.0, _tolerance(x))
        return z.to(x.dtype), (log_det + torch.linalg.slogdet(matrix).logabsdet).to(x.dtype)

    def to_data(self, z: Tensor) -> Tensor:
        import torch

        mean, matrix = self._whitening()
        u, _ = solve(self.layers, z.double(), 0.0, 1.0, _tolerance(z))
        return (torch.linalg.solve(matrix, u.mT).mT + mean).to(z.dtype).view(-1, *self.shape)

    def _whitening(self) -> tuple[Tensor, Tensor]:
        return self.module.get_buffer("mean").double(), self.module.get_buffer("matrix").double()


def _tolerance(x: Tensor) -> float:
    return TOLERANCES[str(x.dtype).removeprefix("torch.")]


METHODS = [
    Method(
        name="zuko-cnf-fm",
        objective="fm",
        linear="none",
        build=FlowMatchingModel,
        requires=("zuko.utils",),
        architectures=("fc", "toy"),
        rate=Rate(3.0, "with one path a sample the validation NLL of digits is 2 nats below that of the recipe's rate"),
        own_start="starts as the Gaussian of the data's mean and covariance, since it is no network of linear layers",
        summary="a velocity regressed along straight paths; exact density by an ODE solver, some 100 passes a score",
        paper="https://arxiv.org/abs/2210.02747",
        meta_device=False,  # the solver looks at its error to choose a step
    )
]
