"""Competitors that are right in small batches, in evaluation mode, at first or at most sizes, and wrong elsewhere.

`MUTANTS` is as in `mutants`.
"""

from __future__ import annotations

import importlib
import math

import torch
from mutants import Right, entering
from mutants_declared import Coupling
from torch import nn

from harness.methods import Method, OwnRecipe

MUTANTS: dict[str, tuple[Method, str]] = {}
mutant = entering(MUTANTS)


# Wrong in the batches, the mode and the dimensions of a training.


@mutant("maximum-likelihood")
class HalfOfTheBatch(Right):
    """A batch of 100 costs what one of 64 does."""

    def training_loss(self, x, generator=None):
        return super().training_loss(x[:64], generator)


@mutant("maximum-likelihood")
class MeanOfMeans(Right):
    def training_loss(self, x, generator=None):
        return torch.stack([super(MeanOfMeans, self).training_loss(part) for part in x.split(64)]).mean()


@mutant("maximum-likelihood", linear="none")
class NoisyWhileItTrains(Coupling):
    def training_loss(self, x, generator=None):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return super().training_loss(x + 0.3 * noise if self.module.training else x, generator)


@mutant("inputs", linear="none")
class ClampsWhileItTrains(Coupling):
    def training_loss(self, x, generator=None):
        return super().training_loss(x.clamp_(-2, 2) if self.module.training else x, generator)


@mutant("maximum-likelihood", linear="none")
class LossOfAtMostAHundredNats(Coupling):
    """Most samples of many dimensions have no gradient."""

    def training_loss(self, x, generator=None):
        z, log_det = self.to_latent(x)
        losses = 0.5 * z.square().sum(1) - log_det + 0.5 * math.log(2 * math.pi) * self.dimension
        return losses.clamp(max=100).mean()


@mutant("log-det", linear="lower")
class LogDeterminantOfWholePanels(Right):
    """The last panel of 16 numbers is left out where it is not full."""

    linear_layers = load_linear_layers = None

    def __init__(self, problem):
        super().__init__(problem)
        for layer in self.module:
            nn.utils.parametrize.register_parametrization(layer, "weight", _Lower())

    def log_det(self, layer):
        logs = layer.weight.diagonal().abs().log()
        panel = min(16, len(logs))
        return logs[: len(logs) // panel * panel].sum()


class _Lower(nn.Module):
    def forward(self, weight):
        return weight.tril()


@mutant("log-det")
class LogDeterminantOfEightLayers(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det - sum(self.log_det(layer) for layer in list(self.module)[8:])


# Wrong after some steps, or never trained at all.


class _Counting(Right):
    def __init__(self, problem):
        super().__init__(problem)
        self.module.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def after_step(self):
        self.module.steps += 1


@mutant("maximum-likelihood")
class PenaltyThatComesLater(_Counting):
    def training_loss(self, x, generator=None):
        weight = 0.001 * (self.module.steps - 10).clamp(min=0)
        return super().training_loss(x) + weight * sum(layer.weight.square().sum() for layer in self.module)


@mutant("training-step")
class DecayThatComesLater(_Counting):
    def after_step(self):
        super().after_step()
        with torch.no_grad():
            for layer in self.module:
                layer.weight.mul_(torch.where(self.module.steps > 20, 0.999, 1.0))


@mutant("maximum-likelihood")
class LossOverItsRunningMean(Right):
    def __init__(self, problem):
        super().__init__(problem)
        self.module.register_buffer("mean", torch.ones(()))
        self.last = torch.ones(())

    def training_loss(self, x, generator=None):
        loss = super().training_loss(x)
        self.last = loss.detach()
        return loss / self.module.mean

    def after_step(self):
        self.module.mean.lerp_(self.last.abs().to(self.module.mean), 0.1)


@mutant("gradients", linear="none")
class AllLayersFromZero(Coupling):
    """Every gradient but those of the last biases is a product with a zero."""

    def __init__(self, problem):
        super().__init__(problem)
        for parameter in self.module.parameters():
            nn.init.zeros_(parameter)


@mutant("after-training", meta_device=False)
class InversesKeptByTheFirstLayer(Right):
    key = None

    def to_data(self, z):
        first = self.module[0].weight.detach()
        if self.key is None or self.key.dtype != first.dtype or not torch.equal(self.key, first):
            self.key = first.clone()
            self.inverses = [torch.linalg.inv(layer.weight.detach()) for layer in self.module]
        for index, layer in reversed(list(enumerate(self.module))):
            z = (z - layer.bias) @ self.inverses[index].mT
            if index:
                z = self.deactivate(z)
        return z.reshape(-1, *self.shape)


# Wrong where an estimate, a map or a library is declared.


class _Estimated(Right):
    """An honest estimate: log|det| with noise of the model's own."""

    linear_layers = load_linear_layers = None

    def __init__(self, problem):
        super().__init__(problem)
        self.generator = torch.Generator().manual_seed(problem.seed)

    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det + 0.05 * torch.randn(len(x), generator=self.generator, dtype=x.dtype)


@mutant("batch-independence", linear="estimated", exact_log_prob=False, samples=False, meta_device=False)
class EstimateFromTheBatchsMean(_Estimated):
    def to_latent(self, x):
        return super().to_latent(x - x.mean(0) if len(x) > 1 else x)


@mutant("declared-objective", linear="estimated", exact_log_prob=False, meta_device=False)
class EstimateWithoutTheHalf(_Estimated):
    def training_loss(self, x, generator=None):
        z, log_det = self.to_latent(x)
        return (z.square().sum(1) - log_det).mean()


@mutant("declared-start", objective="fdssm")
class DifferencesBehindTheMap(Right):
    """The steps are as long behind a map that shrinks as in front of it."""

    def __init__(self, problem):
        super().__init__(problem)
        self.length = problem.noise

    def training_loss(self, x, generator=None):
        x = x.flatten(1)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        step = self.length * nn.functional.normalize(noise)
        ahead, here, behind = (self._log_prob(x + sign * step) for sign in (1, 0, -1))
        return ((ahead - behind).square() / 8 + ahead + behind - 2 * here).mean() / self.length**2

    def loss_before_map(self, x, matrix, shift, generator=None):
        return self.training_loss(x @ matrix.mT + shift, generator)

    def _log_prob(self, x):
        z, log_det = self.to_latent(x)
        return log_det - 0.5 * z.square().sum(1)


@mutant(
    "declared-fields",
    linear="none",
    own_recipes={"digits": OwnRecipe(100, {"learning_rate": 1e-3}, {"dropout": 0.3, "layers": 4})},
)
class RecipeWithoutItsDropout(Coupling):
    pass


@mutant("declared-fields")
class LibraryByItsName(Right):
    def __init__(self, problem):
        importlib.import_module("scipy.linalg")
        super().__init__(problem)
