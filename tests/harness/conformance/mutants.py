"""Competitors with one realistic fault each, made from one that has none: what the kit must notice.

``RIGHT`` are two without a fault: the paper's fc with dense layers by maximum likelihood, and the same behind a fixed
rotation. `MUTANTS` maps what is wrong to a method and the check that has to name it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from harness.methods import Method, Model, Problem


class Right(Model):
    """z = W x + b, smooth leaky ReLU, and so on, L times, the last one linear."""

    def __init__(self, problem: Problem) -> None:
        self.shape, self.dimension = problem.shape, problem.dimension
        self.slope = 0.3 + problem.residual
        self.module = nn.ModuleList(nn.Linear(self.dimension, self.dimension) for _ in range(problem.layers))
        with torch.no_grad():
            for layer in self.module:
                layer.weight.copy_(-torch.eye(self.dimension))
                layer.bias.fill_(1)

    def training_loss(self, x, generator=None):
        z, log_det = self.to_latent(x)
        return (0.5 * z.square().sum(1) - log_det).mean()

    def to_latent(self, x):
        x = x.flatten(1)
        log_det = x.new_zeros(len(x))
        for index, layer in enumerate(self.module):
            if index:
                log_det = log_det + self.log_slope(x)
                x = self.activate(x)
            log_det = log_det + self.log_det(layer)
            x = layer(x)
        return x, log_det

    def log_det(self, layer):
        return torch.linalg.slogdet(layer.weight).logabsdet

    def activate(self, x):
        return self.slope * x + 0.7 * nn.functional.softplus(x, threshold=40)

    def log_slope(self, x):
        return (self.slope + 0.7 * torch.sigmoid(x)).log().sum(1)

    def to_data(self, z):
        for index, layer in reversed(list(enumerate(self.module))):
            z = torch.linalg.solve(layer.weight, (z - layer.bias).mT).mT
            if index:
                z = self.deactivate(z)
        return z.reshape(-1, *self.shape)

    def deactivate(self, y):
        x = torch.minimum(y / self.slope, y / (self.slope + 0.7))
        for _ in range(40):
            x = x - (self.activate(x) - y) / (self.slope + 0.7 * torch.sigmoid(x))
        return x

    def linear_layers(self):
        return [(layer.weight.detach(), layer.bias.detach()) for layer in self.module]

    def load_linear_layers(self, layers):
        with torch.no_grad():
            for layer, (weight, bias) in zip(self.module, layers, strict=True):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)


def method(build: type, **changes: object) -> Method:
    declared = {"objective": "ml", "linear": "dense", "summary": "a competitor of the tests", **changes}
    return Method(name=f"{build.__name__.lower()}-ml", build=build, **declared)


class Rotated(Right):
    """Nothing wrong: behind a fixed rotation, held as a parameter that is not trained."""

    def __init__(self, problem):
        super().__init__(problem)
        half = math.sqrt(0.5)
        rotation = torch.eye(self.dimension)
        if self.dimension > 1:
            rotation[:2, :2] = torch.tensor([[half, -half], [half, half]])
        self.module.register_parameter("rotation", nn.Parameter(rotation, requires_grad=False))

    def to_latent(self, x):
        return super().to_latent(x.flatten(1) @ self.module.rotation)

    def to_data(self, z):
        return (super().to_data(z).flatten(1) @ self.module.rotation.mT).reshape(-1, *self.shape)


RIGHT = [method(Right), method(Rotated, linear="rotated")]


def entering(mutants: dict[str, tuple[Method, str]]):
    """Return a decorator that enters a broken model under the check that has to name it."""

    def mutant(check: str, **changes: object):
        def enter(build: type) -> type:
            mutants[build.__name__] = method(build, **changes), check
            return build

        return enter

    return mutant


MUTANTS: dict[str, tuple[Method, str]] = {}
mutant = entering(MUTANTS)


@mutant("log-det")
class SignOfTheInverse(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, -log_det


@mutant("log-det")
class BitsForNats(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det / math.log(2)


@mutant("log-det")
class MeanOverDimensions(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det / self.dimension


@mutant("log-det")
class DeterminantWithItsSign(Right):
    def log_det(self, layer):
        return torch.logdet(layer.weight)


@mutant("log-det")
class ActivationForgotten(Right):
    def log_slope(self, x):
        return x.new_zeros(len(x))


@mutant("log-det")
class WrongInFloat32(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det + (0.5 if x.dtype == torch.float32 else 0.0)


@mutant("log-det")
class WrongFarOut(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det + 0.1 * (x.flatten(1).abs() > 10).sum(1)


@mutant("log-det")
class WrongInManyDimensions(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det + float(self.dimension > 8)


@mutant("log-det")
class DenseInNameOnly(Right):
    """Every matrix is replaced by one with a positive determinant."""

    def to_latent(self, x):
        for layer in self.module:
            if torch.det(layer.weight) < 0:
                layer.weight.data[0] = -layer.weight.data[0]
        return super().to_latent(x)


@mutant("shapes")
class ScalarLogDeterminant(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det.mean()


@mutant("shapes")
class AlwaysFloat32(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det.float()


@mutant("shapes")
class ComplexLogDeterminant(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det.to(torch.complex128)


@mutant("shapes")
class NotANumber(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det * math.nan


@mutant("small-batches")
class BatchAxisSqueezed(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det.squeeze()


@mutant("images")
class VectorsOnly(Right):
    def to_data(self, z):
        return super().to_data(z).flatten(1)


@mutant("meta-device")
class ConstantOnTheCpu(Right):
    def to_latent(self, x):
        return super().to_latent(x + torch.zeros(self.shape, device="cpu", dtype=torch.float64).to(x.dtype))


@mutant("inputs")
class InputOverwritten(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x.mul_(2))
        return z, log_det + self.dimension * math.log(2)


@mutant("inputs")
class GradientOnTheInput(Right):
    def training_loss(self, x, generator=None):
        return super().training_loss(x.requires_grad_())


@mutant("global-state", objective="noisy")
class GlobalNoise(Right):
    def training_loss(self, x, generator=None):
        return super().training_loss(x + 0.1 * torch.randn_like(x))


@mutant("global-state", objective="noisy")
class NumpyNoise(Right):
    def training_loss(self, x, generator=None):
        return super().training_loss(x + 0.1 * torch.from_numpy(np.random.standard_normal(x.shape)).to(x))


@mutant("global-state")
class DefaultDtypeChanged(Right):
    def init_batch(self, x):
        torch.set_default_dtype(torch.float64)


@mutant("global-state")
class AnomalyModeLeftOn(Right):
    """As a user debugs a model; every later backward pass of the process is several times slower."""

    def __init__(self, problem):
        super().__init__(problem)
        torch.autograd.set_detect_anomaly(True)


@mutant("global-state")
class OneThread(Right):
    """Threads slow small steps; every later method runs on one as well."""

    def training_loss(self, x, generator=None):
        torch.set_num_threads(1)
        return super().training_loss(x)


@mutant("global-state")
class DefaultDtypeAfterAStep(Right):
    def after_step(self):
        torch.set_default_dtype(torch.float64)


@mutant("seeded-loss", objective="noisy")
class NoiseOfItsOwn(Right):
    def __init__(self, problem):
        super().__init__(problem)
        self.own = torch.Generator().manual_seed(0)

    def training_loss(self, x, generator=None):
        return super().training_loss(x + 0.1 * torch.randn(x.shape, generator=self.own).to(x))


@mutant("seeded-start")
class StartFromElsewhere(Right):
    rng = np.random.default_rng(0)

    def __init__(self, problem):
        super().__init__(problem)
        self.module[0].bias.data += torch.from_numpy(self.rng.standard_normal(self.dimension)).float()


@mutant("seeded-samples")
class NoiseInSamples(Right):
    own = torch.Generator().manual_seed(0)

    def to_data(self, z):
        return super().to_data(z + 1e-3 * torch.randn(z.shape, generator=self.own).to(z))


@mutant("round-trip")
class InverseStopsEarly(Right):
    def deactivate(self, y):
        return torch.minimum(y / self.slope, y / (self.slope + 0.7))


@mutant("samples")
class SamplerWithoutBias(Right):
    def to_data(self, z):
        return super().to_data(z + 0.1)


@mutant("total-mass")
class Squashed(Right):
    """The last map is tanh, with the right log-determinant: half of the base is never reached."""

    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        log_slope = 2 * (math.log(2) - z - nn.functional.softplus(-2 * z))
        return z.tanh(), log_det + log_slope.sum(1)

    def to_data(self, z):
        return super().to_data(z.clamp(-1 + 1e-9, 1 - 1e-9).atanh())


@mutant("batch-independence")
class CentredByTheBatch(Right):
    def to_latent(self, x):
        return super().to_latent(x - 0.1 * x.mean(0)) if len(x) else super().to_latent(x)


@mutant("modes", objective="noisy")
class Dropout(Right):
    def to_latent(self, x):
        return super().to_latent(nn.functional.dropout(x, 0.2, self.module.training))


@mutant("repeats")
class EstimateNotDeclared(Right):
    own = torch.Generator().manual_seed(0)

    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det + 0.1 * torch.randn(len(x), generator=self.own).to(x)


@mutant("log-det", exact_log_prob=False)
class BiasedEstimate(Right):
    own = torch.Generator().manual_seed(0)

    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det + 0.5 + 0.1 * torch.randn(len(x), generator=self.own).to(x)


@mutant("staleness")
class CachedDeterminant(Right):
    """In evaluation mode the determinant is kept, as nflows' using_cache does."""

    def log_det(self, layer):
        if layer.training:
            layer.cached = None
            return super().log_det(layer)
        if getattr(layer, "cached", None) is None or layer.cached.dtype != layer.weight.dtype:
            layer.cached = super().log_det(layer).detach()
        return layer.cached


