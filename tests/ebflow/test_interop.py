"""Flows of other libraries seen as EBFlows: the same parameters, the same density, no determinant in training."""

from __future__ import annotations

import copy
import inspect
import io
import math
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import normflows
import pytest
import torch
from nflows import transforms as nt
from nflows.distributions import StandardNormal
from nflows.distributions.normal import ConditionalDiagonalNormal
from nflows.flows import Flow
from normflows import flows as nf
from torch import Tensor, nn

import ebflow.interop
from ebflow import DSM, ML, SSM, AmortizedML, EBFlow
from ebflow.interop.shared import Affine, Scaling
from ebflow.layers import Bias, ClosedForm, ConstantLayer, Dense, SmoothLeakyReLU, Squeeze

DOUBLE = torch.float64
D = 5


@pytest.fixture(autouse=True, scope="module")
def _zuko_leaves_torch_as_it_was() -> None:
    # Importing zuko switches off the checks of torch's distributions, for all other tests as well.
    distribution = torch.distributions.Distribution
    checks, constraints = distribution._validate_args, distribution.__dict__["arg_constraints"]
    import_module("zuko")
    distribution._validate_args, distribution.arg_constraints = checks, constraints


def interop(library: str) -> ModuleType:
    # zuko's is not imported while tests are collected: see the fixture.
    return import_module(f"ebflow.interop.{library}")


