"""The method under test, its small problems, and models of it away from every special start."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.methods import ClosedForm, Method, Model, Problem, Stateful
from harness.methods.density import build, log_prob, refusal
from harness.methods.precision import stored
from harness.training.configuration import TrainingConfig
from harness.training.step import Trainer

_SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "fc": ((2,), (3,), (5,)),
    "toy": ((2,),),
    "multimodal": ((4,),),
    "cnn": ((1, 4, 4),),
    "glow": ((1, 4, 4),),
}

_PERIOD = 3  # steps


class Broken(AssertionError):
    """The error of a promise that is broken; the message says by how much."""


class Inapplicable(Exception):
    """The error of a check that says nothing about this method; the message says why."""


@dataclass(frozen=True)
class Subject:
    """A method under test, and the problems, models and data that the checks make for it."""

    method: Method

    def problems(self) -> list[Problem]:
        """Return the small problems that the method takes, of every architecture.

        Raises:
            Broken: if the method takes no problem of an architecture that it declares.
        """
        return [p for architecture in self.method.architectures for p in self.of_architecture(architecture)]

    def one_of_each(self, **changes: object) -> list[Problem]:
        """Return the largest problem of every architecture."""
        return [self.of_architecture(architecture, **changes)[-1] for architecture in self.method.architectures]

    def of_architecture(self, architecture: str, **changes: object) -> list[Problem]:
        """Return the small problems of one architecture that the method takes, in float64 if not told otherwise.

        Raises:
            Broken: if the method takes none of them.
        """
        layers = 2 if architecture == "glow" else 3
        plain = Problem(architecture, layers=layers, dtype="float64", noise=0.5, batch=7)
        problems = [plain.replace(shape=shape, **changes) for shape in _SHAPES[architecture]]
        taken = [problem for problem in problems if refusal(self.method, problem) is None]
        if not taken:
            reason = refusal(self.method, problems[0])
            raise Broken(f"{architecture} is declared and takes none of the shapes {_SHAPES[architecture]}: {reason}")
        return taken

    def smallest(self, **changes: object) -> Problem:
        """Return the first problem that the method takes."""
        return self.of_architecture(self.method.architectures[0], **changes)[0]

    def largest(self) -> Problem:
        """Return the last problem of the first architecture: in 2-D, estimates of the log-determinant are exact."""
        return self.of_architecture(self.method.architectures[0])[-1]

    def periodic(self, problem: Problem) -> Problem:
        """Return the problem with a short period for a method whose steps are not alike, and as it is for others."""
        return problem.replace(refresh=_PERIOD) if self.method.periods else problem

    def started(self, problem: Problem) -> Model:
        """Build a model, and start it from data or fit it in closed form, as a training does."""
        model = build(self.method, problem)
        data = draw(problem, max(50, 2 * problem.dimension), seed=2)
        if self.method.iterative:
            model.init_batch(data)
        else:
            closed_form(model).fit([data])
        return model

    def model(self, problem: Problem, seed: int = 0, largest_scale: float = 0.3) -> Model:
        """Return a model in evaluation mode whose every trained number was moved at random.

        The numbers move as far as the model stays moderate: what an exponential makes of a large move is no test.

        Raises:
            Broken: if not even a small move keeps the log-density finite.
        """
        x = draw(problem)
        for scale in (largest_scale, *(s for s in (0.1, 0.03, 0.01) if s < largest_scale)):
            model = self.moved(problem, scale, seed)
            if self._moderate(model, x):
                return model
        raise Broken("log_prob is not finite near the start; the parameters were moved by 0.01 at random")

    def afresh(self, problem: Problem, model: Model) -> Model:
        """Build a model of the same problem anew, and give it all that another remembers; it is in training mode."""
        fresh = build(self.method, problem)
        fresh.module.load_state_dict(model.module.state_dict())
        if isinstance(model, Stateful) and isinstance(fresh, Stateful):
            fresh.set_extra_state({name: value.clone() for name, value in model.get_extra_state().items()})
        return fresh

    def moved(self, problem: Problem, scale: float, seed: int = 0) -> Model:
        """Return a model in evaluation mode whose every trained number was moved by so much times N(0, 1)."""
        model = self.started(problem)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, parameter in parameters(model):
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                # A row of a matrix or a kernel moves as far as one number: wide layers are not torn to pieces.
                width = math.prod(parameter.shape[1:]) if parameter.dim() in (2, 4) else 1
                parameter.add_(scale / math.sqrt(max(1, width)) * noise.to(parameter))
        model.after_step()  # may restore a constraint that every optimiser step breaks
        model.module.eval()
        return model

    @torch.no_grad()
    def _moderate(self, model: Model, x: Tensor) -> bool:
        """Say whether log-densities are finite and no rounding drowns them, at the data and at samples."""
        points = [x]
        if self.method.samples:
            points.append(model.to_data(self.noise(model.to_latent(x)[0])))
        size = torch.cat([log_prob(model, point).abs() for point in points]) / x[0].numel()
        return bool((size < 100).all())  # false for NaN

    def noise(self, like: Tensor) -> Tensor:
        """Return N(0, I) in the shape, dtype and device of a latent."""
        generator = torch.Generator().manual_seed(3)
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    def needs_exact_log_prob(self) -> None:
        """Raise Inapplicable if the method declares that it has no exact log-density."""
        if not self.method.exact_log_prob:
            raise Inapplicable("the method declares that log_prob is an estimate")

    def needs_samples(self) -> None:
        """Raise Inapplicable if the method declares that it cannot draw samples."""
        if not self.method.samples:
            raise Inapplicable("the method declares that it cannot draw samples")

    def needs_training(self) -> None:
        """Raise Inapplicable if the method declares that it has no training steps."""
        if not self.method.iterative:
            raise Inapplicable("the method is fitted in closed form")


def draw(problem: Problem, n: int = 7, seed: int = 1) -> Tensor:
    """Return data, shape (n, *event), neither centred nor of unit scale."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, *problem.shape, generator=generator, dtype=torch.float64)
    return (1.5 * noise + 0.5).to(stored(problem.dtype))


