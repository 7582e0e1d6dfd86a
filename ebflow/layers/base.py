"""The contract that every layer keeps.

Beside its map and its log-determinant a layer carries derivatives of log p through itself, one method for each of the
sweeps that `ebflow.flow` makes. All of it is ordinary differentiable code: a loss built on derivatives of log p needs a
single backward pass where the layers bring closed forms, and autograd does what they do not.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

__all__ = [
    "ClosedForm",
    "ConstantLayer",
    "ElementwiseLayer",
    "FixedLayer",
    "Layer",
    "Shape",
    "SingularJacobianError",
    "VaryingLayer",
    "WithConstants",
    "require_finite",
    "solve",
    "solve_triangular",
]

Shape = tuple[int, ...]

Pullback = Callable[[Tensor], Tensor]
"""From the score at a layer's output to the score at its input."""

CurvedPullback = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From the score at a layer's output to the score at its input and the layer's share of the curvature."""


class SingularJacobianError(ValueError):
    """A layer is singular or holds a weight that is not finite, so that there is no density and no inverse."""


class Layer(nn.Module, ABC):
    """An invertible map of a batch, from the data's side to the latent's side.

    Shapes are those of one sample (the *event*): ``(D,)`` or ``(C, H, W)``; the batch axis comes first.
    """

    constant_jacobian: ClassVar[bool]
    """Whether J does not depend on the input, so that log|det J| belongs to log Z and not to the energy."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to latent.

        Args:
            x: Data of shape (B, *event).

        Returns:
            The output, and the part of log|det J| (nats) that depends on x: shape (B,), or a scalar zero where the
            Jacobian is constant.
        """

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Map latent to data; the exact inverse of `forward`, shape (B, *event)."""

    def linearize(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """Return the output, and how to carry the score back through the layer.

        The pullback takes the gradient of log p with respect to the output, and returns the gradient with respect to x:
        J^T score + grad log|det J|(x). It may be called once.
        """
        if without_leaves():
            (y, log_det), vjp = torch.func.vjp(self, x)[:2]
            return y, lambda score: vjp((score, torch.ones_like(log_det)))[0]
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            y, log_det = self(x)

        def pullback(score: Tensor) -> Tensor:
            outputs, weights = [y], [score]
            if log_det.requires_grad:  # an additive coupling's is a plain zero
                outputs, weights = [y, log_det], [score, torch.ones_like(log_det)]
            return torch.autograd.grad(outputs, x, weights, create_graph=recording)[0]

        return y if recording else y.detach(), pullback

    def output_shape(self, shape: Shape) -> Shape:
        """Return the event shape after this layer.

        Raises:
            ValueError: if an input of this event shape does not fit.
        """
        return shape

    def constant_layers(self) -> Iterator[ConstantLayer]:
        """Yield the layers with a constant Jacobian that this one is or is made of: their log|det J| is in log Z."""
        yield from ()

    def initialize(self, x: Tensor) -> None:
        """Set the parameters that start from data, given this layer's input; most layers have none."""


class VaryingLayer(Layer):
    """A layer whose Jacobian depends on the input; its log-determinant is a part of the energy."""

    constant_jacobian = False


class ClosedForm(Layer):
    """A layer with closed forms for second derivatives too."""

    @abstractmethod
    def linearize_along(self, x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor, CurvedPullback]:
        """Return the output, J tangent, and how to carry the score and the curvature back.

        The pullback takes the score at the output. It returns the score at x, and this layer's share of the curvature
        of log p along the tangent, shape (B,) or a scalar zero: the second derivative of score . y(x) + log|det J|(x)
        along it, the score held fixed. All shares, less |tangent|^2 at the latent, add up to
        tangent^T (Hessian of log p) tangent.
        """

    @abstractmethod
    def taylor(self, x: Tensor, dx: Tensor, ddx: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Carry a curve through the layer, given by its point, first and second derivative.

        Returns:
            Point, first and second derivative of the output, and the first and second derivative of log|det J|, shape
            (B,), or a scalar zero where the Jacobian is constant.
        """


class ElementwiseLayer(VaryingLayer, ClosedForm):
    """y = f(x), each component by itself, with f increasing.

    With r = (log f')', the chain rule is f'' = r f' and (log f')'' = r'.
    """

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """Return f(x)."""

    @abstractmethod
    def slope(self, x: Tensor) -> Tensor:
        """Return f'(x)."""

    @abstractmethod
    def slope_and_bend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return f'(x) and r(x)."""

    @abstractmethod
    def slope_bend_and_change(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return f'(x), r(x) and r'(x)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(x), self.slope(x).log().flatten(1).sum(1)

    def linearize(self, x: Tensor) -> tuple[Tensor, Pullback]:
        slope, bend = self.slope_and_bend(x)
        return self.value(x), lambda score: score * slope + bend

    def linearize_along(self, x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor, CurvedPullback]:
        slope, bend, change = self.slope_bend_and_change(x)

        def pullback(score: Tensor) -> tuple[Tensor, Tensor]:
            score = score * slope
            curvature = (score * bend + change) * tangent.square()
            return score + bend, curvature.flatten(1).sum(1)

        return self.value(x), slope * tangent, pullback

    def taylor(self, x: Tensor, dx: Tensor, ddx: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        slope, bend, change = self.slope_bend_and_change(x)
        squared = dx.square()
        dlog = (bend * dx).flatten(1).sum(1)
        ddlog = (change * squared + bend * ddx).flatten(1).sum(1)
        return self.value(x), slope * dx, slope * (bend * squared + ddx), dlog, ddlog


class WithConstants(nn.Module):
    """A module whose state dict also holds the constants of its map, so that weights never end up in another map.

    Weights that were saved before the constants were load as ever.
    """

    constants: ClassVar[tuple[str, ...]]
    """The names of the attributes, each a number or a bool, that the map depends on and that are never trained."""

    def get_extra_state(self) -> Tensor:
        """Return the constants, float64, in the order of their names."""
        return torch.tensor([float(getattr(self, name)) for name in self.constants], dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Compare constants that were saved with the module's own.

        Raises:
            ValueError: if a constant differs; the message names it, with both values.
        """
        kept = [float(getattr(self, name)) for name in self.constants]
        if len(kept) != state.numel():
            raise ValueError(f"{type(self).__name__} has {len(kept)} constants, the weights those of another layer")
        rounding = torch.finfo(state.dtype).eps if state.is_floating_point() else 0.0
        for name, own, saved in zip(self.constants, kept, state.tolist(), strict=True):
            if not math.isclose(own, saved, rel_tol=max(1e-6, rounding)):  # a state dict may have been averaged or cast
                raise ValueError(f"{type(self).__name__} has {name} = {own:g}, the weights were made with {saved:g}")

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        try:
            super()._load_from_state_dict(
                state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
            )
        except ValueError as error:
            error_msgs.append(f"{prefix.removesuffix('.') or 'the module'}: {error}")
        if (key := f"{prefix}_extra_state") in missing_keys:
            missing_keys.remove(key)


class ConstantLayer(ClosedForm):
    """A layer whose Jacobian is the same everywhere; training by score matching never needs its determinant."""

    constant_jacobian = True

    @abstractmethod
    def linear(self, x: Tensor) -> Tensor:
        """Return J x, which is the map without its offset, shape (B, *event)."""

    @abstractmethod
    def adjoint(self, g: Tensor) -> Tensor:
        """Return J^T g, from output to input, shape (B, *event)."""

    def offset(self) -> Tensor | float:
        """Return what the map adds to J x; it broadcasts against a batch."""
        return 0.0

    def transform(self, x: Tensor) -> Tensor:
        """Map data to latent, shape (B, *event)."""
        return self.linear(x) + self.offset()

    def linearize(self, x: Tensor) -> tuple[Tensor, Pullback]:
        return self.transform(x), self.adjoint

    def constant_layers(self) -> Iterator[ConstantLayer]:
        yield self

    def linearize_along(self, x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor, CurvedPullback]:
        y, dy = self.linear(torch.cat([x, tangent])).chunk(2)  # one product of 2 B rows, not two of B
        return y + self.offset(), dy, lambda score: (self.adjoint(score), score.new_zeros(()))

    def taylor(self, x: Tensor, dx: Tensor, ddx: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        y, dy, ddy = self.linear(torch.cat([x, dx, ddx])).chunk(3)
        return y + self.offset(), dy, ddy, x.new_zeros(()), x.new_zeros(())

    @abstractmethod
    def log_abs_det(self) -> Tensor:
        """Return log|det J| in nats: a scalar, exact, differentiable; -inf where the layer is singular."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform(x), x.new_zeros(())


class FixedLayer(ConstantLayer):
    """A constant layer with nothing to train, whose log|det J| is a known number.

    Args:
        log_abs_det: The known log|det J|, in nats.
    """

    def __init__(self, log_abs_det: float = 0.0) -> None:
        super().__init__()
        self._value = log_abs_det
        # Follows the module's dtype and device; what it holds is never read.
        self._like: Tensor
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    def log_abs_det(self) -> Tensor:
        return torch.full_like(self._like, self._value)


def without_leaves() -> bool:
    """Return whether no tensor can be made a leaf of autograd here: in inference mode, `torch.func`, `torch.compile`.

    There `torch.func.vjp` differentiates. It would do so everywhere, but takes a tenth more time than autograd.
    """
    return torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or under_torch_func()


def under_torch_func() -> bool:
    """Return whether a transform of `torch.func` is at work, which may hold several values in one tensor."""
    return torch._C._are_functorch_transforms_active()  # torch has no public name for it


def solve(layer: object, matrix: Tensor, y: Tensor) -> Tensor:
    """Return the x, shape (D, N), with A x = y for the square matrix A of a layer.

    Raises:
        SingularJacobianError: if A is singular.
    """
    try:
        return torch.linalg.solve(matrix, y)
    # torch documents this exception and has it at run time, but not in the stubs that mypy reads. Its base class,
    # RuntimeError, would also catch mistakes of shape and dtype, and call them singular.
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # torch documents it; its stubs lack it
        raise no_inverse(layer, matrix) from None


def solve_triangular(layer: object, matrix: Tensor, y: Tensor, *, upper: bool) -> Tensor:
    """Return the x, shape (D, N), with A x = y for the triangular matrix A of a layer.

    Raises:
        SingularJacobianError: if A is singular.
    """
    if not (matrix.is_meta or under_torch_func()) and not bool((matrix.diagonal() != 0).all()):
        raise no_inverse(layer, matrix)
    return torch.linalg.solve_triangular(matrix, y, upper=upper)


def no_inverse(layer: object, matrix: Tensor) -> SingularJacobianError:
    """Return the error of a layer whose matrix, or what it is made of, has no inverse."""
    trouble = "is singular" if bool(matrix.isfinite().all()) else "holds a weight that is not finite"
    return SingularJacobianError(f"{type(layer).__name__} {trouble}, so that it has no inverse")


def require_finite(x: Tensor) -> None:
    """Raise an error that names the first number of some data, shape (N, *event), that is not finite.

    Raises:
        ValueError: if there is one; a meta tensor holds none.
    """
    if x.is_meta or bool(x.isfinite().all()):
        return
    sample, *place = (~x.isfinite()).nonzero()[0].tolist()
    value = float(x[(sample, *place)])
    raise ValueError(f"the data hold {value} at component {', '.join(map(str, place))} of sample {sample}")


def require_shape(layer: nn.Module, shape: Shape, expected: Shape) -> None:
    """Raise the one error that a layer of fixed event shape gives for any other."""
    if tuple(shape) != tuple(expected):
        raise ValueError(f"{type(layer).__name__} takes samples of shape {tuple(expected)}, not {tuple(shape)}")
