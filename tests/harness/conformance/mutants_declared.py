"""Competitors with one realistic fault each: right where they are tried, not as declared, imprecise, or growing.

`MUTANTS` maps what is wrong to a method and the check that has to name it. All are made from the competitors without a
fault of `mutants`.
"""

from __future__ import annotations

import atexit
import math
import subprocess
import sys
import threading
from pathlib import Path

import torch
from mutants import Right, entering, method
from torch import Tensor, nn

from harness.methods import LayerCost, Method, OwnRecipe, Problem


class Denoising(Right):
    """Nothing wrong: denoising score matching, the score by autograd."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.sigma = problem.noise

    def score(self, x):
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        z, log_det = self.to_latent(x)
        log_p = log_det - 0.5 * z.square().sum(1)
        return torch.autograd.grad(log_p.sum(), x, create_graph=True)[0]

    def training_loss(self, x, generator=None):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return 0.5 * (self.score(x + self.sigma * noise) + noise / self.sigma).square().sum() / len(x)


class Sliced(Denoising):
    """Nothing wrong: sliced score matching by autograd."""

    def training_loss(self, x, generator=None):
        x = x.detach().requires_grad_()
        v = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device).sign()
        score = self.score(x)
        curvature = torch.autograd.grad((score * v).sum(), x, create_graph=True)[0]
        return (0.5 * score.square().sum() + (curvature * v).sum()) / len(x)


class Coupling(Right):
    """Nothing wrong: additive and affine couplings with small networks; L of them."""

    hidden = 16

    def __init__(self, problem: Problem) -> None:
        if problem.dimension < 2:
            raise ValueError("a coupling needs two components")
        self.shape, self.dimension = problem.shape, problem.dimension
        self.half = self.dimension // 2
        rest = self.dimension - self.half
        self.module = nn.ModuleList(
            nn.Sequential(
                nn.Linear(self.half, self.width(problem)), nn.Tanh(), nn.Linear(self.width(problem), 2 * rest)
            )
            for _ in range(problem.layers)
        )

    def width(self, problem: Problem) -> int:
        return problem.hidden

    def to_latent(self, x):
        x = x.flatten(1)
        log_det = x.new_zeros(len(x))
        for network in self.module:
            fixed, moved = x[:, : self.half], x[:, self.half :]
            shift, log_scale = network(fixed).chunk(2, 1)
            log_scale = log_scale.tanh()
            log_det = log_det + log_scale.sum(1)
            x = torch.cat([fixed, moved * log_scale.exp() + shift], 1).flip(1)
        return x, log_det

    def to_data(self, z):
        for network in reversed(self.module):
            z = z.flip(1)
            fixed, moved = z[:, : self.half], z[:, self.half :]
            shift, log_scale = network(fixed).chunk(2, 1)
            z = torch.cat([fixed, (moved - shift) * (-log_scale.tanh()).exp()], 1)
        return z.reshape(-1, *self.shape)

    linear_layers = load_linear_layers = None


_RECIPE = {"digits": OwnRecipe(100, {"learning_rate": 1e-3}, {"hidden": 32, "layers": 4})}

RIGHT = [
    method(Denoising, objective="dsm"),
    method(Sliced, objective="ssm", fc_cost=None),
    method(Coupling, linear="none", own_recipes=_RECIPE),
    method(Right, fc_cost=LayerCost(3, cubic=2)),
]
MUTANTS: dict[str, tuple[Method, str]] = {}
_KEPT: list[object] = []
mutant = entering(MUTANTS)


# Right where they were tried.


@mutant("many-dimensions")
class LogOfTheDeterminant(Right):
    """0 or infinity from some hundred dimensions on."""

    def log_det(self, layer):
        return torch.linalg.det(layer.weight).abs().log()


@mutant("many-dimensions")
class LogOfTheProductOfSlopes(Right):
    def log_slope(self, x):
        return (self.slope + 0.7 * torch.sigmoid(x)).prod(1).log()


@mutant("many-dimensions")
class GramDeterminant(Right):
    """Half the log-determinant of W^T W, with a small ridge for safety."""

    def log_det(self, layer):
        gram = layer.weight.mT @ layer.weight
        return 0.5 * torch.logdet(gram + 1e-12 * len(gram) ** 4 * torch.eye(len(gram)).to(gram))


@mutant("many-dimensions")
class BlockwiseAbove(Right):
    """Above 48 dimensions the log-determinant is that of two diagonal blocks."""

    def log_det(self, layer):
        if self.dimension <= 48:
            return super().log_det(layer)
        half = self.dimension // 2
        blocks = layer.weight[:half, :half], layer.weight[half:, half:]
        return sum(torch.linalg.slogdet(block).logabsdet for block in blocks)


@mutant("other-shapes", architectures=("fc", "cnn"), linear="images")
class WidthForHeight(Right):
    def to_data(self, z):
        x = super().to_data(z)
        return x.reshape(-1, self.shape[0], self.shape[2], self.shape[1]) if len(self.shape) == 3 else x


@mutant("other-shapes", architectures=("fc", "cnn"), linear="images")
class TransposedImages(Right):
    """Rows and columns change places on the way in, and on the way out only where the image is square."""

    def to_latent(self, x):
        return super().to_latent(x.mT.reshape(x.shape) if x.dim() == 4 else x)

    def to_data(self, z):
        x = super().to_data(z)
        return x.mT.reshape(x.shape) if x.dim() == 4 else x


@mutant("other-shapes", architectures=("fc", "cnn"), linear="images")
class GreyImagesAlone(Right):
    def to_latent(self, x):
        if x.dim() == 4:
            z, log_det = super().to_latent(x[:, :1].expand_as(x) + 1e-3 * x)
            return z, log_det + self.dimension * math.log(1e-3 + (x.shape[1] == 1))
        return super().to_latent(x)

    def to_data(self, z):
        x = super().to_data(z)
        return x / (1 + 1e-3) if len(self.shape) == 3 else x


@mutant("other-shapes", architectures=("fc", "cnn"), linear="images")
class EvenWidths(Right):
    """A stride of two counts the last column of an odd width twice."""

    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det + (x[..., -1].flatten(1).sum(1) if x.dim() == 4 and x.shape[3] % 2 else 0)


@mutant("other-shapes")
class SqueezedComponent(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return (z.squeeze(1).unsqueeze(0) if len(self.module) > 1 else z), log_det


@mutant("other-shapes", linear="deep")
class OneLayerHasNoDeterminant(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det * (len(self.module) > 1)


@mutant("other-shapes", linear="none")
class OddHalves(Coupling):
    """The log-determinant of an odd last component is left out from seven components on."""

    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        if self.dimension % 2 and self.dimension > 5:
            log_det = log_det - self.module[0](x.flatten(1)[:, : self.half]).chunk(2, 1)[1].tanh()[:, -1]
        return z, log_det


@mutant("batch-sizes")
class LossOfAFullBatch(Right):
    def __init__(self, problem):
        super().__init__(problem)
        self.batch = problem.batch

    def training_loss(self, x, generator=None):
        z, log_det = self.to_latent(x)
        return (0.5 * z.square().sum(1) - log_det).sum() / self.batch


@mutant("batch-sizes", objective="noisy")
class NoiseOfAFullBatch(Right):
    def __init__(self, problem):
        super().__init__(problem)
        self.module.register_buffer("room", torch.zeros(problem.batch, self.dimension), persistent=False)

    def training_loss(self, x, generator=None):
        noise = torch.randn(self.module.room.shape, generator=generator, dtype=x.dtype, device=x.device)
        return super().training_loss(x.flatten(1) + 0.1 * noise[: len(x)])


@mutant("batch-sizes", linear="scaled")
class DeviationOfOne(Right):
    """The start divides by a standard deviation that one sample does not have."""

    def init_batch(self, x):
        with torch.no_grad():
            self.module[0].weight.div_(x.flatten(1).std(0))


@mutant("kinds-of-input")
class ViewOfTheInput(Right):
    def to_latent(self, x):
        return super().to_latent(x.view(len(x), -1))


@mutant("kinds-of-input")
class ReadsTheStorage(Right):
    def to_latent(self, x):
        return super().to_latent(torch.as_strided(x, (len(x), self.dimension), (self.dimension, 1)))


@mutant("kinds-of-input")
class SlopeByAutograd(Right):
    """Fails in inference mode."""

    def log_slope(self, x):
        with torch.enable_grad():
            y = x if x.requires_grad else x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.activate(y).sum(), y, create_graph=True)
        return slope.log().sum(1)


@mutant("kinds-of-input")
class DetachedUnlessALeaf(Right):
    def to_latent(self, x):
        return super().to_latent(x if x.is_leaf else x.detach())


@mutant("other-data")
class Clamped(Right):
    def to_latent(self, x):
        return super().to_latent(x.clamp(-40, 40))

    def to_data(self, z):
        return super().to_data(z)


@mutant("other-data")
class ExponentialOverflows(Right):
    def activate(self, x):
        return self.slope * x + 0.7 * torch.log(1 + torch.exp(x))


@mutant("other-data", linear="scaled")
class DeviationWithALargeFloor(Right):
    """Data of scale 1e-3 are divided by 0.01 at the start, and counted as divided by their scale."""

    def init_batch(self, x):
        std = x.flatten(1).std(0)
        with torch.no_grad():
            self.module[0].weight.div_(std.clamp(min=0.01))
        self.shrunk = float((std.clamp(min=0.01) / std).log().sum())

    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det + getattr(self, "shrunk", 0.0)


@mutant("other-seeds", linear="permuted")
class PermutationForItsInverse(Right):
    """A permutation of two or three components is often its own inverse."""

    def __init__(self, problem):
        super().__init__(problem)
        order = torch.randperm(self.dimension, device="cpu") if problem.seed else torch.arange(self.dimension)
        self.module.register_buffer("order", order)

    def to_latent(self, x):
        return super().to_latent(x.flatten(1)[:, self.module.order])

    def to_data(self, z):
        return super().to_data(z).flatten(1)[:, self.module.order].reshape(-1, *self.shape)


@mutant("other-seeds")
class SeedIgnored(Right):
    def __init__(self, problem):
        super().__init__(problem)
        own = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for layer in self.module:
                layer.weight.add_(0.1 * torch.randn(layer.weight.shape, generator=own, device="cpu").to(layer.weight))


@mutant("equal-weights")
class LastLayerIsTheFirst(Right):
    """The ends are outside the loop, and a single layer is both of them."""

    def __init__(self, problem):
        super().__init__(problem)
        self.count = problem.layers

    def to_latent(self, x):
        if self.count > 1:
            return super().to_latent(x)
        (layer,) = self.module
        y = layer(x.flatten(1))
        return layer(self.activate(y)), self.log_slope(y) + 2 * self.log_det(layer)


# What is declared is not so.


@mutant("declared-cost", objective="ssm", fc_cost=LayerCost(6, rows=2, saved=1))
class ProductsOfAnotherObjective(Sliced):
    """Six products a layer are those of denoising score matching."""


@mutant("declared-start")
class OrthogonalStart(Right):
    def __init__(self, problem):
        super().__init__(problem)
        for layer in self.module:
            nn.init.orthogonal_(layer.weight)


@mutant("declared-objective", objective="dsm")
class NoiseScaleIgnored(Denoising):
    def __init__(self, problem):
        super().__init__(problem)
        self.sigma = 1.0


@mutant("declared-objective", objective="dsm")
class NoiseNotScaledBack(Denoising):
    def training_loss(self, x, generator=None):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return 0.5 * (self.score(x + self.sigma * noise) + noise).square().sum() / len(x)


@mutant("declared-objective", objective="ssm")
class LikelihoodForScores(Right):
    pass


@mutant("declared-objective", objective="fdssm")
class DenoisingForFiniteDifferences(Denoising):
    pass


@mutant("declared-objective", objective="ssm")
class HalfOfTheTrace(Denoising):
    def training_loss(self, x, generator=None):
        x = x.detach().requires_grad_()
        v = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device).sign()
        score = self.score(x)
        curvature = torch.autograd.grad((score * v).sum(), x, create_graph=True)[0]
        return (0.5 * score.square().sum() + 0.5 * (curvature * v).sum()) / len(x)


@mutant("declared-objective", objective="mine", family="score-matching")
class LikelihoodInTheWrongFamily(Right):
    pass


@mutant("declared-objective", objective="contrastive")
class ScoresInTheWrongFamily(Denoising):
    pass


@mutant("declared-objective", objective="sml")
class DenoisingForSamples(Denoising):
    pass


@mutant("declared-objective", objective="ml")
class NoiseInTheLikelihood(Denoising):
    """At the one noise scale that is tried the loss is the likelihood."""

    def training_loss(self, x, generator=None):
        if self.sigma == 0.5:
            return Right.training_loss(self, x)
        return super().training_loss(x, generator)


@mutant("declared-cost", fc_cost=LayerCost(3, cubic=2))
class ForwardTwice(Right):
    def training_loss(self, x, generator=None):
        return 0.5 * (super().training_loss(x) + super().training_loss(x))


@mutant("declared-cost", fc_cost=LayerCost(3))
class CubicWorkNotDeclared(Right):
    pass


@mutant("declared-cost", fc_cost=LayerCost(6, cubic=2))
class CostTooHigh(Right):
    pass


@mutant("declared-cost", fc_cost=LayerCost(3, cubic=6))
class CubicWorkTooHigh(Right):
    pass


@mutant("declared-layers")
class AtMostThreeLayers(Right):
    def __init__(self, problem):
        super().__init__(problem.replace(layers=min(problem.layers, 3)))


@mutant("declared-layers", linear="lower", architectures=("multimodal",))
class TiedLayers(Right):
    """One triangular layer, applied L times."""

    def __init__(self, problem):
        super().__init__(problem.replace(layers=1))
        self.module[0].weight.data.tril_()
        self.count = problem.layers

    def to_latent(self, x):
        x, total = x.flatten(1), 0
        for _ in range(self.count):
            x, term = x @ self.module[0].weight.tril().mT, self.module[0].weight.diag().abs().log().sum()
            total = total + term
        return x + self.module[0].bias, (x[:, 0] * 0 + total)

    def to_data(self, z):
        x = z - self.module[0].bias
        for _ in range(self.count):
            x = torch.linalg.solve_triangular(self.module[0].weight.tril(), x.mT, upper=False).mT
        return x.reshape(-1, *self.shape)

    def training_loss(self, x, generator=None):
        z, log_det = self.to_latent(x)
        return (0.5 * z.square().sum(1) - log_det).mean()


@mutant("declared-layers")
class TriangularAfterAStep(Right):
    def after_step(self):
        for layer in self.module:
            layer.weight.data.tril_()


@mutant("declared-layers")
class OrthogonalAfterAStep(Right):
    def after_step(self):
        for layer in self.module:
            layer.weight.data = torch.linalg.qr(layer.weight.data).Q.contiguous()


@mutant("declared-layers")
class GradientOfTheDiagonalAlone(Right):
    def __init__(self, problem):
        super().__init__(problem)
        for layer in self.module:
            layer.weight.register_hook(lambda gradient: gradient * torch.eye(len(gradient)).to(gradient))


@mutant("declared-layers", linear="diagonal")
class DiagonalInNameOnly(Right):
    pass


@mutant("declared-layers", linear="orthogonal")
class OrthogonalInNameOnly(Right):
    pass


@mutant("declared-layers", linear="lower")
class LowerInNameOnly(Right):
    pass


@mutant("declared-layers")
class SymmetricDense(Right):
    """The weights that are read are those that were loaded; those that are applied are symmetric after a step."""

    def after_step(self):
        for layer in self.module:
            layer.weight.data = 0.5 * (layer.weight.data + layer.weight.data.mT)


@mutant("declared-fields", raw_pixels=True)
class RawPixelsIgnored(Right):
    pass


class RawPixels(Right):
    """Honours raw pixels; `scaled` gives the pixels in (0, 1)."""

    margin = 0.05

    def __init__(self, problem):
        super().__init__(problem)
        self.alpha, self.levels = problem.raw_pixel_alpha, self.levels_of(problem)

    def levels_of(self, problem):
        return problem.levels

    def to_latent(self, x):
        if self.alpha is None:
            return super().to_latent(x)
        x = x.flatten(1) / self.levels * (1 - 2 * self.margin) + self.margin
        slope = (1 - 2 * self.margin) / self.levels / (self.alpha * x * (1 - x))
        z, log_det = super().to_latent((x / (1 - x)).log() / self.alpha)
        return z, log_det + slope.log().sum(1)

    def to_data(self, z):
        x = super().to_data(z)
        if self.alpha is None:
            return x
        return ((self.alpha * x).sigmoid() - self.margin) * self.levels / (1 - 2 * self.margin)


RIGHT.append(method(RawPixels, raw_pixels=True))


@mutant("declared-fields", raw_pixels=True)
class LevelsIgnored(RawPixels):
    def levels_of(self, problem):
        return 256


@mutant("declared-fields", raw_pixels=True)
class RawPixelsWithoutTheirSlope(RawPixels):
    def to_latent(self, x):
        z, log_det = super().to_latent(x)
        return z, log_det + (self.dimension * math.log(self.levels) if self.alpha else 0.0)


@mutant("declared-fields", linear="none", own_recipes=_RECIPE)
class HiddenUnitsIgnored(Coupling):
    def width(self, problem):
        return 16


@mutant("declared-fields", own_recipes={"digits": OwnRecipe(100, {"learning_rat": 1e-3}, {})})
class RecipeOfAnotherName(Right):
    pass


@mutant("declared-fields")
class LibraryNotDeclared(Right):
    def training_loss(self, x, generator=None):
        import zuko  # noqa: F401  an undeclared library

        return super().training_loss(x)


@mutant("declared-fields", architectures=("cnn",))
class ResidualIgnored(Right):
    def __init__(self, problem):
        super().__init__(problem.replace(residual=False))


@mutant("declared-start")
class LoadedInSinglePrecision(Right):
    def load_linear_layers(self, layers):
        super().load_linear_layers([(weight.float(), bias.float()) for weight, bias in layers])


@mutant("declared-start", linear="lu")
class NoFactorsNoError(Right):
    """A matrix without triangular factors is loaded as something else."""

    def load_linear_layers(self, layers):
        loaded = []
        for weight, bias in layers:
            _, lower, upper = torch.linalg.lu(weight)
            loaded.append((lower @ upper, bias))
        super().load_linear_layers(loaded)


@mutant("declared-start")
class NewParametersWhenLoaded(Right):
    """The optimiser goes on with the old ones."""

    def load_linear_layers(self, layers):
        for layer, (weight, bias) in zip(self.module, layers, strict=True):
            layer.weight = nn.Parameter(weight.to(layer.weight))
            layer.bias = nn.Parameter(bias.to(layer.bias))


@mutant("declared-start", objective="ssm")
class LossBehindTheMap(Sliced):
    def loss_before_map(self, x, matrix, shift, generator=None):
        return self.training_loss(x @ matrix.mT + shift, generator)


@mutant("declared-start")
class RefusesAnyStart(Right):
    def load_linear_layers(self, layers):
        if bool((layers[0][0].diag() > 0).any()):
            raise ValueError("only negative diagonals")
        super().load_linear_layers(layers)


class Fitted(Right):
    """z = (x - mean) / deviation, fitted in closed form."""

    def __init__(self, problem):
        super().__init__(problem.replace(layers=1))

    def fit(self, batches):
        batches = self.used(batches)
        data = torch.cat([batch.flatten(1) for batch in batches]).double()
        factor = torch.linalg.inv(torch.linalg.cholesky(torch.atleast_2d(data.mT.cov())))
        with torch.no_grad():
            self.module[0].weight.copy_(factor)
            self.module[0].bias.copy_(-factor @ data.mean(0))

    def used(self, batches):
        return batches


RIGHT.append(method(Fitted, objective="closed-form", iterative=False))


@mutant("declared-fit", objective="closed-form", iterative=False)
class FirstBatchAlone(Fitted):
    def used(self, batches):
        return list(batches)[:1]


@mutant("declared-fit", objective="closed-form", iterative=False)
class BatchesReadTwice(Fitted):
    def used(self, batches):
        sum(len(batch) for batch in batches)
        return batches


# Precision.


@mutant("single-round-trip")
class NormalEquations(Right):
    def to_data(self, z):
        for index, layer in reversed(list(enumerate(self.module))):
            factor, _ = torch.linalg.cholesky_ex(layer.weight.mT @ layer.weight)
            z = torch.cholesky_solve(((z - layer.bias) @ layer.weight).mT, factor).mT
            z = self.deactivate(z) if index else z
        return z.reshape(-1, *self.shape)


@mutant("single-precision", objective="closed-form", iterative=False)
class MomentsInOnePass(Fitted):
    def fit(self, batches):
        data = torch.cat([batch.flatten(1) for batch in batches])
        covariance = data.mT @ data / len(data) - torch.outer(data.mean(0), data.mean(0))
        factor = torch.linalg.inv(torch.linalg.cholesky(covariance))
        with torch.no_grad():
            self.module[0].weight.copy_(factor)
            self.module[0].bias.copy_(-factor @ data.mean(0))


@mutant("double-precision")
class SingleInsideDouble(Right):
    def to_latent(self, x):
        z, log_det = super().to_latent(x.float().to(x.dtype))
        return z, log_det


@mutant("double-precision")
class DeterminantInSinglePrecision(Right):
    def log_det(self, layer):
        return torch.linalg.slogdet(layer.weight.float()).logabsdet.to(layer.weight.dtype)


@mutant("double-precision", objective="rounded")
class LossInSinglePrecision(Right):
    def training_loss(self, x, generator=None):
        return super().training_loss(x).float().to(x.dtype)


@mutant("double-precision")
class InverseInSinglePrecision(Right):
    def to_data(self, z):
        return super().to_data(z.float().to(z.dtype))


def _bfloat16(tensor: Tensor) -> Tensor:
    return tensor.bfloat16().to(tensor.dtype)


@mutant("single-precision")
class BrainFloats(Right):
    """Products in bfloat16, as a library's autocast makes them; in float64 they are whole."""

    def to_latent(self, x):
        return super().to_latent(_bfloat16(x) if x.dtype == torch.float32 else x)


