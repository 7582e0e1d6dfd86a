"""The flow as an energy-based model: log p(x) = -E(x) - log Z."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from ebflow.layers.base import ClosedForm, ConstantLayer, Layer, Shape, under_torch_func, without_leaves
from ebflow.layers.chain import Chain
from ebflow.noise import normal

__all__ = ["EBFlow", "SingularJacobianError"]


class SingularJacobianError(ValueError):
    """A layer is singular, so that the density does not exist."""


class EBFlow(Chain):
    """A chain of layers from data x to a latent z with base N(0, I), split into an energy and a constant.

    With J_i the Jacobian of layer i, E(x) = -log N(z; 0, I) - sum of log|det J_i| over the layers whose Jacobian varies
    with x, and log Z = -sum over the layers whose Jacobian is constant. The score -grad E needs no determinant of a
    linear layer.

    Args:
        shape: Event shape of the data, without the batch axis.
        layers: The layers of the flow, from data to latent.

    Raises:
        ValueError: if a layer does not fit the shape that reaches it.
    """

    def __init__(self, shape: Shape, layers: Iterable[Layer]) -> None:
        if not shape or math.prod(shape) < 1:
            raise ValueError(f"a flow needs samples of at least one component, not of shape {tuple(shape)}")
        super().__init__(shape, layers)
        self._cached: tuple[list[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to latent.

        Args:
            x: Samples of shape (B, *shape).

        Returns:
            z of shape (B, *latent_shape), and the part of log|det J| (nats) that varies with x, shape (B,).

        Raises:
            ValueError: if the samples have another shape.
        """
        _require_samples(x, self.shape)
        return super().forward(x)

    def inverse(self, z: Tensor) -> Tensor:
        """Map latent, shape (B, *latent_shape), to data, shape (B, *shape).

        Raises:
            ValueError: if the latents have another shape.
        """
        _require_samples(z, self.latent_shape)
        return super().inverse(z)

    def energy(self, x: Tensor) -> Tensor:
        """Return the energy E(x) in nats, shape (B,)."""
        z, varying = self(x)
        squared_norm = z.flatten(1).square().sum(1)
        return 0.5 * squared_norm + 0.5 * math.log(2 * math.pi) * math.prod(self.latent_shape) - varying

    def score(self, x: Tensor) -> Tensor:
        """Return the gradient of log p with respect to x, which is -grad E; shape (B, *shape).

        The score takes one sweep forward and one back, both of them differentiable.
        """
        _require_samples(x, self.shape)
        z, pullback = self.linearize(x)
        return pullback(-z)

    def score_and_curvature(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score, and the curvature v^T (Hessian of log p) v along one direction a sample.

        The direction is pushed forward beside x. On the way back, the score at the output of each layer weighs that
        layer's own second derivative: no Hessian and no second backward pass is needed. A flow with a layer that has no
        closed form differentiates its score instead.

        Args:
            x: Samples of shape (B, *shape).
            v: One direction a sample, in the shape of x.

        Returns:
            The score, shape (B, *shape), and the curvature, shape (B,).
        """
        layers = self._closed_forms()
        if layers is None:
            return self._curvature_by_autograd(x, v)
        _require_samples(x, self.shape)
        pullbacks = []
        for layer in layers:
            x, v, pullback = layer.linearize_along(x, v)
            pullbacks.append(pullback)
        score, curvature = -x, -v.flatten(1).square().sum(1)
        for pullback in reversed(pullbacks):
            score, share = pullback(score)
            curvature = curvature + share
        return score, curvature

    def energy_derivatives(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first and second derivative of E along one direction a sample, by one sweep forward (Taylor mode).

        Args:
            x: Samples of shape (B, *shape).
            v: One direction a sample, in the shape of x.

        Returns:
            v . grad E and v^T (Hessian of E) v, both of shape (B,).
        """
        layers = self._closed_forms()
        if layers is None:
            score, curvature = self._curvature_by_autograd(x, v)
            return -(score * v).flatten(1).sum(1), -curvature
        _require_samples(x, self.shape)
        dx, ddx = v, torch.zeros_like(v)
        first = second = x.new_zeros(len(x))
        for layer in layers:
            x, dx, ddx, dlog, ddlog = layer.taylor(x, dx, ddx)
            first, second = first - dlog, second - ddlog
        x, dx, ddx = x.flatten(1), dx.flatten(1), ddx.flatten(1)
        return first + (x * dx).sum(1), second + (dx.square() + x * ddx).sum(1)

    def _closed_forms(self) -> list[ClosedForm] | None:
        """Return all layers, or None where one of them brings no closed form."""
        layers = [layer for layer in self.layers if isinstance(layer, ClosedForm)]
        return layers if len(layers) == len(self.layers) else None

    def _curvature_by_autograd(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if without_leaves():
            score, vjp = torch.func.vjp(self.score, x)[:2]
            return score, (vjp(v)[0] * v).flatten(1).sum(1)
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            score = self.score(x)
            (change,) = torch.autograd.grad((score * v).sum(), x, create_graph=recording)
        return score if recording else score.detach(), (change * v).flatten(1).sum(1)

    def constant_log_det(self) -> Tensor:
        """Return -log Z, which is log|det J| (nats) of all constant layers: a differentiable scalar, in O(D^3 L)."""
        terms = [layer.log_abs_det() for layer in self.constant_layers()] or [self._zero()]
        # Not stacked: the zero of a layer without weights may lie on another device than the rest.
        return sum(terms[1:], terms[0])

    def log_normalizer(self) -> Tensor:
        """Return log Z in nats, a scalar.

        Where derivatives may be taken (gradients are recorded, a weight has a tangent of forward-mode AD, `torch.func`
        is at work), log Z is computed afresh and differentiable. Elsewhere, as under `torch.no_grad`, it is cached;
        the cache holds a copy of the constant layers' weights and is used only while they are equal to the last bit, so
        that no way of editing a weight (optimisers, `load_state_dict`, `.to`, `.data`) can leave it stale. Version
        counters would not do: `.data` edits and fused optimisers leave them as they are.

        Raises:
            SingularJacobianError: if a layer is singular or holds a weight that is not finite. Under `torch.func`,
                which lets nobody look at values, log Z is infinite or NaN instead.
        """
        if self._is_differentiated():
            return self._checked(-self.constant_log_det())
        weights = [tensor for layer in self.constant_layers() for tensor in layer.state_dict().values()]
        if self._cached is None or not _same(self._cached[0], weights):
            value = self._checked(-self.constant_log_det())
            self._cached = ([weight.clone() for weight in weights], value)
        return self._cached[1].clone()  # a caller may add to it in place

    def _is_differentiated(self) -> bool:
        if under_torch_func():
            return True
        recording = torch.is_grad_enabled()
        tensors = chain(self.parameters(), self.buffers())
        return any((recording and t.requires_grad) or unpack_dual(t).tangent is not None for t in tensors)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) = -E(x) - log Z in nats, shape (B,).

        Raises:
            SingularJacobianError: if a layer is singular or holds a weight that is not finite.
        """
        return -self.energy(x) - self.log_normalizer()

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n samples by the exact inverse, shape (n, *shape)."""
        return self.inverse(normal((n, *self.latent_shape), generator, self._zero()))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set every data-dependent parameter from one batch of shape (B, *shape), layer after layer."""
        _require_samples(x, self.shape)
        super().initialize(x)

    def _zero(self) -> Tensor:
        """Return a scalar zero of the flow's dtype and on its device."""
        # A flow of fixed layers has buffers alone, or nothing at all.
        tensors = (tensor for tensor in chain(self.parameters(), self.buffers()) if tensor.is_floating_point())
        like = next(tensors, None)
        return torch.zeros(()) if like is None else like.new_zeros(())

    def require_regular(self, layer: ConstantLayer, log_abs_det: Tensor, *gradients: Tensor) -> None:
        """Raise an error that names the layer if its log|det J|, of either sign, or the gradient of it is not finite.

        Raises:
            SingularJacobianError: if one is not; a meta tensor holds no value to check.
        """
        # One number that is not finite makes the sum so.
        sums = [tensor.sum() for tensor in (log_abs_det, *gradients) if not tensor.is_meta]
        if all(bool(total.isfinite()) for total in sums):
            return
        name = next(name for name, module in self.named_modules() if module is layer).removeprefix("layers.")
        raise SingularJacobianError(
            f"layer {name} ({type(layer).__name__}) is singular, so log Z is infinite: train from "
            "other weights or with a smaller step"
        )

    def _checked(self, log_normalizer: Tensor) -> Tensor:
        """Return log Z, or name the singular layer; a meta tensor and one of `torch.func` hold no value to check."""
        if log_normalizer.is_meta or under_torch_func() or bool(torch.isfinite(log_normalizer)):
            return log_normalizer
        for layer in self.constant_layers():
            self.require_regular(layer, layer.log_abs_det())
        raise SingularJacobianError("the layers' log-determinants overflow when added up: use float64")


def _same(cached: list[Tensor], weights: list[Tensor]) -> bool:
    """Say whether tensors agree in dtype, device and every bit that matters; NaN and meta tensors never do."""
    return len(cached) == len(weights) and all(
        a.dtype == b.dtype and a.device == b.device and a.shape == b.shape and not a.is_meta and torch.equal(a, b)
        for a, b in zip(cached, weights, strict=True)
    )


def _require_samples(x: Tensor, shape: Shape) -> None:
    if not x.is_floating_point():
        raise ValueError(f"a flow takes samples of a floating-point type, not {x.dtype}: convert them by x.float()")
    if x.shape[1:] != torch.Size(shape):
        raise ValueError(f"expected a batch of shape (B, {', '.join(map(str, shape))}), not {tuple(x.shape)}")
