"""normflows (https://github.com/VincentStimper/normalizing-flows), trained by maximum likelihood.

normflows maps latent to data in `forward`, so a layer's data-to-latent map is its `inverse`, and lists run from latent
to data. Its `InvertibleAffine` multiplies row vectors (z W) and has no bias; the adapter adds one, so that all methods
fit the same function.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.cost import LayerCost
from harness.method import Method, Model
from harness.problem import Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["METHODS"]


class NormflowsModel(Model):
    """A `NormalizingFlow` of linear layers and activations, flattened to vectors.

    Args:
        problem: What to build for.
        linear: Makes the layers of one linear map, data to latent.
        load: Sets those layers to z = W x + b.
    """

    def __init__(
        self,
        problem: Problem,
        linear: Callable[[], list[nn.Module]],
        load: Callable[[list[nn.Module], Tensor, Tensor], None],
    ) -> None:
        import normflows

        self.shape = problem.shape
        self.load = load
        self.linear_layers = [linear() for _ in range(problem.layers)]
        self.to_latent_order: list[nn.Module] = [*self.linear_layers[0]]
        for layers in self.linear_layers[1:]:
            self.to_latent_order += [_activation(problem), *layers]
        base = normflows.distributions.DiagGaussian(problem.dimension, trainable=False)
        self.module = normflows.NormalizingFlow(base, self.to_latent_order[::-1])

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        # Not forward_kld: it adds the log-determinants in float32 whatever the model's dtype is.
        return -self.module.log_prob(x.flatten(1)).mean()

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = x.flatten(1), x.new_zeros(len(x))
        for layer in self.to_latent_order:
            z, term = layer.inverse(z)
            log_det = log_det + term
        return z, log_det

    def to_data(self, z: Tensor) -> Tensor:
        return self.module.forward(z).view(-1, *self.shape)

    def load_linear_layers(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        import torch

        with torch.no_grad():
            for parts, (weight, bias) in zip(self.linear_layers, layers, strict=True):
                self.load(parts, weight, bias)


def _activation(problem: Problem) -> nn.Module:
    from ebflow.interop.normflows import LayerFlow
    from ebflow.layers import SmoothLeakyReLU

    return LayerFlow(SmoothLeakyReLU(residual=problem.residual))


def _bias(dimension: int) -> nn.Module:
    """The bias that InvertibleAffine lacks; AffineConstFlow would multiply by a scale of one as well."""
    import torch

    from ebflow.interop.normflows import LayerFlow
    from ebflow.layers import Bias

    layer = Bias((dimension,))
    torch.nn.init.ones_(layer.bias)
    return LayerFlow(layer)


def _affine(problem: Problem, use_lu: bool) -> Model:
    import torch
    from normflows.flows import InvertibleAffine

    def load(parts: list[nn.Module], weight: Tensor, bias: Tensor) -> None:
        affine, shift = parts
        shift.layer.bias.copy_(bias)
        if not use_lu:
            affine.W.copy_(weight.mT)
            return
        exchanges, lower, upper = torch.linalg.lu(weight.mT)
        affine.P.copy_(exchanges)
        affine.L.copy_(lower)
        affine.U.copy_(upper.triu(1))
        affine.sign_S.copy_(upper.diag().sign())
        affine.log_S.copy_(upper.diag().abs().log())

    def linear() -> list[nn.Module]:
        return [InvertibleAffine(problem.dimension, use_lu=use_lu), _bias(problem.dimension)]

    with warnings.catch_warnings():
        # Building InvertibleAffine factors a matrix with Tensor.lu.
        warnings.filterwarnings("ignore", "torch.lu is deprecated")
        model = NormflowsModel(problem, linear, load)
    start = -torch.eye(problem.dimension), torch.ones(problem.dimension)
    model.load_linear_layers([start] * problem.layers)
    return model


def _dense(problem: Problem) -> Model:
    return _affine(problem, use_lu=False)


def _lu(problem: Problem) -> Model:
    return _affine(problem, use_lu=True)


def _luperm(problem: Problem) -> Model:
    import torch
    from normflows.flows import LULinearPermute

    def load(parts: list[nn.Module], weight: Tensor, bias: Tensor) -> None:
        (layer,) = parts
        exchanges, lower, upper = torch.linalg.lu(weight)
        if not torch.equal(exchanges, torch.eye(len(weight)).to(weight)) or bool(
            (upper.diag() <= layer.linear.eps).any()
        ):
            raise ValueError("an LU layer takes weights that factor without row exchanges, with a positive diagonal")
        layer.permutation._permutation.copy_(torch.arange(len(weight)))
        layer.linear.lower_entries.copy_(lower[layer.linear.lower_indices])
        layer.linear.upper_entries.copy_(upper[layer.linear.upper_indices])
        layer.linear.unconstrained_upper_diag.copy_(torch.log(torch.expm1(upper.diag() - layer.linear.eps)))
        layer.linear.bias.copy_(bias)

    def linear() -> list[nn.Module]:
        layer = LULinearPermute(problem.dimension)
        torch.nn.init.ones_(layer.linear.bias)
        return [layer]

    return NormflowsModel(problem, linear, load)


METHODS = [
    Method(
        name=f"normflows-{name}-ml",
        objective="ml",
        linear=name,
        build=build,
        requires=("normflows",),
        fc_cost=cost,
        summary=summary,
    )
    # P L U is two products of D x D matrices forward and three back, as full matrices, 2 D^3 flops each.
    for name, build, cost, summary in [
        ("dense", _dense, LayerCost(3, cubic=2), "InvertibleAffine: any matrix, slogdet at every step"),
        ("lu", _lu, LayerCost(3, cubic=10), "InvertibleAffine(use_lu=True): assembles P L U at every step, O(D^3)"),
        (
            "luperm",
            _luperm,
            LayerCost(6),
            "LULinearPermute: a fixed permutation and two triangular factors, no O(D^3) term",
        ),
    ]
]