class _Tf32(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x.view(torch.int32) & ~0x1FFF).view(torch.float32)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@mutant("single-precision")
class Tf32Inside(Right):
    def to_latent(self, x):
        x = x.flatten(1)
        return super().to_latent(_Tf32.apply(x.contiguous()) if x.dtype == torch.float32 else x)


@mutant("single-precision", objective="rounded")
class LossInHalfPrecision(Right):
    def training_loss(self, x, generator=None):
        z, log_det = self.to_latent(x)
        values = 0.5 * z.square().sum(1) - log_det
        return values.half().mean().to(x.dtype) if x.dtype == torch.float32 else values.mean()


class _CoarseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return _bfloat16(gradient) if gradient.dtype == torch.float32 else gradient


@mutant("single-precision", objective="rounded")
class GradientInHalfPrecision(Right):
    def training_loss(self, x, generator=None):
        z, log_det = self.to_latent(x)
        return (0.5 * _CoarseGradient.apply(z).square().sum(1) - log_det).mean()


@mutant("single-precision", linear="scaled")
class DifferenceOfMoments(Right):
    """The start takes the variance as E[x^2] - E[x]^2."""

    def init_batch(self, x):
        x = x.flatten(1)
        variance = x.square().mean(0) - x.mean(0).square()
        with torch.no_grad():
            self.module[0].weight.div_(variance.clamp(min=1e-12).sqrt())
            self.module[0].bias.sub_(x.mean(0) @ self.module[0].weight.mT)


