"""The flow as an energy-based model: log p(x) = -E(x) - log Z."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from ebflow.layers.base import (
    ClosedForm,
    ConstantLayer,
    Layer,
    Shape,
    SingularJacobianError,
    require_finite,
    under_torch_func,
    without_leaves,
)
from ebflow.layers.chain import Chain
from ebflow.noise import normal

__all__ = ["EBFlow", "SingularJacobianError"]

_LOST = 0.01  # standard deviations of a latent, or share of a sample's size: more than rounding may change
_ROWS_THERE_AND_BACK = 16


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

        A RuntimeWarning says where rounding has spoilt the result: the latents of all samples that are returned are
        compared with z, and a few of the samples with what comes back from these latents.

        Raises:
            ValueError: if the latents have another shape.
            SingularJacobianError: if a layer is singular or holds a weight that is not finite.
        """
        self._require_finite_weights()
        x = self.unchecked_inverse(z)
        self._warn_of_lost_digits(z.detach(), x.detach())
        return x

    def unchecked_inverse(self, z: Tensor) -> Tensor:
        """Return the inverse without a look at its digits, at the price of the inverse alone: for training and timing.

        Raises:
            ValueError: if the latents have another shape.
            SingularJacobianError: if a layer is singular.
        """
        _require_samples(z, self.latent_shape)
        try:
            return super().inverse(z)
        except SingularJacobianError:
            for layer in self.constant_layers():
                self.require_regular(layer, layer.log_abs_det())
            raise

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
        self._require_finite_weights()
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
        """Draw n samples by the exact inverse, shape (n, *shape); `inverse` says what is checked.

        Raises:
            SingularJacobianError: if a layer is singular or holds a weight that is not finite.
        """
        return self.inverse(self.draw_latents(n, generator))

    def draw_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n latents from N(0, I), shape (n, *latent_shape), in the dtype and on the device of the flow."""
        return normal((n, *self.latent_shape), generator, self._zero())

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set every data-dependent parameter from one batch of shape (B, *shape), layer after layer.

        Raises:
            ValueError: if the batch has another shape, holds a number that is not finite, or gives a layer no scale.
        """
        _require_samples(x, self.shape)
        require_finite(x)
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
            SingularJacobianError: if one is not, and the message says whether the layer holds a weight that is not
                finite or is singular; a meta tensor holds no value to check.
        """
        # One number that is not finite makes the sum so.
        sums = [tensor.sum() for tensor in (log_abs_det, *gradients) if not tensor.is_meta]
        if all(bool(total.isfinite()) for total in sums):
            return
        self._require_finite_weights()
        name = next(name for name, module in self.named_modules() if module is layer)
        trouble = "is singular, so log Z is infinite: train from other weights or with a smaller step"
        if bool(log_abs_det.isnan()):
            trouble = "has a log-determinant that is not a number, though its weights are finite: use float64"
        raise SingularJacobianError(f"{_named(name, layer)} {trouble}")

    def _require_finite_weights(self) -> None:
        """Raise an error that names the first layer, or the part of one, with a weight that is not finite."""
        if under_torch_func():
            return
        for name, module in self.named_modules():
            # The buffers of other modules are no weights: a mask may well hold an infinity.
            buffers = module.buffers(recurse=False) if isinstance(module, ConstantLayer) else ()
            if not all(_all_finite(weight) for weight in chain(module.parameters(recurse=False), buffers)):
                raise SingularJacobianError(
                    f"{_named(name, module)} holds a weight that is not finite: train from other weights or with a "
                    "smaller step"
                )

    @torch.no_grad()
    def _warn_of_lost_digits(self, z: Tensor, x: Tensor) -> None:
        """Warn if the samples x, of which z are the latents, do not have these latents or are not what they lead to."""
        if z.is_meta or not len(z) or under_torch_func():
            return
        with torch.autocast(x.device.type, enabled=False):
            back = super().forward(x)[0]
            few = back[:_ROWS_THERE_AND_BACK]
            of_latents = float(_change(z, back))
            of_samples = float(_change(x[: len(few)], self.unchecked_inverse(few)))
        if of_latents <= _LOST and of_samples <= _LOST:
            return
        for layer in self.constant_layers():
            self.require_regular(layer, layer.log_abs_det())
        remedy = "convert the flow to float64 by flow.double()"
        if x.dtype == torch.float64:
            remedy = "its layers are too close to singular; train from other weights or with another form of layer"
        warnings.warn(
            f"the inverse has lost its digits in {str(x.dtype).removeprefix('torch.')}: there and back, latents change "
            f"by {of_latents:.2g} standard deviations and samples by {of_samples:.2g} of their size: {remedy}",
            RuntimeWarning,
            stacklevel=4,
        )

    def _checked(self, log_normalizer: Tensor) -> Tensor:
        """Return log Z, or name the singular layer; a meta tensor and one of `torch.func` hold no value to check."""
        if log_normalizer.is_meta or under_torch_func() or bool(torch.isfinite(log_normalizer)):
            return log_normalizer
        for layer in self.constant_layers():
            self.require_regular(layer, layer.log_abs_det())
        raise SingularJacobianError("the layers' log-determinants overflow when added up: use float64")


def _named(name: str, layer: nn.Module) -> str:
    return f"layer {name.removeprefix('layers.')} ({type(layer).__name__})"


def _all_finite(weight: Tensor) -> bool:
    """Say whether all numbers are finite; a meta tensor holds none."""
    # One number that is not finite makes the sum so, and large ones may do it too.
    return weight.is_meta or bool(weight.sum().isfinite()) or bool(weight.isfinite().all())


def _change(before: Tensor, after: Tensor) -> Tensor:
    """Return by how much a sample changes at most, relative to the larger of its largest component and 1: a scalar.

    Samples that are not finite before are left out.
    """
    size = before.flatten(1).abs().amax(1)
    change = (after - before).flatten(1).abs().amax(1) / size.clamp_min(1)
    return torch.where(size.isfinite(), change.nan_to_num(math.inf, math.inf), 0).amax()


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
