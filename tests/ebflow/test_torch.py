"""How flows and objectives live with the rest of torch: compiled, in inference mode, pickled, under torch.func."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from ebflow import (
    DSM,
    FDSSM,
    LCSS,
    ML,
    SML,
    SNL,
    SSM,
    AmortizedML,
    Behind,
    EBFlow,
    ExactSM,
    LowEnergy,
    Objective,
    TaylorSSM,
    architectures,
    langevin,
)

pytestmark = [
    # torch itself compiles its rules for forward mode by what it has deprecated, and looks at .grad where graphs break.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

DOUBLE = torch.float64
FLOWS: dict[str, Callable[[], EBFlow]] = {
    "fc": lambda: architectures.fc((3,)),
    "whitened fc": lambda: architectures.whitened_fc((1, 2, 2)),
    "cnn": lambda: architectures.cnn((1, 8, 8), 3),
    "glow": lambda: architectures.glow((1, 4, 4), 2, width=4),
    "toy": lambda: architectures.toy((2,), 2, width=4),
    "multimodal": lambda: architectures.multimodal((3,), 2),
    "multimodal lu": lambda: architectures.multimodal((3,), 2, matrix="lu"),
    "raw pixels": lambda: architectures.fc((1, 2, 2), before=architectures.raw_pixels((1, 2, 2), levels=8, alpha=1.0)),
}
WITHOUT_MEMORY: list[Objective] = [
    ML(), SML(), SSM(), TaylorSSM(), ExactSM(), DSM(0.3), LCSS(0.3), FDSSM(0.1), Behind(DSM(0.3), 0),
    LowEnergy(DSM(0.3), 0.01),
]  # fmt: skip
each_flow = pytest.mark.parametrize("name", FLOWS)


def built(name: str) -> EBFlow:
    flow = FLOWS[name]().to(DOUBLE)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return flow


def batch(flow: EBFlow, n: int = 4) -> Tensor:
    return 1 + 6 * torch.rand(n, *flow.shape, dtype=DOUBLE)  # inside the range of raw pixels


def source() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def one_log_prob(flow: EBFlow) -> Callable[[Tensor], Tensor]:
    return lambda sample: flow.log_prob(sample[None])[0]


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
class TestCompiled:
    """Traced as ever; only the making of machine code is left out."""

    @pytest.mark.parametrize("objective", [*WITHOUT_MEMORY, SNL(), AmortizedML()], ids=repr)
    def test_a_smaller_last_batch(self, objective: Objective) -> None:
        flow, plain = architectures.fc((2,)), copy.deepcopy(objective)
        compiled = torch.compile(objective, backend="eager")
        for n in (4, 3):
            x = torch.randn(n, 2)
            torch.manual_seed(n)
            loss = compiled(flow, x)
            torch.manual_seed(n)
            torch.testing.assert_close(loss, plain(flow, x))

    def test_couplings(self) -> None:
        flow, objective = FLOWS["toy"](), DSM(0.3)
        compiled = torch.compile(objective, backend="aot_eager")
        x, gradients = torch.randn(4, 2), []
        for loss in (compiled, objective):
            flow.zero_grad()
            loss(flow, x, source()).backward()
            gradients.append([p.grad.clone() for p in flow.parameters() if p.grad is not None])
        torch.testing.assert_close(*gradients)

    def test_drawing_from_the_global_generator(self) -> None:
        flow = architectures.fc((2,), 1)
        for call in (flow.sample, self.iterate):
            compiled = torch.compile(call, backend="eager")
            for n in (4, 3):
                torch.manual_seed(n)
                drawn = compiled(n)
                torch.manual_seed(n)
                torch.testing.assert_close(drawn, call(n))

    @staticmethod
    def iterate(n: int) -> Tensor:
        return next(langevin.chain(torch.neg, torch.ones(n, 2), steps=1, step_size=0.1, log_density=lambda x: x.sum(1)))


@each_flow
def test_inference_mode_changes_nothing(name: str) -> None:
    flow = built(name)
    x, v = batch(flow), torch.randn(4, *flow.shape, dtype=DOUBLE)

    def outputs() -> list[Tensor]:
        return [
            flow.log_prob(x),
            flow.score(x),
            flow.linearize(x)[0],
            *flow.score_and_curvature(x, v),
            *flow.energy_derivatives(x, v),
            flow.inverse(flow(x)[0]),
            flow.sample(2, source()),
            flow.log_normalizer(),
            *langevin.chain(flow.score, x, steps=2, step_size=1e-3, generator=source()),
        ]

    expected = outputs()
    with torch.inference_mode():
        inferred = outputs()
        assert not any(tensor.requires_grad for tensor in inferred)
    torch.testing.assert_close(inferred, [tensor.detach() for tensor in expected])


def test_a_log_normalizer_kept_in_inference_mode_serves_afterwards() -> None:
    flow = built("cnn").requires_grad_(False)
    with torch.inference_mode():
        kept = flow.log_normalizer()
    x = batch(flow).requires_grad_()
    (flow.log_prob(x).sum() + flow.log_normalizer() * x.sum()).backward()
    torch.testing.assert_close(x.grad, flow.score(x).detach() + kept)
    flow.requires_grad_(True)
    ML()(flow, batch(flow)).backward()


@each_flow
def test_pickled_copied_and_saved(name: str) -> None:
    flow = built(name)
    x = batch(flow)
    with torch.no_grad():
        expected = flow.log_prob(x)  # which keeps log Z
    buffer = io.BytesIO()
    torch.save(flow, buffer)
    buffer.seek(0)
    for other in (pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow), torch.load(buffer, weights_only=False)):
        with torch.no_grad():
            assert torch.equal(other.log_prob(x), expected)
            next(other.parameters()).mul_(1.5)
            assert not torch.equal(other.log_prob(x), expected)
    with torch.no_grad():
        assert torch.equal(flow.log_prob(x), expected)


@pytest.mark.parametrize("objective", [*WITHOUT_MEMORY, SNL(draws=2), AmortizedML(every=3)], ids=repr)
def test_a_pickled_objective_goes_on_where_it_was(objective: Objective) -> None:
    flow, objective = architectures.fc((2,)), copy.deepcopy(objective)
    x = torch.randn(4, 2)
    objective(flow, x, source())
    other = pickle.loads(pickle.dumps(objective))
    assert torch.equal(other(flow, x, source()), objective(flow, x, source()))


@each_flow
def test_torch_func_in_the_samples(name: str) -> None:
    flow = built(name)
    x, v = batch(flow), torch.randn(4, *flow.shape, dtype=DOUBLE)
    score, curvature = flow.score_and_curvature(x, v)
    along = (score * v).flatten(1).sum(1)
    torch.testing.assert_close(torch.func.jvp(flow.log_prob, (x,), (v,)), (flow.log_prob(x), along))
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(one_log_prob(flow)))(x), score)
    change = torch.func.jvp(flow.score, (x,), (v,))[1]
    torch.testing.assert_close((change * v).flatten(1).sum(1), curvature)
    torch.testing.assert_close(torch.func.vmap(lambda sample: flow.score(sample[None])[0])(x), score)


@pytest.mark.parametrize("name", [name for name in FLOWS if name != "cnn"])
def test_hessian(name: str) -> None:
    flow = built(name)
    x = batch(flow, 2)
    expected = torch.autograd.functional.hessian(one_log_prob(flow), x[1])
    torch.testing.assert_close(torch.func.vmap(torch.func.hessian(one_log_prob(flow)))(x)[1], expected)
    torch.testing.assert_close(torch.func.jacfwd(lambda sample: flow.score(sample[None])[0])(x[1]), expected)


def test_hessian_of_a_cnn_whose_determinant_takes_steps() -> None:
    flow = architectures.cnn((1, 8, 4), 3).to(DOUBLE)
    x = batch(flow, 1)[0]
    hessian = torch.func.hessian(one_log_prob(flow))(x).flatten(3).flatten(0, 2)
    torch.testing.assert_close(hessian, hessian.mT)
    v = torch.randn_like(x)
    curvature = flow.score_and_curvature(x[None], v[None])[1][0]
    torch.testing.assert_close(v.flatten() @ hessian @ v.flatten(), curvature)


class Loss(nn.Module):
    def __init__(self, flow: EBFlow, objective: Objective) -> None:
        super().__init__()
        self.flow, self.objective = flow, objective

    def forward(self, x: Tensor) -> Tensor:
        return self.objective(self.flow, x, source())


@pytest.mark.parametrize("name", ["fc", "cnn", "toy"])
@pytest.mark.parametrize("objective", [ML(), SSM(), TaylorSSM(), DSM(0.3), LCSS(0.3), FDSSM(0.1)], ids=repr)
def test_torch_func_in_the_weights(name: str, objective: Objective) -> None:
    flow = built(name)
    x, loss = batch(flow), Loss(flow, objective)
    weights = {key: weight.detach() for key, weight in loss.named_parameters()}
    tangents = {key: torch.randn_like(weight) for key, weight in weights.items()}

    def of_weights(weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(loss, weights, (x,))

    loss(x).backward()
    expected = {key: weight.grad for key, weight in loss.named_parameters()}
    gradient = torch.func.grad(of_weights)(weights)
    torch.testing.assert_close(gradient, expected)
    along = sum((gradient[key] * tangents[key]).sum() for key in weights)
    torch.testing.assert_close(torch.func.jvp(of_weights, (weights,), (tangents,))[1], along)


def test_forward_mode_never_meets_a_kept_log_normalizer() -> None:
    flow = built("fc").requires_grad_(False)
    weight, tangent = flow.layers[0].weight, torch.randn(3, 3, dtype=DOUBLE)
    expected = -(torch.linalg.inv(weight).mT * tangent).sum()
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        for factor in (1, -2):
            flow.log_normalizer()
            dual = torch.autograd.forward_ad.make_dual(weight.detach(), factor * tangent)
            log_z = torch.func.functional_call(_LogZ(flow), {"flow.layers.0.weight": dual}, ())
            torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(log_z).tangent, factor * expected)


class _LogZ(nn.Module):
    def __init__(self, flow: EBFlow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self) -> Tensor:
        return self.flow.log_normalizer()


@each_flow
def test_an_ensemble_by_vmap(name: str) -> None:
    members = [Loss(built(name), ML()) for _ in range(2)]
    parameters, buffers = torch.func.stack_module_state(members)
    x = batch(members[0].flow)
    losses = torch.func.vmap(lambda *state: torch.func.functional_call(members[0], state, (x,)))(parameters, buffers)
    torch.testing.assert_close(losses, torch.stack([member(x) for member in members]))
    with torch.no_grad():
        densities = torch.func.vmap(lambda *state: torch.func.functional_call(_LogZ(members[0].flow), state, ()))
        log_z = densities(parameters, buffers)
    torch.testing.assert_close(log_z, torch.stack([member.flow.log_normalizer() for member in members]).detach())


@pytest.mark.parametrize("objective", [SNL(), AmortizedML(), LowEnergy(SNL(), 0.1)], ids=repr)
def test_an_objective_with_a_memory_refuses_torch_func(objective: Objective) -> None:
    loss = Loss(architectures.fc((2,)), objective)
    weights = {key: weight.detach() for key, weight in loss.named_parameters()}
    with pytest.raises(RuntimeError, match=r"remembers its earlier steps.*backward\(\)"):
        torch.func.grad(lambda weights: torch.func.functional_call(loss, weights, (torch.randn(4, 2),)))(weights)
    assert not any(map(len, (getattr(objective, "_state", ()), getattr(objective, "_kept", ()))))


@each_flow
def test_the_default_dtype_is_not_the_flow_s(name: str) -> None:
    flow = FLOWS[name]()
    x = batch(flow).float()
    torch.set_default_dtype(DOUBLE)
    try:
        tensors = [flow.log_prob(x), ML()(flow, x), AmortizedML()(flow, x), SNL()(flow, x), flow.sample(2)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_samples_that_are_no_real_numbers_are_refused(dtype: torch.dtype) -> None:
    flow, x = architectures.glow((1, 4, 4), 2, width=4), torch.ones(2, 1, 4, 4, dtype=dtype)
    calls = [flow.log_prob, flow.score, flow.inverse, flow.initialize, lambda x: DSM(0.3)(flow, x)]
    for call in calls:
        with pytest.raises(ValueError, match=rf"floating-point type, not {dtype}"):
            call(x if call != flow.inverse else x.flatten(1))


@pytest.mark.parametrize("layout", ["strided", "transposed", "channels last", "expanded"])
def test_the_layout_of_a_batch_does_not_matter(layout: str) -> None:
    flow = architectures.cnn((2, 4, 4), 3).to(DOUBLE)
    x = batch(flow, 1).expand(4, -1, -1, -1) if layout == "expanded" else batch(flow)
    laid_out = {
        "strided": torch.stack([x, -x], -1)[..., 0],
        "transposed": x.mT.contiguous().mT,
        "channels last": x.to(memory_format=torch.channels_last),
        "expanded": x,
    }[layout]
    assert layout == "expanded" or not laid_out.is_contiguous()
    for call in (flow.log_prob, flow.score, lambda x: DSM(0.3)(flow, x, source())):
        torch.testing.assert_close(call(laid_out), call(x.contiguous()))


def test_a_second_backward_goes_through_density_and_score() -> None:
    flow = built("toy")
    x = batch(flow).requires_grad_()
    (gradient,) = torch.autograd.grad(flow.log_prob(x).sum(), x, create_graph=True)
    squares = [score.square().sum() for score in (gradient, flow.score(x))]
    torch.testing.assert_close(*(torch.autograd.grad(square, x)[0] for square in squares))
    assert math.isfinite(float(squares[0].detach()))


@pytest.mark.parametrize("name", ["fc", "whitened fc", "toy", "multimodal"])
def test_an_exported_flow_takes_batches_of_any_size(name: str) -> None:
    flow = built(name)
    exported = torch.export.export(flow, (batch(flow),), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    x = batch(flow, 7)
    torch.testing.assert_close(exported(x), flow(x))