def train(model: Model, x: Tensor, steps: int) -> None:
    """Take real training steps, all on one batch; the model stays in training mode if there are any."""
    trainer = Trainer(model, TrainingConfig(optimizer="adam", learning_rate=0.01), torch.Generator().manual_seed(1))
    for _ in range(steps):
        model.module.train()
        trainer.step(x)


def closed_form(model: Model) -> ClosedForm:
    """Return the model of a method that declares that it has a direct solution.

    Raises:
        Broken: if the model has no direct solution.
    """
    if not isinstance(model, ClosedForm):
        raise Broken("iterative=False is declared, and the model has no fit(batches)")
    return model


def closely(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Compare two tensors, relative to 1 + |expected|.

    Raises:
        Broken: if the tensors differ in shape or by more than the tolerance, or one is not finite.
    """
    if actual.shape != expected.shape:
        raise Broken(f"{what}: shape {tuple(actual.shape)} instead of {tuple(expected.shape)}")
    actual, expected = actual.detach().double(), expected.detach().double()
    gap = float(((actual - expected).abs() / (1 + expected.abs())).max()) if actual.numel() else 0.0
    if math.isnan(gap):
        raise Broken(f"{what}: NaN")
    if gap > tolerance:
        raise Broken(f"{what}: off by {gap:.2g}, allowed {tolerance:.0e} (relative to 1 + the size)")


def jacobians(model: Model, x: Tensor) -> Tensor:
    """Return the Jacobian dz/dx at every sample by autograd, (B, D, D), as if no sample depended on another."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        z = model.to_latent(x)[0].flatten(1)
        rows = [torch.autograd.grad(component.sum(), x, retain_graph=True)[0] for component in z.unbind(1)]
    return torch.stack([row.flatten(1) for row in rows], 1)


def parameters(model: Model) -> Iterator[tuple[str, Tensor]]:
    """Return the trained parameters with their names."""
    return ((name, p) for name, p in model.module.named_parameters() if p.requires_grad)
