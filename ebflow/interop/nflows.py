"""nflows (https://github.com/bayesiains/nflows): layers of ours in its flows, and its flows as ours."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from nflows import transforms as theirs
from nflows.distributions.normal import StandardNormal
from nflows.transforms import Transform
from torch import Tensor

from ebflow.flow import EBFlow
from ebflow.interop.shared import (
    Affine,
    Diagonal,
    Factor,
    Isometry,
    Matrix,
    Product,
    Scaling,
    Triangle,
    assemble,
    flatten,
)
from ebflow.layers import Squeeze
from ebflow.layers.base import Layer, Shape, VaryingLayer

if TYPE_CHECKING:
    from nflows.flows import Flow

__all__ = ["LayerTransform", "TransformLayer", "from_flow"]


class LayerTransform(Transform):
    """A varying layer of ours as a transform of an nflows flow, data to latent in `forward` as there.

    Args:
        layer: A layer whose Jacobian depends on the input, or whose log|det J| is zero.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor, context: None = None) -> tuple[Tensor, Tensor]:
        """Return the latent side, and log|det J| in nats, shape (B,)."""
        return self.layer(inputs)

    def inverse(self, inputs: Tensor, context: None = None) -> tuple[Tensor, Tensor]:
        """Return the data side, and log|det| of the inverse in nats, shape (B,)."""
        x = self.layer.inverse(inputs)
        return x, -self.layer(x)[1]


class TransformLayer(VaryingLayer):
    """Any transform of theirs as a layer of ours; autograd supplies its derivatives.

    Args:
        transform: It keeps the event shape, and takes no context.
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform(x)

    def inverse(self, y: Tensor) -> Tensor:
        return self.transform.inverse(y)[0]


def from_flow(flow: Flow, shape: Shape) -> EBFlow:
    """Return an nflows flow as an `EBFlow` with the same parameters: training one trains the other.

    Linear layers, permutations, `ActNorm` and pointwise affine transforms, and what subclasses them without changing
    the map, count as layers with a constant Jacobian: score matching never computes their determinants. Layers of ours
    are taken out of their wrapper. All others are kept as they are, with derivatives by autograd.

    Args:
        flow: A flow whose base is `StandardNormal`, without context.
        shape: Event shape of what it takes.

    Raises:
        ValueError: if the base is another one or has another shape, an `ActNorm` has not seen data yet, or a layer
            mixes samples.
    """
    base = flow._distribution
    if not isinstance(base, StandardNormal):
        raise ValueError(f"the base of the flow must be StandardNormal, not {type(base).__name__}")
    return assemble(shape, _view(flow._transform, shape), base._shape)


def _view(transform: Transform, shape: Shape) -> list[Layer]:
    match transform:
        case LayerTransform():
            return [transform.layer]
        case theirs.CompositeTransform():
            return flatten(transform._transforms, shape, _view)
        case theirs.IdentityTransform():
            return []
        case theirs.BatchNorm():
            raise ValueError("BatchNorm mixes the samples of a batch, so that a sample has no score; use ActNorm")
        case theirs.ActNorm() if not transform.initialized:
            raise ValueError("an ActNorm starts from data: call flow.log_prob on a batch in training mode first")
        case theirs.ActNorm():
            return [Affine(transform, shape, _factor, attrgetter("shift"))]
        case theirs.PointwiseAffineTransform():
            return [Scaling(transform, shape, attrgetter("_scale", "_shift"))]
        case theirs.SqueezeTransform(factor=2):
            return [Squeeze()]
        case theirs.NaiveLinear() | theirs.LULinear() | theirs.QRLinear() | theirs.SVDLinear():
            return [Affine(transform, shape, _factor, attrgetter("bias"))]
        case theirs.HouseholderSequence() | theirs.Permutation(_dim=1):
            return [Affine(transform, shape, _factor)]
    return [TransformLayer(transform)]


def _factor(transform: Transform) -> Factor:
    match transform:
        case theirs.ActNorm():
            return Diagonal(transform.scale)
        case theirs.NaiveLinear():
            return Matrix(transform._weight)
        case theirs.OneByOneConvolution():
            return Product(_factor(transform.permutation), _lower_times_upper(transform))
        case theirs.LULinear():
            return _lower_times_upper(transform)
        case theirs.QRLinear():
            return Product(Triangle(transform._create_upper(), upper=True), _factor(transform.orthogonal))
        case theirs.SVDLinear():
            left, right = _factor(transform.orthogonal_1), _factor(transform.orthogonal_2)
            return Product(right, Diagonal(transform.diagonal), left)
    return Isometry(lambda x: transform(x)[0], lambda y: transform.inverse(y)[0])


def _lower_times_upper(transform: theirs.LULinear) -> Factor:
    lower, upper = transform._create_lower_upper()
    return Product(Triangle(upper, upper=True), Triangle(lower, upper=False))