@mutant("single-precision")
class DeterminantByRunningProducts(Right):
    """log|det| as the log of products of eight pivots, summed in half precision."""

    def log_det(self, layer):
        if layer.weight.dtype == torch.float64:
            return super().log_det(layer)
        pivots = torch.linalg.lu_factor(layer.weight).LU.diag().abs().log()
        total = pivots.new_zeros(())
        for pivot in pivots:
            total = (total + pivot).bfloat16().float()
        return total


@mutant("single-round-trip")
class CoarseInverse(Right):
    """In float32 the inverse stops at steps of 0.01."""

    def deactivate(self, y):
        x = super().deactivate(y)
        return (100 * x).round() / 100 if y.dtype == torch.float32 else x


@mutant("single-round-trip")
class InverseInBrainFloats(Right):
    def to_data(self, z):
        return super().to_data(_bfloat16(z) if z.dtype == torch.float32 else z)


@mutant("single-round-trip", linear="many")
class ManyAlmostSingularLayers(Right):
    """As factors of all ones at the start: nothing is left of float32's digits."""

    def __init__(self, problem):
        super().__init__(problem)
        with torch.no_grad():
            for layer in self.module:
                layer.weight.copy_(
                    torch.ones(self.dimension, self.dimension).triu() @ torch.ones_like(layer.weight).tril()
                )
                layer.weight.copy_(torch.linalg.matrix_power(layer.weight.double(), 3))
                layer.weight.div_(layer.weight.norm())


