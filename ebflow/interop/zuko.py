"""zuko (https://github.com/probabilists/zuko): layers of ours in its flows, and its flows as ours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from zuko import transforms as theirs
from zuko.distributions import DiagNormal
from zuko.lazy import Flow, LazyComposedTransform, LazyTransform, UnconditionalDistribution, UnconditionalTransform

from ebflow.flow import EBFlow
from ebflow.interop.shared import Affine, Factor, Isometry, Matrix, Orthogonal, Product, Triangle, assemble, flatten
from ebflow.layers.base import Layer, Shape, VaryingLayer

__all__ = ["DenseTransform", "LayerTransform", "LazyLayer", "TransformLayer", "from_flow"]


class LayerTransform(Transform):
    """A layer of ours as a transform, data to latent.

    Args:
        layer: A layer whose Jacobian depends on the input, or whose log|det J| is zero.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def _call(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.layer.inverse(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log|det J| in nats, shape (B,)."""
        return self.layer(x)[1]

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and log|det J| in nats, shape (B,), in one pass."""
        return self.layer(x)


class LazyLayer(LazyTransform):
    """A layer of ours as a lazy transform, the kind that zuko's flows are made of.

    Args:
        layer: A layer whose Jacobian depends on the input, or whose log|det J| is zero.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, c: Tensor | None = None) -> LayerTransform:
        """Return the transform; there is no context."""
        return LayerTransform(self.layer)


class DenseTransform(Transform):
    """z = W x + b with any square matrix, which zuko lacks; ``UnconditionalTransform(DenseTransform, W, b)`` trains it.

    Args:
        weight: The matrix W, shape (D, D).
        bias: The vector b, shape (D,).
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def _call(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.linalg.solve(self.weight.mT, y - self.bias, left=False)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log|det W| in nats, of the batch's shape."""
        return torch.linalg.slogdet(self.weight.mT).logabsdet.expand(x.shape[:-1])


class TransformLayer(VaryingLayer):
    """Any transform of theirs as a layer of ours; autograd supplies its derivatives.

    It is built anew at every call: a built one keeps what it computed from parameters that have changed since.

    Args:
        lazy: It keeps the event shape, and takes no context.
    """

    def __init__(self, lazy: LazyTransform) -> None:
        super().__init__()
        self.lazy = lazy

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.lazy().call_and_ladj(x)
        return y, log_det.unsqueeze(-1).flatten(1).sum(1)  # one a component, for an elementwise transform

    def inverse(self, y: Tensor) -> Tensor:
        return self.lazy().inv(y)


def from_flow(flow: Flow | LazyTransform, shape: Shape) -> EBFlow:
    """Return a zuko flow as an `EBFlow` with the same parameters: training one trains the other.

    Unconditional `DenseTransform`, `LULinearTransform`, `RotationTransform` and `PermutationTransform`, and what
    subclasses them without changing the map, count as layers with a constant Jacobian: score matching never computes
    their determinants. Layers of ours are taken out of their wrapper. All others are kept as they are, with derivatives
    by autograd.

    Args:
        flow: It takes no context, and its base is an unconditional `DiagNormal` of zeros and ones, as buffers. Or a
            lazy transform alone, to which N(0, I) is added.
        shape: Event shape of what it takes.

    Raises:
        ValueError: if the base is another one or has another shape.
    """
    if isinstance(flow, LazyTransform):
        return assemble(shape, _view(flow, shape), shape)
    return assemble(shape, _view(flow.transform, shape), _base_shape(flow.base))


def _base_shape(base: torch.nn.Module) -> Shape:
    if isinstance(base, UnconditionalDistribution) and base.f is DiagNormal and not list(base.parameters()):
        given = dict(zip(("loc", "scale"), base.args, strict=False)) | base.kwargs
        loc, scale = given["loc"], given["scale"]
        # On the meta device there are no values to look at.
        if loc.is_meta or not bool(loc.any() or (scale != 1).any()):
            return tuple(loc.shape)
    raise ValueError("the base of the flow must be N(0, I): an unconditional DiagNormal of zeros and ones, as buffers")


def _view(lazy: LazyTransform, shape: Shape) -> list[Layer]:
    match lazy:
        case LazyLayer():
            return [lazy.layer]
        case LazyComposedTransform():
            return flatten(lazy.transforms, shape, _view)
        case UnconditionalTransform():
            built = lazy()
            if isinstance(built, DenseTransform):
                return [Affine(lazy, shape, _factor, _bias)]
            if isinstance(built, _CONSTANT):
                return [Affine(lazy, shape, _factor)]
    return [TransformLayer(lazy)]


def _bias(lazy: UnconditionalTransform) -> Tensor:
    return lazy().bias


_CONSTANT = (theirs.LULinearTransform, theirs.RotationTransform, theirs.PermutationTransform)


def _factor(lazy: UnconditionalTransform) -> Factor:
    built = lazy()
    match built:
        case DenseTransform():
            return Matrix(built.weight)
        case theirs.LULinearTransform():
            return Product(Triangle(built.U, upper=True), Triangle(built.L, upper=False))
        case theirs.RotationTransform():
            return Orthogonal(built.R)
    return Isometry(built, built.inv)
