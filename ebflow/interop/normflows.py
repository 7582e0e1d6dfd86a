"""normflows (https://github.com/VincentStimper/normalizing-flows): layers of ours in its flows, and its flows as ours.

Its `forward` maps latent to data, so a layer's data-to-latent map is `inverse` there.
"""

from __future__ import annotations

from operator import attrgetter

import torch
from normflows import NormalizingFlow
from normflows import flows as theirs
from normflows.distributions import DiagGaussian
from normflows.flows import Flow
from torch import Tensor

from ebflow.flow import EBFlow
from ebflow.interop.shared import (
    Affine,
    Factor,
    Isometry,
    Matrix,
    Orthogonal,
    Product,
    Scaling,
    Triangle,
    assemble,
    flatten,
)
from ebflow.layers import Squeeze
from ebflow.layers.base import Layer, Shape, VaryingLayer

__all__ = ["FlowLayer", "LayerFlow", "from_flow"]


class LayerFlow(Flow):
    """A varying layer of ours as a layer of a normflows flow.

    Args:
        layer: A layer whose Jacobian depends on the input, or whose log|det J| is zero.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the data side, and log|det| of the way there in nats, shape (B,)."""
        x = self.layer.inverse(z)
        return x, -self.layer(x)[1]

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent side, and log|det J| in nats, shape (B,)."""
        return self.layer(z)


class FlowLayer(VaryingLayer):
    """Any layer of theirs as one of ours; autograd supplies its derivatives.

    Args:
        flow: It keeps the event shape, and takes no context.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.flow.inverse(x)
        return y, x.new_zeros(len(x)) + log_det  # theirs may be a number, a scalar, or in float32

    def inverse(self, y: Tensor) -> Tensor:
        return self.flow.forward(y)[0]


def from_flow(flow: NormalizingFlow, shape: Shape) -> EBFlow:
    """Return a normflows flow as an `EBFlow` with the same parameters: training one trains the other.

    `InvertibleAffine`, `Invertible1x1Conv`, `LULinearPermute`, `Permute`, `AffineConstFlow` and `ActNorm`, and what
    subclasses them without changing the map, count as layers with a constant Jacobian: score matching never computes
    their determinants, nor products of their factors. Layers of ours are taken out of their wrapper. All others are
    kept as they are, with derivatives by autograd.

    Args:
        flow: A flow whose base is ``DiagGaussian(..., trainable=False)`` as it is built, without context.
        shape: Event shape of what it takes.

    Raises:
        ValueError: if the base is another one or has another shape, an `ActNorm` has not seen data yet, or a layer does
            not take tensors.
    """
    base = flow.q0
    if not _is_standard_normal(base):
        raise ValueError("the base of the flow must be N(0, I): DiagGaussian(shape, trainable=False)")
    return assemble(shape, flatten(reversed(flow.flows), shape, _view), base.shape)


def _is_standard_normal(base: torch.nn.Module) -> bool:
    if not isinstance(base, DiagGaussian) or base.temperature is not None or list(base.parameters()):
        return False
    # On the meta device there are no values to look at.
    return base.loc.is_meta or not bool(base.loc.any() or base.log_scale.any())


def _view(flow: Flow, shape: Shape) -> list[Layer]:
    match flow:
        case LayerFlow():
            return [flow.layer]
        case theirs.Composite():
            return flatten(reversed(flow._flows), shape, _view)
        case theirs.GlowBlock():
            return flatten(reversed(flow.flows), shape, _view)
        case theirs.Split():  # Merge is one too
            raise ValueError(f"{type(flow).__name__} gives or takes lists of tensors: use AffineCouplingBlock")
        case theirs.ActNorm() if not flow.data_dep_init_done:
            raise ValueError("an ActNorm starts from data: call flow.log_prob on a batch first")
        case theirs.AffineConstFlow():
            return [Scaling(flow, shape, _scale_and_shift)]
        case theirs.Squeeze():
            return [Squeeze()]
        case theirs.LULinearPermute():
            return [Affine(flow, shape, _factor, attrgetter("linear.bias"))]
        case theirs.InvertibleAffine() | theirs.Invertible1x1Conv() | theirs.Permute():
            return [Affine(flow, shape, _factor)]
    return [FlowLayer(flow)]


def _scale_and_shift(flow: theirs.AffineConstFlow) -> tuple[Tensor, Tensor]:
    scale = torch.exp(-flow.s)
    return scale, -flow.t * scale


def _factor(flow: Flow) -> Factor:
    match flow:
        case theirs.InvertibleAffine(use_lu=False):
            return Matrix(flow.W.mT)  # row vectors times W
        case theirs.InvertibleAffine():
            exchanges, lower, upper = _exchanges_lower_upper(flow)
            return Product(Orthogonal(exchanges.mT), Triangle(lower.mT, upper=True), Triangle(upper.mT, upper=False))
        case theirs.Invertible1x1Conv(use_lu=False):
            return Matrix(flow.W)
        case theirs.Invertible1x1Conv():
            exchanges, lower, upper = _exchanges_lower_upper(flow)
            return Product(Triangle(upper, upper=True), Triangle(lower, upper=False), Orthogonal(exchanges))
        case theirs.LULinearPermute():
            permutation = flow.permutation
            lower, upper = flow.linear._create_lower_upper()
            return Product(
                Isometry(lambda x: permutation(x)[0], lambda y: permutation.inverse(y)[0]),
                Triangle(upper, upper=True),
                Triangle(lower, upper=False),
            )
    return Isometry(lambda x: flow.inverse(x)[0], lambda y: flow.forward(y)[0])


def _exchanges_lower_upper(flow: theirs.InvertibleAffine | theirs.Invertible1x1Conv) -> tuple[Tensor, Tensor, Tensor]:
    lower = flow.L.tril(-1) + flow.eye
    upper = flow.U.triu(1) + torch.diag(flow.sign_S * flow.log_S.exp())
    return flow.P, lower, upper