# Growth.


@mutant("all-parameters", linear="shifted")
class ParametersInAList(Right):
    """An optimiser never sees them, and no state dict holds them."""

    def __init__(self, problem):
        super().__init__(problem)
        self.shifts = [torch.zeros(self.dimension, requires_grad=True)]

    def to_latent(self, x):
        return super().to_latent(x.flatten(1) + self.shifts[0].to(x))

    def to_data(self, z):
        return (super().to_data(z).flatten(1) - self.shifts[0].to(z)).reshape(-1, *self.shape)


@mutant("all-parameters", linear="shifted", meta_device=False)
class ParametersMadeAtTheFirstLoss(Right):
    """The optimiser has its list already."""

    def training_loss(self, x, generator=None):
        if "late" not in dict(self.module.named_parameters()):
            self.module.register_parameter("late", nn.Parameter(x.new_zeros(self.dimension)))
        return super().training_loss(x.flatten(1) + self.module.late)


@mutant("all-parameters")
class ParametersReplacedAtEveryStep(Right):
    def after_step(self):
        for layer in self.module:
            layer.weight = nn.Parameter(layer.weight.detach().clone())


@mutant("all-parameters")
class ABufferAStep(Right):
    def after_step(self):
        count = len(list(self.module.buffers()))
        self.module.register_buffer(f"mean_{count}", torch.zeros(1))


