"""The chain rule of every layer and of whole flows, held against autograd in float64, gradients included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from layer_cases import DOUBLE, LAYERS, Case
from torch import Tensor, nn

from ebflow import DSM, SSM, EBFlow, ExactSM, TaylorSSM, architectures
from ebflow.layers import ClosedForm, Layer, Logit, VaryingLayer

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


CASES = pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS.keys())
CLOSED = {name: case for name, case in LAYERS.items() if isinstance(case.build(), ClosedForm)}
CLOSED_CASES = pytest.mark.parametrize("case", CLOSED.values(), ids=CLOSED.keys())

FLOWS: dict[str, tuple[Callable[[], EBFlow], tuple[int, ...]]] = {
    "fc": (lambda: architectures.fc((5,), 3), (5,)),
    "fc, residual": (lambda: architectures.fc((4,), 2, residual=True), (4,)),
    "cnn": (lambda: architectures.cnn((1, 4, 8), 6), (1, 4, 8)),
    "toy, a mixed flow": (lambda: architectures.toy((3,), 4, width=8), (3,)),
    "glow, nested": (lambda: architectures.glow((1, 4, 4), 2, width=4), (1, 4, 4)),
    "multimodal, lu": (lambda: architectures.multimodal((4,), 3, matrix="lu"), (4,)),
    "raw pixels": (
        lambda: architectures.fc((1, 2, 2), before=architectures.raw_pixels((1, 2, 2), alpha=0.5)),
        (1, 2, 2),
    ),
}
FLOW_CASES = pytest.mark.parametrize(("build", "shape"), FLOWS.values(), ids=FLOWS.keys())


def randomised(module: nn.Module, spread: float = 0.1) -> nn.Module:
    """The module in float64, its parameters moved away from where they start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(spread * torch.randn(parameter.shape))
    return module.to(DOUBLE)


def inputs(module: nn.Module, shape: tuple[int, ...], count: int) -> list[Tensor]:
    """A point inside the module's domain and directions of the same shape."""
    point, *rest = (torch.randn(3, *shape, dtype=DOUBLE) for _ in range(count))
    if isinstance(module, Logit):
        point = torch.sigmoid(point)
    elif isinstance(module, EBFlow) and any(isinstance(layer, Logit) for layer in module.layers):
        point = 256 * torch.sigmoid(point)
    return [point, *rest]


def gradient(scalar: Tensor, of: Tensor) -> Tensor:
    """Differentiable; zero where the scalar does not depend on the tensor."""
    if not scalar.requires_grad:
        return torch.zeros_like(of)
    return torch.autograd.grad(scalar, of, create_graph=True, materialize_grads=True)[0]