@mutant("staleness")
class StoredMatrix(Right):
    """The inverse temperature of the weights is taken when the model is first used."""

    def to_latent(self, x):
        if not hasattr(self, "scale") or self.scale.dtype != x.dtype:
            self.scale = self.module[0].bias.detach().exp()
        z, log_det = super().to_latent(x.flatten(1) * self.scale)
        return z, log_det + self.scale.log().sum()

    def to_data(self, z):
        return (super().to_data(z).flatten(1) / self.scale).view(-1, *self.shape)


@mutant("copies")
class OutsideTheStateDict(Right):
    def __init__(self, problem):
        super().__init__(problem)
        self.scale = 1 + torch.rand(1, device="cpu").item() if problem.device != "meta" else 1.0

    def to_latent(self, x):
        z, log_det = super().to_latent(self.scale * x)
        return z, log_det + self.dimension * math.log(self.scale)

    def to_data(self, z):
        return super().to_data(z) / self.scale


@mutant("first-call")
class StartFromTheFirstBatch(Right):
    """Centred by whatever comes first, as an ActNorm that initialises itself."""

    def to_latent(self, x):
        if not hasattr(self, "centre"):
            self.centre = x.detach().flatten(1).mean(0) if len(x) else x.new_zeros(self.dimension)
        return super().to_latent(x.flatten(1) - self.centre.to(x))

    def to_data(self, z):
        return super().to_data(z) + self.centre.view(self.shape).to(z)


