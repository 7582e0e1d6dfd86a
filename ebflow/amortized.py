"""Maximum likelihood whose log Z is differentiated now and then instead of at every step.

log p(x) = -E(x) - log Z, and log Z depends on the weights alone: there is no data in it and no noise, and it changes
little from step to step. So the gradient of the mean energy is taken fresh at every step, and that of log Z, which
costs O(D^3 L), is kept from an earlier one and refreshed when the weights have moved. Where training comes to rest the
kept gradient is the true one, so the optima are those of maximum likelihood.

For a dense layer the gradient of log|det W| is W^-T. With R the inverse at the last refresh and Delta how far W has
moved since, W^-1 = (I + R Delta)^-1 R, so that the relative error of the kept gradient is at most
|R Delta| / (1 - |R Delta|) in the spectral norm. `docs/amortized.md` has the derivation and the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ebflow.flow import EBFlow
from ebflow.layers.base import ConstantLayer
from ebflow.objectives import Objective, not_compiled, require_no_transform

__all__ = ["AmortizedML"]

_TOLERANCE = 0.05  # chosen by experiment: see docs/amortized.md
_LONGEST = 100  # steps after which a layer is refreshed in any case


@dataclass
class _Kept:
    """What is kept of one constant layer from its last refresh.

    Args:
        parameters: The layer's trained parameters.
        log_z: Its share of log Z, -log|det J|: a scalar.
        gradients: The gradient of it, one tensor a parameter.
        weights: Copies of the parameters; none where nobody looks at the drift.
        sensitivity: Relative change of the gradient for each unit that the weights moved between the last two
            refreshes; infinite before there are two.
        age: Number of steps since.
        next_look: Age at which the drift is looked at next.
        refreshes: Number of refreshes.
    """

    parameters: list[nn.Parameter]
    log_z: Tensor
    gradients: list[Tensor]
    weights: list[Tensor]
    sensitivity: float = math.inf
    age: int = 0
    next_look: int = 1
    refreshes: int = 1

    def is_of(self, parameters: Sequence[nn.Parameter]) -> bool:
        """Say whether this was taken from these very parameters, in their dtype and on their device."""
        return len(parameters) == len(self.parameters) and all(
            now is then and now.dtype == gradient.dtype and now.device == gradient.device
            for now, then, gradient in zip(parameters, self.parameters, self.gradients, strict=True)
        )

    def moved(self) -> float:
        """Return how far the parameters have moved since, in the Euclidean norm."""
        return _distance(self.parameters, self.weights)


class AmortizedML(Objective):
    """Maximum likelihood with the gradient of log Z from its last refresh: mean of E(x) + log Z.

    Every call counts as a training step; the first one refreshes all layers. From then on a layer is refreshed at every
    k-th step, or when its drift asks for it, whichever is given and comes first. The drift is the relative change of
    the gradient of the layer's log-determinant since the refresh. It is predicted from how far the layer's weights have
    moved and from how much the gradient changed for such a move between the last two refreshes. Edits of the weights
    from outside move them too, and are seen at the next look; the older the refresh, the rarer are the looks, and
    after 100 steps a layer is refreshed in any case. An object serves one flow. The loss holds log Z as of the last
    refresh.

    Args:
        every: Number k of steps from one refresh to the next; None for no such period.
        tolerance: Drift at which a layer is refreshed. None stands for 0.05 where no period is given, and else for no
            look at the drift.

    Raises:
        ValueError: if k is below 1, or the tolerance is not above 0.
    """

    def __init__(self, every: int | None = None, tolerance: float | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"log Z can be refreshed at every step or less often, not every {every} steps")
        if tolerance is not None and not tolerance > 0:
            raise ValueError(f"the drift at which log Z is refreshed must be above 0, not {tolerance}")
        self.every = every
        self.tolerance = _TOLERANCE if every is None and tolerance is None else tolerance
        self._kept: list[_Kept] = []
        self._refreshes = True
        self._saved: Mapping[str, Tensor] | None = None

    def __repr__(self) -> str:
        return f"AmortizedML(every={self.every}, tolerance={self.tolerance})"

    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the loss in nats a sample.

        Raises:
            RuntimeError: under `torch.func`.
            SingularJacobianError: if a layer that is refreshed is singular, or its gradient is not finite.
            ValueError: if the state that was set is that of a flow with other layers.
        """
        require_no_transform(self)
        return self._with_log_z(flow, flow.energy(x).mean())

    @not_compiled
    def _with_log_z(self, flow: EBFlow, energy: Tensor) -> Tensor:
        """Count a step, refresh the layers that are due, and add log Z with its kept gradient to a mean energy."""
        if self._refreshes:
            self._refresh(flow)
        parameters = [parameter for kept in self._kept for parameter in kept.parameters]
        gradients = [gradient for kept in self._kept for gradient in kept.gradients]
        log_z = sum((kept.log_z for kept in self._kept), energy.new_zeros(()))
        return energy + _KeptLogZ.apply(log_z, gradients, self._refreshes, *parameters)

    def prepare(self, flow: EBFlow) -> bool:
        """Count a step and refresh the layers that are due, which a call does itself unless it is in `prepared`.

        Raises:
            SingularJacobianError: if a layer that is refreshed is singular, or its gradient is not finite.
        """
        self._refresh(flow)
        return True

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Return a context in which calls count no step and refresh nothing: in it, a step is recorded."""
        self._refreshes = False
        try:
            yield
        finally:
            self._refreshes = True

    def observations(self, flow: EBFlow) -> dict[str, float]:
        """Return how far the last step was from one of exact maximum likelihood, at the price of a refresh.

        Returns:
            ``refreshes``, the number of refreshes so far in the mean over the layers with weights;
            ``log_z_gradient_error``, the relative error of the kept gradient at the weights of now; and
            ``gradient_cosine``, the cosine between the last gradient, which the parameters hold, and what it would have
            been with the gradient of log Z at the weights of now.
        """
        pairs = zip(flow.constant_layers(), self._kept, strict=False)  # before the first step nothing is kept
        layers = [(layer, kept) for layer, kept in pairs if kept.gradients]
        if not layers:
            return {}
        kept = [gradient for _, one in layers for gradient in one.gradients]
        exact = [gradient for layer, _ in layers for gradient in _gradients(layer)[1]]
        error = _distance(kept, exact) / (_distance(exact) or 1.0)
        told = {"refreshes": sum(one.refreshes for _, one in layers) / len(layers), "log_z_gradient_error": error}
        parameters = [parameter for _, one in layers for parameter in one.parameters]
        if all(parameter.grad is not None for parameter in parameters):
            followed = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
            change = torch.cat([(now - then).flatten() for then, now in zip(kept, exact, strict=True)])
            followed, change = followed.double(), change.double()  # a sum of 19 million squares loses digits in float32
            told["gradient_cosine"] = float(torch.cosine_similarity(followed, followed + change, dim=0))
        return told

    def get_state(self) -> dict[str, Tensor]:
        """Return what the next steps depend on, by name: a training that goes on from it takes the same steps."""
        if self._saved is not None:  # no step has been taken since
            return dict(self._saved)
        numbers = [
            (float(kept.log_z), kept.sensitivity, kept.age, kept.next_look, kept.refreshes) for kept in self._kept
        ]
        state = {"layers": torch.tensor(numbers, dtype=torch.float64, device="cpu")}
        for index, kept in enumerate(self._kept):
            state |= {f"gradient.{index}.{number}": tensor for number, tensor in enumerate(kept.gradients)}
            state |= {f"weight.{index}.{number}": tensor for number, tensor in enumerate(kept.weights)}
        return state

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `get_state` returned for a flow of the same layers; the next call raises for another flow."""
        self._kept, self._saved = [], state if len(state["layers"]) else None

    @torch.no_grad()
    def _refresh(self, flow: EBFlow) -> None:
        """Count a step, and refresh the layers that are due."""
        layers = list(flow.constant_layers())
        if self._saved is not None:
            self._kept = _restored(self._saved, layers)
            self._saved = None
        if len(layers) != len(self._kept):
            self._kept = [self._taken(flow, layer) for layer in layers]
            return
        for index, (layer, kept) in enumerate(zip(layers, self._kept, strict=True)):
            kept.age += 1
            if self._is_due(layer, kept):
                self._kept[index] = self._taken(flow, layer, kept)

    def _is_due(self, layer: ConstantLayer, kept: _Kept) -> bool:
        if kept.age >= (self.every or _LONGEST) or not kept.is_of(_trained(layer)):
            return True
        if self.tolerance is None or kept.age < kept.next_look:
            return False
        kept.next_look += max(1, kept.age // 2)
        moved = kept.moved()
        return moved > 0 and moved * kept.sensitivity > self.tolerance

    def _taken(self, flow: EBFlow, layer: ConstantLayer, kept: _Kept | None = None) -> _Kept:
        """Return a layer's share of log Z and its gradient as they are now, in the memory of what was kept before."""
        parameters = _trained(layer)
        log_z, gradients = _gradients(layer)
        flow.require_regular(layer, log_z, *gradients)
        if kept is None or not kept.is_of(parameters):
            weights = [] if self.tolerance is None else [parameter.clone() for parameter in parameters]
            return _Kept(parameters, log_z, gradients, weights, refreshes=1 + (kept.refreshes if kept else 0))
        if kept.weights and (moved := kept.moved()) > 0:
            kept.sensitivity = _distance(gradients, kept.gradients) / moved / (_distance(gradients) or 1.0)
        for then, now in [*zip(kept.gradients, gradients, strict=True), *zip(kept.weights, parameters, strict=False)]:
            then.copy_(now)
        kept.log_z.copy_(log_z)  # in place, like the gradients: a recorded step reads them where they lie
        kept.age, kept.next_look, kept.refreshes = 0, 1, kept.refreshes + 1
        return kept


class _KeptLogZ(torch.autograd.Function):
    """The kept log Z, whose derivative is the kept gradient."""

    @staticmethod
    def forward(ctx: Any, log_z: Tensor, gradients: list[Tensor], looks: bool, *parameters: Tensor) -> Tensor:
        ctx.gradients, ctx.looks = gradients, looks
        return log_z.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_value: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.looks and of_value.device.type == "cpu" and float(of_value) == 1.0:  # as nearly always: one pass less
            return None, None, None, *ctx.gradients
        return None, None, None, *(gradient * of_value for gradient in ctx.gradients)


def _gradients(layer: ConstantLayer) -> tuple[Tensor, list[Tensor]]:
    """Return a layer's share of log Z and the gradient of it, one tensor a trained parameter and in its layout."""
    parameters = _trained(layer)
    with torch.enable_grad():
        log_z = -layer.log_abs_det()
    taken: Sequence[Tensor | None] = [None] * len(parameters)
    if log_z.requires_grad:
        taken = torch.autograd.grad(log_z, parameters, allow_unused=True)
    return log_z.detach(), [_laid_out_like(p, gradient) for p, gradient in zip(parameters, taken, strict=True)]


def _laid_out_like(parameter: Tensor, gradient: Tensor | None) -> Tensor:
    """Return a gradient, or zeros for None, in the memory layout of its parameter: steps add them up in no time."""
    if gradient is None:
        return torch.zeros_like(parameter)
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)