def along(function: Callable[[Tensor], Tensor], x: Tensor, dx: Tensor, ddx: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivative of function(x + s dx + s^2 ddx / 2) in s at 0, by reverse mode alone."""
    s = torch.zeros((), dtype=DOUBLE, requires_grad=True)
    y = function(x + s * dx + 0.5 * s * s * ddx)
    flat = y.flatten()
    first = torch.stack([gradient(entry, s) for entry in flat])
    second = torch.stack([gradient(entry, s) for entry in first])
    return first.view_as(y), second.view_as(y)


@CASES
def test_pullback_of_the_score(case: Case) -> None:
    layer = randomised(case.build())
    x, score = inputs(layer, case.shape, 2)
    x.requires_grad_()
    y, log_det = layer(x)
    score = score.reshape(y.shape)
    expected = gradient((y * score).sum() + log_det.expand(len(x)).sum(), x)
    output, pullback = layer.linearize(x)
    torch.testing.assert_close(output, y, **TIGHT)
    torch.testing.assert_close(pullback(score), expected, **TIGHT)


@CLOSED_CASES
def test_tangent_and_curvature(case: Case) -> None:
    layer = randomised(case.build())
    x, tangent, score = inputs(layer, case.shape, 3)
    score = score.reshape(layer(x)[0].shape)

    def weighed(at: Tensor) -> Tensor:
        y, log_det = layer(at)
        return (y * score).flatten(1).sum(1) + log_det

    zero = torch.zeros_like(x)
    y, dy, pullback = layer.linearize_along(x, tangent)
    score_at_x, share = pullback(score)
    torch.testing.assert_close(y, layer(x)[0], **TIGHT)
    torch.testing.assert_close(dy, along(lambda at: layer(at)[0], x, tangent, zero)[0], **TIGHT)
    torch.testing.assert_close(score_at_x, layer.linearize(x)[1](score), **TIGHT)
    torch.testing.assert_close(share.expand(len(x)), along(weighed, x, tangent, zero)[1], **TIGHT)


@CLOSED_CASES
def test_taylor(case: Case) -> None:
    layer = randomised(case.build())
    x, dx, ddx = inputs(layer, case.shape, 3)
    y, dy, ddy, dlog, ddlog = layer.taylor(x, dx, ddx)
    first, second = along(lambda at: layer(at)[0], x, dx, ddx)
    first_log, second_log = along(lambda at: layer(at)[1].expand(len(at)), x, dx, ddx)
    torch.testing.assert_close(y, layer(x)[0], **TIGHT)
    torch.testing.assert_close(dy, first, **TIGHT)
    torch.testing.assert_close(ddy, second, **TIGHT)
    torch.testing.assert_close(dlog.expand(len(x)), first_log, **TIGHT)
    torch.testing.assert_close(ddlog.expand(len(x)), second_log, **TIGHT)


@CASES
def test_closed_form_and_fallback_agree(case: Case) -> None:
    """What a layer brings against what the contract does for a layer that brings nothing."""
    layer = randomised(case.build())
    x, score = inputs(layer, case.shape, 2)
    y, closed = layer.linearize(x)
    z, fallback = _Varying(layer).linearize(x)
    torch.testing.assert_close(y, z, **TIGHT)
    torch.testing.assert_close(closed(score.reshape(y.shape)), fallback(score.reshape(y.shape)), **TIGHT)


class _Varying(VaryingLayer):
    """Another layer behind the bare contract, its closed forms hidden."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.layer(x)
        return y, log_det + 0 * y.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        return self.layer.inverse(y)


@FLOW_CASES
def test_without_closed_forms_a_flow_says_the_same(build, shape) -> None:
    flow = randomised(build(), 0.02)
    hidden = EBFlow(flow.shape, flow.layers)
    hidden.layers = nn.ModuleList(_Varying(layer) for layer in flow.layers)
    x, v = inputs(flow, shape, 2)
    with torch.no_grad():
        torch.testing.assert_close(hidden.score(x), flow.score(x), **TIGHT)
        for ours, theirs in zip(hidden.score_and_curvature(x, v), flow.score_and_curvature(x, v), strict=True):
            torch.testing.assert_close(ours, theirs, **TIGHT)
            assert not ours.requires_grad
        for ours, theirs in zip(hidden.energy_derivatives(x, v), flow.energy_derivatives(x, v), strict=True):
            torch.testing.assert_close(ours, theirs, **TIGHT)


def by_autograd(flow: EBFlow, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Score and curvature from two backward passes through the energy."""
    x = x.detach().requires_grad_()
    score = gradient(-flow.energy(x).sum(), x)
    return score, (gradient((score * v).sum(), x) * v).flatten(1).sum(1)


def gradients(scalar: Tensor, flow: EBFlow) -> list[Tensor]:
    return list(torch.autograd.grad(scalar, list(flow.parameters()), materialize_grads=True, allow_unused=True))


@FLOW_CASES
def test_sweeps_of_whole_flows(build, shape) -> None:
    flow = randomised(build(), 0.02)
    x, v = inputs(flow, shape, 2)
    score, curvature = by_autograd(flow, x, v)
    torch.testing.assert_close(flow.score(x), score, **TIGHT)
    swept_score, swept_curvature = flow.score_and_curvature(x, v)
    torch.testing.assert_close(swept_score, score, **TIGHT)
    torch.testing.assert_close(swept_curvature, curvature, **TIGHT)
    first, second = flow.energy_derivatives(x, v)
    torch.testing.assert_close(first, -(score * v).flatten(1).sum(1), **TIGHT)
    torch.testing.assert_close(second, -curvature, **TIGHT)


@FLOW_CASES
@pytest.mark.parametrize("objective", [DSM(0.3), SSM(), TaylorSSM()], ids=lambda objective: type(objective).__name__)
def test_objectives_and_their_gradients(objective, build, shape) -> None:
    """Each objective, noise and all, against its textbook form written with autograd."""
    flow = randomised(build(), 0.02)
    (x,) = inputs(flow, shape, 1)
    loss = objective(flow, x, torch.Generator().manual_seed(3))

    source = torch.Generator().manual_seed(3)
    if isinstance(objective, DSM):
        noise = torch.randn(x.shape, generator=source, dtype=DOUBLE)
        score, _ = by_autograd(flow, x + 0.3 * noise, noise)
        expected = 0.5 * (score + noise / 0.3).square().sum() / x.numel()
    else:
        signs = torch.randint(0, 2, x.shape, generator=source, dtype=DOUBLE) * 2 - 1
        score, curvature = by_autograd(flow, x, signs)
        squared = score.square() if isinstance(objective, SSM) else (score * signs).flatten(1).sum(1).square()
        expected = (0.5 * squared.sum() + curvature.sum()) / x.numel()

    torch.testing.assert_close(loss, expected, **TIGHT)
    for ours, theirs in zip(gradients(loss, flow), gradients(expected, flow), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("residual", [False, True])
def test_exact_score_matching_has_the_exact_trace(residual: bool) -> None:
    flow = randomised(architectures.fc((2, 2), 2, residual=residual))
    x = torch.randn(3, 2, 2, dtype=DOUBLE)
    loss = ExactSM()(flow, x)
    directions = torch.eye(4, dtype=DOUBLE).view(4, 1, 2, 2)
    score, _ = by_autograd(flow, x, x)
    trace = sum(by_autograd(flow, x, direction.expand_as(x))[1].sum() for direction in directions)
    expected = (0.5 * score.square().sum() + trace) / x.numel()
    torch.testing.assert_close(loss, expected, **TIGHT)
    for ours, theirs in zip(gradients(loss, flow), gradients(expected, flow), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("layers", [1, 3])
def test_exact_score_matching_takes_two_dense_layers(layers: int) -> None:
    with pytest.raises(ValueError, match="two dense layers with an elementwise one between"):
        ExactSM()(architectures.fc((3,), layers), torch.randn(2, 3))


def test_objectives_pass_gradcheck() -> None:
    flow = randomised(architectures.fc((3,), 2))
    x = torch.randn(2, 3, dtype=DOUBLE)
    names, values = zip(*flow.named_parameters(), strict=True)

    for objective in (DSM(0.5), SSM(), TaylorSSM()):

        def loss(*parameters: Tensor, objective=objective) -> Tensor:
            bound = _Bound(flow, dict(zip(names, parameters, strict=True)))
            return objective(bound, x, torch.Generator().manual_seed(0))

        assert torch.autograd.gradcheck(loss, tuple(value.detach().requires_grad_() for value in values))


class _Bound:
    """A flow whose parameters are replaced for the time of a call."""

    def __init__(self, flow: EBFlow, parameters: dict[str, Tensor]) -> None:
        self.flow, self.parameters = flow, parameters

    def __getattr__(self, sweep: str):
        return lambda *arguments: torch.func.functional_call(_Call(self.flow, sweep), self._prefixed(), arguments)

    def _prefixed(self) -> dict[str, Tensor]:
        return {f"flow.{name}": value for name, value in self.parameters.items()}


class _Call(nn.Module):
    """One sweep of a flow as the forward of a module."""

    def __init__(self, flow: EBFlow, sweep: str) -> None:
        super().__init__()
        self.flow, self.sweep = flow, sweep

    def forward(self, *arguments: Tensor):
        return getattr(self.flow, self.sweep)(*arguments)


def test_only_couplings_and_what_may_hold_them_have_no_closed_form() -> None:
    assert LAYERS.keys() - CLOSED.keys() == {"coupling", "coupling, image", "channel coupling", "chain", "split"}


def test_score_records_a_graph_only_where_gradients_are_on() -> None:
    flow = architectures.toy((2,), 3, width=4)
    x = torch.randn(3, 2)
    assert flow.score(x).requires_grad
    with torch.no_grad():
        assert not flow.score(x).requires_grad


def test_score_matching_crosses_the_graph_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed forms need no autograd inside the loss: `backward` is the only pass."""
    passes = []
    real = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: passes.append(1) or real(*a, **k))
    flow, x = architectures.fc((4,)), torch.randn(3, 4)
    for objective in (DSM(0.3), SSM(), TaylorSSM()):
        objective(flow, x).backward()
    assert passes == []