def quietly(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a layer whose library calls functions that torch has deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.(lu|qr) is deprecated")
        return build()


@dataclass(frozen=True)
class Case:
    """A flow of one layer between two bends of ours, and the library's own log-density."""

    library: str
    layer: Callable[[], nn.Module]
    shape: tuple[int, ...] = (D,)
    inverse: bool = True  # whether the library's own works

    def flow(self) -> nn.Module:
        bends = [SmoothLeakyReLU(0.5), SmoothLeakyReLU(0.4)]
        if self.library == "nflows":
            wrap = interop("nflows").LayerTransform
            chain = nt.CompositeTransform([wrap(bends[0]), nt.CompositeTransform([self.layer()]), wrap(bends[1])])
            return Flow(chain, StandardNormal(self.shape))
        if self.library == "normflows":
            wrap = interop("normflows").LayerFlow
            base = normflows.distributions.DiagGaussian(self.shape, trainable=False)
            return normflows.NormalizingFlow(base, [wrap(bends[1]), self.layer(), wrap(bends[0])])
        import zuko

        wrap = interop("zuko").LazyLayer
        lazy = [wrap(bends[0]), self.layer(), wrap(bends[1])]
        return zuko.lazy.Flow(lazy, unit_normal(*self.shape))

    def view(self, flow: nn.Module) -> EBFlow:
        return interop(self.library).from_flow(flow, self.shape)

    def batch(self, n: int = 7) -> Tensor:
        return torch.randn(n, *self.shape, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


def unit_normal(*shape: int, buffer: bool = True, scale: float = 1.0) -> nn.Module:
    import zuko

    return zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(shape), scale=torch.full(shape, scale), buffer=buffer
    )


def unconditional(name: str, *tensors: Tensor, buffer: bool = False) -> nn.Module:
    import zuko

    known = {**vars(zuko.transforms), "DenseTransform": interop("zuko").DenseTransform}
    return zuko.lazy.UnconditionalTransform(known[name], *tensors, buffer=buffer)


def started(layer: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Let an ActNorm see data."""
    x = 1 + 2 * torch.randn(20, *shape)
    layer.inverse(x) if isinstance(layer, nf.Flow) else layer(x)
    return layer


def permuted() -> Tensor:
    return torch.tensor([2, 0, 4, 1, 3])


class Mended(nt.NaiveLinear):
    """As an adapter subclasses it."""

    def inverse_no_cache(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


IMAGE = (2, 3, 4)
CONSTANT = {
    "nflows NaiveLinear": Case("nflows", lambda: quietly(lambda: nt.NaiveLinear(D)), inverse=False),
    "nflows NaiveLinear, mended": Case("nflows", lambda: Mended(D, orthogonal_initialization=False), inverse=False),
    "nflows LULinear": Case("nflows", lambda: nt.LULinear(D), inverse=False),
    "nflows QRLinear": Case("nflows", lambda: nt.QRLinear(D, 3), inverse=False),
    "nflows SVDLinear": Case("nflows", lambda: nt.SVDLinear(D, 4)),
    "nflows HouseholderSequence": Case("nflows", lambda: nt.HouseholderSequence(D, 3)),
    "nflows Permutation": Case("nflows", lambda: nt.Permutation(permuted())),
    "nflows RandomPermutation": Case("nflows", lambda: nt.RandomPermutation(D)),
    "nflows ReversePermutation, image": Case("nflows", lambda: nt.ReversePermutation(2), IMAGE),
    "nflows ActNorm": Case("nflows", lambda: started(nt.ActNorm(D), (D,))),
    "nflows ActNorm, image": Case("nflows", lambda: started(nt.ActNorm(2), IMAGE), IMAGE),
    "nflows affine": Case("nflows", lambda: nt.PointwiseAffineTransform(torch.randn(D), torch.rand(D) + 0.5)),
    "nflows affine, scalars": Case("nflows", lambda: nt.PointwiseAffineTransform(0.3, 2.5), IMAGE),
    "nflows OneByOneConvolution": Case("nflows", lambda: nt.OneByOneConvolution(2), IMAGE, inverse=False),
    "normflows InvertibleAffine": Case("normflows", lambda: nf.InvertibleAffine(D, use_lu=False)),
    "normflows InvertibleAffine, LU": Case("normflows", lambda: quietly(lambda: nf.InvertibleAffine(D))),
    "normflows LULinearPermute": Case("normflows", lambda: nf.LULinearPermute(D), inverse=False),
    "normflows Permute, shuffle": Case("normflows", lambda: nf.Permute(D)),
    "normflows Permute, swap": Case("normflows", lambda: nf.Permute(D, mode="swap")),
    "normflows AffineConstFlow": Case("normflows", lambda: nf.AffineConstFlow(D)),
    "normflows AffineConstFlow, shift": Case("normflows", lambda: nf.AffineConstFlow((D,), scale=False)),
    "normflows AffineConstFlow, image": Case("normflows", lambda: nf.AffineConstFlow((2, 1, 4)), IMAGE),
    "normflows ActNorm": Case("normflows", lambda: started(nf.ActNorm((D,)), (D,))),
    "normflows ActNorm, image": Case("normflows", lambda: started(nf.ActNorm((2, 1, 1)), IMAGE), IMAGE),
    "normflows Invertible1x1Conv": Case("normflows", lambda: nf.Invertible1x1Conv(2), IMAGE),
    "normflows Invertible1x1Conv, LU": Case(
        "normflows", lambda: quietly(lambda: nf.Invertible1x1Conv(2, use_lu=True)), IMAGE
    ),
    "zuko DenseTransform": Case(
        "zuko", lambda: unconditional("DenseTransform", torch.eye(D) + 0.3 * torch.randn(D, D), torch.randn(D))
    ),
    "zuko LULinearTransform": Case("zuko", lambda: unconditional("LULinearTransform", torch.randn(D, D))),
    "zuko RotationTransform": Case("zuko", lambda: unconditional("RotationTransform", torch.randn(D, D))),
    "zuko PermutationTransform": Case("zuko", lambda: unconditional("PermutationTransform", permuted(), buffer=True)),
}
WITH_SIGN = {
    "nflows NaiveLinear": "_weight",
    "normflows InvertibleAffine": "W",
    "normflows InvertibleAffine, LU": "sign_S",
    "normflows Invertible1x1Conv": "W",
    "zuko DenseTransform": "_0",
    "zuko LULinearTransform": "_0",
}
every_constant = pytest.mark.parametrize("case", CONSTANT.values(), ids=CONSTANT.keys())


def net(inputs: int, outputs: int) -> nn.Module:
    """What couplings call with the halves of their input."""
    from nflows.nn.nets import ResidualNet

    return ResidualNet(inputs, outputs, hidden_features=8, num_blocks=1, activation=torch.tanh)


def coupled(kind: str, features: int = D) -> nn.Module:
    mask = [1 if i % 2 else -1 for i in range(features)]
    spline = {"num_bins": 4, "tails": "linear", "tail_bound": 4.0} if "Spline" in kind or "Quad" in kind else {}
    return getattr(nt, kind)(mask, net, **spline)


def masked_coupling() -> nn.Module:
    scale, shift = (nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, D)) for _ in range(2))
    return nf.MaskedAffineFlow(torch.tensor([1.0, 0, 1, 0, 1]), shift, scale)


def zuko_layer(kind: str) -> nn.Module:
    import zuko

    if kind == "coupling":
        return zuko.flows.coupling.GeneralCouplingTransform(D, hidden_features=[8], activation=nn.Tanh)
    if kind == "autoregressive":
        return zuko.flows.MaskedAutoregressiveTransform(D, hidden_features=[8], activation=nn.Tanh)
    return zuko.flows.gaussianization.ElementWiseTransform(D)


VARYING = {
    "nflows affine coupling": Case("nflows", lambda: coupled("AffineCouplingTransform")),
    "nflows additive coupling": Case("nflows", lambda: coupled("AdditiveCouplingTransform")),
    "nflows spline coupling": Case("nflows", lambda: coupled("PiecewiseRationalQuadraticCouplingTransform")),
    "nflows inverse": Case("nflows", lambda: nt.InverseTransform(nt.HouseholderSequence(D, 2))),
    "nflows permutation of columns": Case("nflows", lambda: nt.Permutation(torch.tensor([2, 0, 1]), dim=2), IMAGE),
    "nflows autoregressive": Case(
        "nflows", lambda: nt.MaskedAffineAutoregressiveTransform(D, 8, activation=torch.tanh)
    ),
    "normflows coupling": Case("normflows", masked_coupling),
    "normflows reversed": Case("normflows", lambda: nf.Reverse(nf.InvertibleAffine(D, use_lu=False))),
    "zuko coupling": Case("zuko", lambda: zuko_layer("coupling")),
    "zuko autoregressive": Case("zuko", lambda: zuko_layer("autoregressive")),
    "zuko elementwise": Case("zuko", lambda: zuko_layer("elementwise")),
}
every_layer = pytest.mark.parametrize("case", [*CONSTANT.values(), *VARYING.values()], ids=[*CONSTANT, *VARYING])


def random_flow(case: Case, randomise, seed: int = 0) -> nn.Module:
    """Parameters moved far from where they start, in float64."""
    return randomise(quietly(case.flow), seed)


def own_log_prob(case: Case, flow: nn.Module, x: Tensor) -> Tensor:
    if case.library != "zuko":
        return flow.log_prob(x)
    # What its flow() would do, but that checks its arguments: see the fixture.
    z, log_det = flow.transform().call_and_ladj(x)
    return log_det - 0.5 * z.square().sum(1) - 0.5 * math.log(2 * math.pi) * z.shape[1]


def bits(flow: nn.Module) -> list[tuple[str, int]]:
    return [(name, parameter.data_ptr()) for name, parameter in flow.named_parameters()]


@every_layer
def test_log_prob_is_the_librarys(case: Case, randomise) -> None:
    flow = random_flow(case, randomise)
    view, x = case.view(flow), case.batch()
    torch.testing.assert_close(view.log_prob(x), own_log_prob(case, flow, x), rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(view.log_prob(x), own_log_prob(case, flow, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", WITH_SIGN)
def test_log_prob_with_a_negative_determinant(name: str, randomise) -> None:
    case = CONSTANT[name]
    flow = random_flow(case, randomise)
    signs = set()
    for flip in (False, True):
        if flip:
            tensor = {n.rsplit(".", 1)[-1]: t for n, t in [*flow.named_buffers(), *flow.named_parameters()]}[
                WITH_SIGN[name]
            ]
            with torch.no_grad():
                tensor[0].neg_()  # the row of a matrix; of zuko's factors, that of L
        view, x = case.view(flow), case.batch()
        jacobian = torch.func.jacrev(lambda one, view=view: view(one[None])[0].flatten())(x[0])
        signs.add(torch.linalg.slogdet(jacobian.reshape(x[0].numel(), -1)).sign.item())
        torch.testing.assert_close(view.log_prob(x), own_log_prob(case, flow, x), rtol=1e-10, atol=1e-10)
    assert len(signs) == 2 or math.prod(case.shape[1:]) % 2 == 0


@every_layer
def test_score_is_the_gradient_of_the_librarys_log_prob(case: Case, randomise) -> None:
    flow = random_flow(case, randomise)
    x = case.batch().requires_grad_()
    (truth,) = torch.autograd.grad(own_log_prob(case, flow, x).sum(), x)
    torch.testing.assert_close(case.view(flow).score(x.detach()), truth, rtol=1e-10, atol=1e-10)


@every_layer
def test_curvature_is_the_second_derivative(case: Case, randomise) -> None:
    flow = random_flow(case, randomise)
    x, v = case.batch().requires_grad_(), case.batch(7).roll(1, 0)
    (score,) = torch.autograd.grad(own_log_prob(case, flow, x).sum(), x, create_graph=True)
    (change,) = torch.autograd.grad((score * v).sum(), x)
    view, x = case.view(flow), x.detach()
    truth = (change * v).flatten(1).sum(1)
    torch.testing.assert_close(view.score_and_curvature(x, v)[1], truth, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(view.energy_derivatives(x, v)[1], -truth, rtol=1e-9, atol=1e-9)


@every_layer
def test_inverse_undoes_the_map(case: Case, randomise) -> None:
    flow = random_flow(case, randomise)
    view, x = case.view(flow.eval()), case.batch()
    torch.testing.assert_close(view.inverse(view(x)[0]), x, rtol=1e-7, atol=1e-7)
    assert view.sample(3).shape == (3, *case.shape)


@pytest.mark.parametrize(
    "case", [c for c in CONSTANT.values() if c.inverse], ids=[n for n, c in CONSTANT.items() if c.inverse]
)
def test_inverse_is_the_librarys(case: Case, randomise) -> None:
    flow = random_flow(case, randomise)
    z = case.batch()
    if case.library == "zuko":
        theirs = flow.transform().inv(z)
    else:
        theirs = flow(z) if case.library == "normflows" else flow._transform.inverse(z)[0]
    torch.testing.assert_close(case.view(flow).inverse(z), theirs, rtol=1e-8, atol=1e-8)


@every_constant
def test_constant_layers_are_recognised_and_closed(case: Case) -> None:
    view = case.view(quietly(case.flow))
    assert all(isinstance(layer, ClosedForm) for layer in view.layers)
    assert len(view.layers) >= 3
    between = view.layers[1:-1]
    assert all(isinstance(layer, ConstantLayer) for layer in between)


@every_constant
def test_training_needs_no_determinant(case: Case, request, randomise, linear_algebra) -> None:
    flow = random_flow(case, randomise)
    view, x = case.view(flow), case.batch()
    with linear_algebra:
        loss = DSM(0.3)(view, x) + SSM()(view, x)
        if list(flow.parameters()):
            loss.backward()
    expected = {"linalg_matrix_exp"} if "Rotation" in request.node.name else set()  # how zuko makes a rotation at all
    assert set(linear_algebra.calls) == expected
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


@every_layer
def test_parameters_are_shared(case: Case, randomise) -> None:
    flow = quietly(case.flow)
    view = case.view(flow)
    assert {pointer for _, pointer in bits(view)} == {pointer for _, pointer in bits(flow)}
    flow.double()  # the view, made before, follows
    x = case.batch()
    flow.load_state_dict(random_flow(case, randomise, seed=3).state_dict())
    with torch.no_grad():
        torch.testing.assert_close(view.log_prob(x), own_log_prob(case, flow, x), rtol=1e-10, atol=1e-10)
        for parameter in flow.parameters():
            parameter.data.mul_(1.1)
        torch.testing.assert_close(view.log_prob(x), own_log_prob(case, flow, x), rtol=1e-10, atol=1e-10)
    assert {pointer for _, pointer in bits(view)} == {pointer for _, pointer in bits(flow)}


@every_constant
def test_maximum_likelihood_of_the_view_is_the_librarys(case: Case, randomise) -> None:
    flow = random_flow(case, randomise)
    x, parameters = case.batch(), [p for p in flow.parameters() if p.requires_grad]
    if not parameters:
        assert not ML()(case.view(flow), x).requires_grad
        return
    ours = torch.autograd.grad(ML()(case.view(flow), x), parameters)
    theirs = torch.autograd.grad(-own_log_prob(case, flow, x).mean(), parameters)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    amortised = AmortizedML(every=2)
    refreshed = torch.autograd.grad(amortised(case.view(flow), x), parameters)
    torch.testing.assert_close(refreshed, ours, rtol=1e-12, atol=1e-12)
    kept = torch.autograd.grad(amortised(case.view(flow), x), parameters)
    torch.testing.assert_close(kept, ours, rtol=1e-12, atol=1e-12)


def saved_and_loaded(view: EBFlow) -> EBFlow:
    buffer = io.BytesIO()
    torch.save(view, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@every_layer
@pytest.mark.parametrize("copied", [copy.deepcopy, saved_and_loaded])
def test_copies_are_independent(case: Case, copied: Callable[[EBFlow], EBFlow], randomise) -> None:
    view, x = case.view(random_flow(case, randomise)), case.batch()
    other = copied(view)
    with torch.no_grad():
        before = view.log_prob(x)
        assert torch.equal(other.log_prob(x), before)
        for parameter in other.parameters():
            parameter.mul_(1.5)
        assert torch.equal(view.log_prob(x), before)


@every_constant
def test_shapes_are_right_without_any_numbers(case: Case) -> None:
    flow = quietly(case.flow)
    view = case.view(flow)
    x = torch.empty(4, *case.shape)
    assert DSM(0.3)(view, x).shape == ()
    assert view.log_prob(x[:0]).shape == (0,)


def test_layers_of_ours_come_out_of_their_wrapper() -> None:
    dense, bend = Dense(3), SmoothLeakyReLU()
    view = interop("nflows").from_flow(
        Flow(
            nt.CompositeTransform([nt.IdentityTransform(), *map(interop("nflows").LayerTransform, (dense, bend))]),
            StandardNormal([3]),
        ),
        (3,),
    )
    assert list(view.layers) == [dense, bend]


def test_the_bias_of_ours_makes_a_matrix_of_theirs_affine(randomise) -> None:
    base = normflows.distributions.DiagGaussian(3, trainable=False)
    layers = [interop("normflows").LayerFlow(Bias((3,))), nf.InvertibleAffine(3, use_lu=False)]
    flow = randomise(normflows.NormalizingFlow(base, layers))
    view = interop("normflows").from_flow(flow, (3,))
    assert [type(layer) for layer in view.layers] == [Affine, Bias]
    x = torch.randn(4, 3, dtype=DOUBLE)
    torch.testing.assert_close(view.log_prob(x), flow.log_prob(x))


def test_a_composite_of_normflows_is_its_parts(randomise) -> None:
    # Theirs adds up log-determinants in float32, whatever the dtype.
    parts = randomise(nn.ModuleList([nf.Permute(3), nf.AffineConstFlow(3), nf.LULinearPermute(3)]))
    base = normflows.distributions.DiagGaussian(3, trainable=False)
    flows = [normflows.NormalizingFlow(base, layers) for layers in ([nf.Composite(parts)], parts)]
    composed, listed = (interop("normflows").from_flow(flow, (3,)) for flow in flows)
    x = torch.randn(4, 3, dtype=DOUBLE)
    torch.testing.assert_close(composed.log_prob(x), flows[1].log_prob(x))
    assert torch.equal(composed.log_prob(x), listed.log_prob(x))


def test_squeezing_changes_the_shape_on_the_way(randomise) -> None:
    transform = nt.CompositeTransform(
        [nt.SqueezeTransform(), started(nt.ActNorm(4), (4, 2, 3)), nt.OneByOneConvolution(4)]
    )
    flow = randomise(Flow(transform, StandardNormal([4, 2, 3])))
    view = interop("nflows").from_flow(flow, (1, 4, 6))
    assert [type(layer) for layer in view.layers] == [Squeeze, Affine, Affine]
    x = torch.randn(5, 1, 4, 6, dtype=DOUBLE)
    torch.testing.assert_close(view.log_prob(x), flow.log_prob(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(view.inverse(view(x)[0]), x)


def test_a_glow_of_normflows(randomise) -> None:
    base = normflows.distributions.DiagGaussian((4, 2, 3), trainable=False)
    blocks = [quietly(lambda: nf.GlowBlock(4, 8, init_zeros=False)) for _ in range(2)]
    flow = normflows.NormalizingFlow(base, [*blocks, nf.Squeeze()])
    x = torch.randn(5, 1, 4, 6)
    with pytest.raises(ValueError, match=r"an ActNorm starts from data: call flow.log_prob on a batch first"):
        interop("normflows").from_flow(flow, (1, 4, 6))
    flow.log_prob(x)
    randomise(flow)
    view = interop("normflows").from_flow(flow, (1, 4, 6))
    kinds = [type(layer).__name__ for layer in view.layers]
    assert kinds == ["Squeeze", *2 * ["Scaling", "Affine", "FlowLayer"]]
    x = x.double()
    torch.testing.assert_close(view.log_prob(x), flow.log_prob(x), rtol=1e-10, atol=1e-10)


def trained(case: Case, sigma: float, steps: int = 150) -> tuple[EBFlow, nn.Module, list[float]]:
    """Train by DSM on a ring; the losses of all steps, with the same noise in each."""
    angle = 2 * math.pi * torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    x = torch.stack([angle.cos(), angle.sin()], 1)
    flow = case.flow().double()
    view, losses = case.view(flow), []
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = DSM(sigma)(view, x, torch.Generator().manual_seed(1))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return view, flow, losses


@pytest.mark.parametrize("kind", ["AffineCouplingTransform", "PiecewiseRationalQuadraticCouplingTransform"])
def test_a_coupling_flow_is_trained_by_denoising(kind: str) -> None:
    case = Case(
        "nflows", lambda: nt.CompositeTransform([coupled(kind, 2), nt.ReversePermutation(2), coupled(kind, 2)]), (2,)
    )
    view, flow, losses = trained(case, sigma=0.3)
    assert losses[-1] < 0.8 * losses[0]
    x = torch.randn(9, 2, dtype=DOUBLE)
    with torch.no_grad():
        torch.testing.assert_close(view.log_prob(x), flow.log_prob(x), rtol=1e-10, atol=1e-10)


def nflows_flow(*layers: nn.Module, base: nn.Module | None = None) -> Flow:
    return Flow(nt.CompositeTransform(layers), base or StandardNormal([D]))


class TestRefusals:
    def test_another_base_of_nflows(self) -> None:
        flow = nflows_flow(nt.LULinear(D), base=ConditionalDiagonalNormal([D]))
        with pytest.raises(
            ValueError, match="the base of the flow must be StandardNormal, not ConditionalDiagonalNormal"
        ):
            interop("nflows").from_flow(flow, (D,))

    def test_another_base_of_normflows(self) -> None:
        def with_base(base: nn.Module) -> EBFlow:
            return interop("normflows").from_flow(normflows.NormalizingFlow(base, [nf.Permute(D)]), (D,))

        diagonal = normflows.distributions.DiagGaussian
        cold, moved = diagonal(D, trainable=False), diagonal(D, trainable=False)
        cold.temperature = 0.7
        moved.loc[0, 1] = 0.1
        for base in (diagonal(D), cold, moved, normflows.distributions.GaussianMixture(2, D)):
            with pytest.raises(ValueError, match=r"must be N\(0, I\): DiagGaussian\(shape, trainable=False\)"):
                with_base(base)
        with_base(diagonal(D, trainable=False))

    def test_another_base_of_zuko(self) -> None:
        import zuko

        layer = unconditional("RotationTransform", torch.randn(D, D))
        uniform = zuko.lazy.UnconditionalDistribution(
            zuko.distributions.BoxUniform, torch.zeros(D), torch.ones(D), buffer=True
        )
        for base in (unit_normal(D, buffer=False), unit_normal(D, scale=2.0), uniform):
            with pytest.raises(ValueError, match="an unconditional DiagNormal of zeros and ones, as buffers"):
                interop("zuko").from_flow(zuko.lazy.Flow(layer, base), (D,))

    def test_a_shape_that_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match="give the event shape that the flow itself takes"):
            interop("nflows").from_flow(nflows_flow(coupled("AffineCouplingTransform")), (1, 1, D))

    def test_an_actnorm_that_has_seen_no_data(self) -> None:
        flow = nflows_flow(nt.ActNorm(D))
        with pytest.raises(
            ValueError, match=r"an ActNorm starts from data: call flow.log_prob on a batch in training mode"
        ):
            interop("nflows").from_flow(flow, (D,))
        flow.log_prob(torch.randn(10, D))
        interop("nflows").from_flow(flow, (D,))

    def test_layers_that_mix_samples_or_take_lists(self) -> None:
        with pytest.raises(ValueError, match="BatchNorm mixes the samples of a batch"):
            interop("nflows").from_flow(nflows_flow(nt.BatchNorm(D)), (D,))
        base = normflows.distributions.DiagGaussian(4, trainable=False)
        for layer in (nf.Split(), nf.Merge()):
            with pytest.raises(ValueError, match="gives or takes lists of tensors: use AffineCouplingBlock"):
                interop("normflows").from_flow(normflows.NormalizingFlow(base, [layer]), (4,))


def test_a_dense_transform_of_zuko_is_what_it_says() -> None:
    weight, bias = torch.randn(3, 3, dtype=DOUBLE), torch.randn(3, dtype=DOUBLE)
    built = unconditional("DenseTransform", weight, bias)()
    x = torch.randn(2, 4, 3, dtype=DOUBLE)
    y, log_det = built.call_and_ladj(x)
    torch.testing.assert_close(y, torch.einsum("ij,...j->...i", weight, x) + bias)
    torch.testing.assert_close(built.inv(y), x)
    assert log_det.shape == (2, 4)
    torch.testing.assert_close(log_det[0, 0], torch.det(weight).abs().log())


def test_the_snippet_of_the_package_runs() -> None:
    _, snippet = inspect.getdoc(ebflow.interop).split("::", 1)
    names: dict[str, object] = {}
    exec(textwrap.dedent(snippet), names)
    flow, view, x = names["flow"], names["view"], names["x"]
    torch.testing.assert_close(view.log_prob(x), flow.log_prob(x), rtol=1e-4, atol=1e-4)
    assert flow.log_prob(x).mean() > StandardNormal([8]).log_prob(x).mean()


def test_scalings_and_affine_layers_refuse_other_shapes() -> None:
    for layer in (Affine(nt.LULinear(3), (3,), None), Scaling(nt.IdentityTransform(), (3,), None)):
        with pytest.raises(ValueError, match=r"takes samples of shape \(3,\), not \(4,\)"):
            layer.output_shape((4,))