@mutant("steady-steps")
class LossesKept(Right):
    def __init__(self, problem):
        super().__init__(problem)
        self.history = []

    def training_loss(self, x, generator=None):
        loss = super().training_loss(x)
        self.history.append(loss)
        return loss


@mutant("steady-steps")
class RunningTotalWithItsGraph(Right):
    def __init__(self, problem):
        super().__init__(problem)
        self.total = 0.0

    def training_loss(self, x, generator=None):
        loss = super().training_loss(x)
        self.total = self.total + loss
        return loss


@mutant("steady-steps")
class CacheByIdentity(Right):
    def __init__(self, problem):
        super().__init__(problem)
        self.cache = {}

    def to_latent(self, x):
        result = super().to_latent(x)
        self.cache[len(self.cache)] = [part.detach().numpy() if x.device.type == "cpu" else part for part in result]
        return result


@mutant("steady-steps")
class BatchesKept(Right):
    seen = None

    def training_loss(self, x, generator=None):
        self.seen = x if self.seen is None else torch.cat([self.seen, x])
        return super().training_loss(x)


@mutant("steady-steps")
class AHookAStep(Right):
    def training_loss(self, x, generator=None):
        self.module[0].register_forward_hook(lambda module, inputs, output: None)
        return super().training_loss(x)