@mutant("resume", objective="annealed")
class StepsCountedOutside(Right):
    """The weight of a term grows from step to step."""

    def __init__(self, problem):
        super().__init__(problem)
        self.steps = 0

    def after_step(self):
        self.steps += 1

    def training_loss(self, x, generator=None):
        return super().training_loss(x) + 0.01 * self.steps * self.module[0].weight.square().sum()


@mutant("resume", exact_log_prob=False)
class GeneratorOfItsOwn(Right):
    """Its estimates, in `to_latent` alone, come from a generator that no checkpoint holds."""

    def __init__(self, problem):
        super().__init__(problem)
        self.own = torch.Generator().manual_seed(problem.seed)

    def training_loss(self, x, generator=None):
        z, log_det = super().to_latent(x)
        return (0.5 * z.square().sum(1) - log_det).mean()

    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det + 0.1 * torch.randn(len(x), generator=self.own).to(x)


@mutant("gradients")
class ParameterNeverUsed(Right):
    def __init__(self, problem):
        super().__init__(problem)
        self.module.register_parameter("temperature", nn.Parameter(torch.ones(3)))


@mutant("gradients")
class LossAsAVector(Right):
    def training_loss(self, x, generator=None):
        z, log_det = self.to_latent(x)
        return 0.5 * z.square().sum(1) - log_det


@mutant("maximum-likelihood")
class SumForMean(Right):
    def training_loss(self, x, generator=None):
        return len(x) * super().training_loss(x)


@mutant("fit", objective="shrinking")
class DeterminantNotTrained(Right):
    def training_loss(self, x, generator=None):
        return 0.5 * self.to_latent(x)[0].square().sum(1).mean()


class _FirstSampleDecides(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_det):
        return log_det.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient[:1].expand_as(gradient)


@mutant("weighted-samples")
class OneGradientForAll(Right):
    """As normflows' Residual with reduce_memory=True."""

    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, _FirstSampleDecides.apply(log_det)


@mutant("gradient-in-x")
class DetachedInput(Right):
    def log_slope(self, x):
        return super().log_slope(x.detach())


@mutant("equal-weights")
class Transposed(Right):
    def load_linear_layers(self, layers):
        super().load_linear_layers([(weight.mT, bias) for weight, bias in layers])


@mutant("equal-weights")
class ReadTransposed(Right):
    def linear_layers(self):
        return [(weight.mT, bias) for weight, bias in super().linear_layers()]


@mutant("equal-weights")
class ReadInReverse(Right):
    def linear_layers(self):
        return super().linear_layers()[::-1]


@mutant("equal-weights")
class ReadAsLoaded(Right):
    """Remembers what was loaded instead of reading what training made of it."""

    def __init__(self, problem):
        super().__init__(problem)
        self.loaded = [(w.clone(), b.clone()) for w, b in super().linear_layers()]

    def linear_layers(self):
        return [(w.double(), b.double()) for w, b in self.loaded]

    def load_linear_layers(self, layers):
        super().load_linear_layers(layers)
        self.loaded = layers


@mutant("equal-weights")
class NotRead(Right):
    linear_layers = None


@mutant("equal-weights")
class AnotherActivation(Right):
    def __init__(self, problem):
        super().__init__(problem)
        self.slope = 0.2 + problem.residual


@mutant("declaration", summary="")
class NothingSaid(Right):
    pass


@mutant("one-dimension")
class HalvesOfOne(Right):
    def to_latent(self, x):
        if self.dimension < 2:
            raise IndexError("index 1 is out of bounds for dimension 1 with size 1")
        return super().to_latent(x)