def _restored(state: Mapping[str, Tensor], layers: Sequence[ConstantLayer]) -> list[_Kept]:
    shapes = {
        f"gradient.{index}.{number}": parameter.shape
        for index, layer in enumerate(layers)
        for number, parameter in enumerate(_trained(layer))
    }
    saved = {name: tensor.shape for name, tensor in state.items() if name.startswith("gradient.")}
    if len(state["layers"]) != len(layers) or saved != shapes:
        raise ValueError("the state of amortised maximum likelihood that was set is that of a flow with other layers")
    restored = []
    for index, (layer, numbers) in enumerate(zip(layers, state["layers"].tolist(), strict=True)):
        log_z, sensitivity, *counts = numbers
        parameters = _trained(layer)
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        weights = [torch.zeros_like(parameter) for parameter in parameters] if f"weight.{index}.0" in state else []
        for kind, tensors in (("gradient", gradients), ("weight", weights)):
            for number, tensor in enumerate(tensors):
                tensor.copy_(state[f"{kind}.{index}.{number}"])
        like = parameters[0].detach() if parameters else state["layers"]
        restored.append(_Kept(parameters, like.new_tensor(log_z), gradients, weights, sensitivity, *map(int, counts)))
    return restored


def _trained(layer: ConstantLayer) -> list[nn.Parameter]:
    return [parameter for parameter in layer.parameters() if parameter.requires_grad]


def _distance(tensors: Sequence[Tensor], others: Sequence[Tensor] = ()) -> float:
    """Return the Euclidean distance of some tensors from others, or from zero."""
    if not others:
        return math.hypot(*(float(tensor.norm()) for tensor in tensors))
    return math.hypot(*(float(torch.dist(one, other)) for one, other in zip(tensors, others, strict=True)))
