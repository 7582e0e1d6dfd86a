"""Competitors that are right as they are built: the fault is in a gradient, in what is kept, or in the process.

`GOOD` do what the faulty ones do, in the right way. `MUTANTS` is as in `mutants`.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import signal
import sys
import warnings

import numpy as np
import torch
from mutants import Right, entering, method
from torch import nn

from harness.methods import Method

MUTANTS: dict[str, tuple[Method, str]] = {}
mutant = entering(MUTANTS)


class _LogDet(torch.autograd.Function):
    """log|det W| with a backward pass written by hand."""

    @staticmethod
    def forward(ctx, weight, gradient_of):
        ctx.save_for_backward(weight)
        ctx.gradient_of = gradient_of
        return torch.linalg.slogdet(weight).logabsdet

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.gradient_of(*ctx.saved_tensors), None


def inverse(weight):
    return torch.linalg.inv(weight)


# The weights' gradient: right values, wrong derivatives.


@mutant("weights-gradient")
class TransposedLogDeterminant(Right):
    def log_det(self, layer):
        return _LogDet.apply(layer.weight, inverse)


@mutant("weights-gradient")
class HalfOfTheLogDeterminant(Right):
    def log_det(self, layer):
        return _LogDet.apply(layer.weight, lambda weight: 0.5 * inverse(weight).mT)


@mutant("weights-gradient")
class InverseOfTheFirstStep(Right):
    """The gradient of log|det W| is right at first, and that of the start for ever."""

    def log_det(self, layer):
        if getattr(layer, "first", None) is None or layer.first.dtype != layer.weight.dtype:
            layer.first = inverse(layer.weight.detach()).mT
        return _LogDet.apply(layer.weight, lambda weight: layer.first.to(weight))


@mutant("weights-gradient")
class ActivationDetached(Right):
    """Only the score of the data is right: the log-slopes reach the input of the network, and no weights."""

    def log_slope(self, x):
        return super().log_slope(x if x.is_leaf else x.detach())


@mutant("weights-gradient", objective="penalised")
class BackwardInside(Right):
    """A penalty is differentiated in the loss, and its gradient stays in the parameters."""

    def training_loss(self, x, generator=None):
        if torch.is_grad_enabled():
            self.penalty().backward()
        return super().training_loss(x) + self.penalty()

    def penalty(self):
        return 0.1 * sum(layer.weight.square().sum() for layer in self.module)


@mutant("weights-gradient", objective="clipped")
class ClippedByAHook(Right):
    def __init__(self, problem):
        super().__init__(problem)
        for parameter in self.module.parameters():
            parameter.register_post_accumulate_grad_hook(self.clip)

    @staticmethod
    def clip(parameter):
        parameter.grad.clamp_(-0.1, 0.1)


@mutant("weights-gradient", objective="dsm")
class ScoreWithoutItsGradient(Right):
    """Denoising score matching whose score is a constant in one of two terms."""

    def training_loss(self, x, generator=None):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        noisy = (x + 0.5 * noise).requires_grad_()
        z, log_det = self.to_latent(noisy)
        (score,) = torch.autograd.grad((log_det - 0.5 * z.square().sum(1)).sum(), noisy, create_graph=True)
        error = score + noise / 0.5
        return 0.5 * (error * error.detach()).sum(1).mean()


@mutant("weights-gradient", own_gradient="the natural gradient")
class AsOrdinaryAsAny(Right):
    """Declares a gradient of its own and has none."""


@mutant("training-step")
class WeightsDecayInAfterStep(Right):
    def after_step(self):
        with torch.no_grad():
            for layer in self.module:
                layer.weight.mul_(0.999)


@mutant("training-step")
class RoundedInAfterStep(Right):
    """Weights of few digits, which small steps never change."""

    def after_step(self):
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.copy_(parameter.bfloat16())


@mutant("training-step")
class AnotherParameter(Right):
    """The optimiser goes on with the parameter that was replaced."""

    def after_step(self):
        for layer in self.module:
            layer.weight = nn.Parameter(layer.weight.detach().clamp(-5, 5))


@mutant("equal-weights")
class LoadedAsAnotherParameter(Right):
    def load_linear_layers(self, layers):
        for layer, (weight, bias) in zip(self.module, layers, strict=True):
            layer.weight, layer.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())


# What is kept outlives the weights.


class _Kept(Right):
    """Samples by inverses that are made once; a subclass says when they are made again."""

    def __init__(self, problem):
        super().__init__(problem)
        self.kept = {}

    def key(self, index, layer):
        return index, layer.weight.dtype, layer.weight.device

    def to_data(self, z):
        for index, layer in reversed(list(enumerate(self.module))):
            key = self.key(index, layer)
            if key not in self.kept:
                self.kept[key] = inverse(layer.weight.detach()).mT
            z = (z - layer.bias) @ self.kept[key]
            if index:
                z = self.deactivate(z)
        return z.reshape(-1, *self.shape)


@mutant("after-training")
class InverseKept(_Kept):
    pass


@mutant("after-training")
class ClearedByAStep(_Kept):
    """Loading and the averaged weights leave it as it is."""

    def after_step(self):
        self.kept.clear()


@mutant("after-training")
class ClearedByTheLoss(_Kept):
    def training_loss(self, x, generator=None):
        self.kept.clear()
        return super().training_loss(x)


@mutant("after-training")
class ClearedInTrainingMode(_Kept):
    def to_data(self, z):
        if self.module.training:
            self.kept.clear()
        return super().to_data(z)


@mutant("after-training")
class KeyedByThePlaceInMemory(_Kept):
    def key(self, index, layer):
        return index, layer.weight.data_ptr(), layer.weight.dtype


@mutant("after-training")
class KeyedByTheVersion(_Kept):
    """What goes through .data changes no version."""

    def key(self, index, layer):
        return index, layer.weight._version, layer.weight.dtype, layer.weight.device


@mutant("after-training")
class DeterminantKeptInEvaluation(Right):
    """train() clears it, and loading in evaluation mode does not."""

    def log_det(self, layer):
        if torch.is_grad_enabled() or layer.training:
            layer.kept = None
            return super().log_det(layer)
        if getattr(layer, "kept", None) is None or layer.kept.dtype != layer.weight.dtype:
            layer.kept = super().log_det(layer)
        return layer.kept


@mutant("after-training")
class SamplesOfAnAverage(Right):
    """Samples come from an average of the weights of its own, which no loading reaches."""

    def __init__(self, problem):
        super().__init__(problem)
        self.average = None

    def after_step(self):
        biases = torch.stack([layer.bias.detach() for layer in self.module])
        self.average = biases if self.average is None else 0.9 * self.average + 0.1 * biases

    def to_data(self, z):
        if self.average is None or self.average.dtype != z.dtype:
            return super().to_data(z)
        return super().to_data(z + self.average[-1] - self.module[-1].bias)


@mutant("after-training")
class AnswersKept(Right):
    """What was computed for a tensor is returned when the same one comes again, as transforms with cache_size=1 do."""

    def __init__(self, problem):
        super().__init__(problem)
        self.asked, self.answer = None, None

    def to_latent(self, x):
        if torch.is_grad_enabled():
            return super().to_latent(x)
        if self.asked is not x:
            self.asked, self.answer = x, super().to_latent(x)
        return self.answer


@mutant("modes")
class AverageInEvaluation(Right):
    """In evaluation mode the last bias is an average of its own, which the state dict holds."""

    def __init__(self, problem):
        super().__init__(problem)
        self.module.register_buffer("average", torch.ones(self.dimension))

    def after_step(self):
        self.module.average.lerp_(self.module[-1].bias.detach(), 0.5 if self.module.training else 1.0)

    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        if self.module.training:
            return z, log_det
        return z - self.module[-1].bias + self.module.average, log_det


# What an earlier model or call leaves behind.


@mutant("earlier-models")
class CentreOfTheFirstModel(Right):
    """Every model is centred by the data of the first one."""

    centre = None

    def init_batch(self, x):
        cls = type(self)
        if cls.centre is None:
            cls.centre = float(x.mean())
        with torch.no_grad():
            self.module[0].bias.fill_(cls.centre)


_ORDERS: dict[int, torch.Tensor] = {}


@mutant("earlier-models", linear="permuted")
class OrderOfTheFirstModel(Right):
    """A random order of the components is kept for each D, whatever the seed."""

    def __init__(self, problem):
        super().__init__(problem)
        if problem.device != "meta":
            order = _ORDERS.setdefault(self.dimension, torch.randperm(self.dimension))
            with torch.no_grad():
                self.module[0].weight.copy_(torch.eye(self.dimension)[order])


_INVERSES: dict[tuple, torch.Tensor] = {}


@mutant("two-models")
class InversesOfAllModels(_Kept):
    """Rightly cleared by everything that one model does; the dictionary is that of all models."""

    def __init__(self, problem):
        super().__init__(problem)
        self.kept = _INVERSES

    def key(self, index, layer):
        return index, self.dimension, layer.weight.dtype, layer.weight.device


@mutant("two-models", objective="annealed")
class StepsOfAllModels(Right):
    steps = 0

    def training_loss(self, x, generator=None):
        type(self).steps += 1
        return super().training_loss(x) * (1 + 1e-3 * self.steps)


@functools.cache
def _same_network(dimension, layers):
    return nn.ModuleList(nn.Linear(dimension, dimension) for _ in range(layers))


@mutant("two-models")
class OneNetworkForAll(Right):
    def __init__(self, problem):
        super().__init__(problem)
        if problem.device != "meta":
            self.module = _same_network(self.dimension, problem.layers)


_SETTINGS = {
    "denormals": lambda: torch.set_flush_denormal(True),
    "numpy": lambda: np.seterr(all="ignore"),
    "warnings": lambda: warnings.simplefilter("ignore"),
    "environment": lambda: os.environ.__setitem__("OMP_NUM_THREADS", "7"),
    "signals": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "logging": lambda: logging.disable(logging.CRITICAL),
    "path": lambda: sys.path.insert(0, "/nowhere"),
    "recursion": lambda: sys.setrecursionlimit(12345),
    "precision": lambda: torch.set_float32_matmul_precision("medium"),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "device": lambda: torch.set_default_device("meta"),
    "seed": lambda: np.random.seed(0),
}
for _name, _change in _SETTINGS.items():

    class _Setter(Right):
        change = staticmethod(_change)

        def __init__(self, problem):
            super().__init__(problem)
            self.change()

    _Setter.__name__ = f"Changes-{_name}"
    MUTANTS[_Setter.__name__] = method(_Setter), "global-state"


@mutant("global-state")
class OnlyTheFirstBuild(Right):
    configured = False

    def __init__(self, problem):
        super().__init__(problem)
        if not self.configured:
            type(self).configured = True
            torch.set_default_dtype(torch.float64)


@mutant("global-state")
class GradientsOffAfterSampling(Right):
    def to_data(self, z):
        torch.set_grad_enabled(False)
        return super().to_data(z)


@functools.cache
def _start_in_numpy(dimension: int) -> np.ndarray:
    return -np.eye(dimension, dtype=np.float32)


@mutant("seeded-start")
class StartsShareMemory(Right):
    def __init__(self, problem):
        super().__init__(problem)
        for layer in self.module:
            layer.weight = nn.Parameter(torch.from_numpy(_start_in_numpy(problem.dimension)))


@mutant("global-state")
class InitialisationSkipped(Right):
    """Whoever builds a layer afterwards starts from memory that was never written."""

    def __init__(self, problem):
        nn.Linear.reset_parameters = lambda layer: None
        super().__init__(problem)


@mutant("global-state")
class HookOfAllModules(Right):
    def __init__(self, problem):
        nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
        super().__init__(problem)


# Steps that are not alike.


class _KeptLogDet(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, gradient, weight):
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    def backward(ctx, of_value):
        return None, None, of_value * ctx.gradient


class Amortised(Right):
    """Nothing wrong: the gradient of log|det W| is taken anew at every fourth step, or as the problem says."""

    every = 4

    def __init__(self, problem):
        super().__init__(problem)
        self.period = problem.refresh or self.every
        self.age, self.values, self.gradients = 0, [], []

    def training_loss(self, x, generator=None):
        if self.due():
            self.refresh()
        self.age += 1
        z, log_det = self.to_latent(x, determinants=False)
        kept = zip(self.module, self.values, self.gradients, strict=True)
        total = sum(self.kept_log_det(value, gradient, layer.weight) for layer, value, gradient in kept)
        return (0.5 * z.square().sum(1) - log_det).mean() - total

    def due(self):
        return self.age % self.period == 0 or not self.values

    def refresh(self):
        weights = [layer.weight.detach() for layer in self.module]
        self.values = [torch.linalg.slogdet(weight).logabsdet for weight in weights]
        self.gradients = [inverse(weight).mT for weight in weights]

    def kept_log_det(self, value, gradient, weight):
        return _KeptLogDet.apply(value, gradient, weight)

    def to_latent(self, x, determinants=True):
        z, log_det = super().to_latent(x)
        if determinants:
            return z, log_det
        return z, log_det - sum(self.log_det(layer) for layer in self.module).detach()

    def get_extra_state(self):
        state = {"age": torch.tensor(self.age)}
        return state | {
            f"{name}.{index}": tensor
            for name, tensors in (("value", self.values), ("gradient", self.gradients))
            for index, tensor in enumerate(tensors)
        }

    def set_extra_state(self, state):
        self.age = int(state["age"])
        self.values, self.gradients = (
            [state[name] for name in sorted(state) if name.startswith(kind)] for kind in ("value", "gradient")
        )


class AmortisedEnergy(Amortised):
    """Nothing wrong, and no determinant in between."""

    def to_latent(self, x, determinants=True):
        if determinants:
            return super().to_latent(x)
        x, log_det = x.flatten(1), x.new_zeros(len(x))
        for index, layer in enumerate(self.module):
            if index:
                log_det = log_det + self.log_slope(x)
                x = self.activate(x)
            x = layer(x)
        return x, log_det


GOOD = [method(AmortisedEnergy, objective="amortised", periods={"fc": 4})]
AMORTISED = {"objective": "amortised", "periods": {"fc": 4}}


@mutant("period", objective="amortised")
class PeriodNotDeclared(AmortisedEnergy):
    pass


@mutant("period", objective="amortised")
class RareAndNotDeclared(AmortisedEnergy):
    every = 50


@mutant("period", **AMORTISED)
class RefreshAsItLikes(AmortisedEnergy):
    def __init__(self, problem):
        super().__init__(problem)
        self.period = self.every


@mutant("period", **AMORTISED)
class NeverAgain(AmortisedEnergy):
    def due(self):
        return not self.values


@mutant("period", **AMORTISED)
class NothingIsKept(AmortisedEnergy):
    def due(self):
        return True


@mutant("weights-gradient", **AMORTISED)
class GradientOnlyWhenFresh(AmortisedEnergy):
    """Between two refreshes log Z is a constant."""

    def kept_log_det(self, value, gradient, weight):
        return super().kept_log_det(value, gradient * (self.age % self.period == 1), weight)


@mutant("period", **AMORTISED)
class ValidationsCount(AmortisedEnergy):
    def to_latent(self, x, determinants=True):
        self.age += determinants
        return super().to_latent(x, determinants)


@mutant("resume", **AMORTISED)
class AgeOutsideTheState(AmortisedEnergy):
    def get_extra_state(self):
        return super().get_extra_state() | {"age": torch.tensor(0)}


@mutant("global-state", **AMORTISED)
class ThreadsForARefresh(AmortisedEnergy):
    def refresh(self):
        if self.values:
            torch.set_num_threads(2)
        super().refresh()


@mutant("inputs", **AMORTISED)
class InputOfARefresh(AmortisedEnergy):
    def training_loss(self, x, generator=None):
        if self.values and self.due():
            x.sub_(1e-3)
        return super().training_loss(x)


@mutant("gradients", **AMORTISED)
class NotFiniteAtARefresh(AmortisedEnergy):
    def refresh(self):
        again = bool(self.values)
        super().refresh()
        if again:
            self.gradients[0] = self.gradients[0] * math.inf
