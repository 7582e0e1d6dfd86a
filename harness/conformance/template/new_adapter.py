"""One scale and one shift a component, trained by maximum likelihood: change it, piece by piece, into your flow.

Import torch and your library inside functions, not here: `harness list` stays quick, and a library that is missing
disables its own methods alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.methods import Method, Model, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class NewAdapter(Model):
    """z = (x - shift) exp(-log_scale). Here x has shape (B, *problem.shape), and B may be 1 or 0."""

    module: Any  # a torch.nn.Module; to a type checker its members could be anything

    def __init__(self, problem: Problem) -> None:
        """Build for problem.shape and problem.layers; raise ValueError, in one line, where these do not fit your flow.

        The harness has seeded torch, and moves `module` to the problem's device and dtype afterwards.
        """
        import torch

        # Every trained number is a parameter of `module`; anything else that must follow .to(...) is a buffer of it.
        self.module = torch.nn.Module()
        self.module.shift = torch.nn.Parameter(torch.zeros(problem.shape))
        self.module.log_scale = torch.nn.Parameter(torch.zeros(problem.shape))

    def init_batch(self, x: Tensor) -> None:
        """Start from data, if your flow does so, like ActNorm; called once before training. May be left out."""
        import torch

        with torch.no_grad():
            self.module.shift.copy_(x.mean(0))
            # A component that is constant in this batch has no scale to start from.
            self.module.log_scale.copy_(x.std(0, correction=0).clamp_min(1e-3).log())

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the scalar to minimise. Draw all noise from the generator, and none from torch's global state.

        It is the objective alone: no NLL that the harness reports goes through here.
        """
        z, log_det = self.to_latent(x)
        return (0.5 * z.flatten(1).square().sum(1) - log_det).mean()

    def after_step(self) -> None:
        """Do what your flow needs after every optimiser step, like a bound on a norm; it is timed. May be left out."""

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, as many numbers as x, and log|det dz/dx| in nats, exactly shape (B,): the harness adds N(0, I).

        Compute it from the parameters as they are now: they change between two calls. Leave x as it is.
        """
        z = (x - self.module.shift) * (-self.module.log_scale).exp()
        return z, -self.module.log_scale.sum().expand(len(x))

    def to_data(self, z: Tensor) -> Tensor:
        """Return the x that `to_latent` maps to z. Without an inverse, declare samples=False below, and raise here."""
        return z * self.module.log_scale.exp() + self.module.shift


METHODS = [
    Method(
        name="new-adapter-ml",  # in every table; library-layer-objective by custom
        objective="ml",
        linear="diagonal",  # dense, if its linear layers can become any matrix
        build=NewAdapter,  # any function of a Problem that returns a model
        requires=(),  # import names of your libraries, torch aside: ("my_library.flows",)
        architectures=("fc", "cnn", "toy"),  # those whose shapes it takes
        summary="one scale and one shift a component",
        paper="",  # a link, where there is one
        # harness.methods.Method says what else can be declared.
    )
]