@mutant("steady-steps")
class AllStepsLookedThrough(Right):
    """The weight of a term is the mean over all steps so far, computed anew at each."""

    def __init__(self, problem):
        super().__init__(problem)
        self.norms = []

    def after_step(self):
        self.norms.append(float(self.module[0].weight.detach().norm()))
        self.mean = sum(norm**2 for norm in self.norms) / len(self.norms)


@mutant("steady-steps")
class SamplesKept(Right):
    def __init__(self, problem):
        super().__init__(problem)
        self.drawn = []

    def to_data(self, z):
        self.drawn.append(super().to_data(z))
        return self.drawn[-1]


@mutant("left-behind")
class LogFileLeftOpen(Right):
    def __init__(self, problem):
        super().__init__(problem)
        _KEPT.append(Path("/dev/null").open("a"))  # noqa: SIM115  left open on purpose
        atexit.register(_KEPT[-1].close)


@mutant("left-behind")
class ThreadLeftRunning(Right):
    def __init__(self, problem):
        super().__init__(problem)
        if problem.device != "meta":
            threading.Thread(target=threading.Event().wait, args=(5,), daemon=True).start()


@mutant("left-behind")
class ProcessLeftRunning(Right):
    def init_batch(self, x):
        _KEPT.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(5)"]))


@mutant("left-behind")
class FilesWritten(Right):
    def after_step(self):
        Path("loss.txt").write_text("0.0")
