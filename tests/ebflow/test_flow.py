"""The flow as a density: energy, log Z and its cache, score, samples."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ebflow import SML, EBFlow, SingularJacobianError, architectures
from ebflow.architectures import Matrix
from ebflow.layers import (
    ActNorm,
    AffineCoupling,
    Bias,
    ConstantLayer,
    Convolution,
    Convolution1x1,
    Dense,
    Layer,
    Logit,
    Permutation,
    Reshape,
    Scale,
    SmoothLeakyReLU,
    Split,
    Squeeze,
    Triangular,
    Whitening,
)

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense(dimension: int) -> EBFlow:
    return EBFlow((dimension,), [Dense(dimension), SmoothLeakyReLU(), Dense(dimension)])


def mixed() -> EBFlow:
    coupling = AffineCoupling(
        torch.tensor([1.0, 0]), nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)), nn.Linear(2, 2)
    )
    return EBFlow((2,), [Dense(2), coupling, ActNorm((2,)), Permutation(torch.tensor([1, 0])), Dense(2)])


def image() -> EBFlow:
    shape, squeezed = (2, 4, 2), (8, 2, 1)
    first = [Scale(shape, 0.2, -1.5), Convolution(shape, 3), SmoothLeakyReLU(residual=True), Squeeze()]
    return EBFlow(
        shape,
        [*first, Convolution1x1(squeezed), ActNorm(squeezed), SmoothLeakyReLU(), Reshape(squeezed, (16,)), Dense(16)],
    )


def nested() -> EBFlow:
    """Constant layers at two depths: a split inside a split."""
    innermost = Split((4, 1, 2), [ActNorm((2, 1, 2)), SmoothLeakyReLU(), Reshape((2, 1, 2), (4,)), Dense(4)])
    inner = Split((2, 2, 4), [Convolution1x1((1, 2, 4)), Squeeze(), SmoothLeakyReLU(), innermost])
    return EBFlow((2, 2, 4), [Convolution1x1((2, 2, 4)), ActNorm((2, 2, 4)), inner, Dense(16)])


FLOWS: dict[str, Callable[[], EBFlow]] = {
    "dense, D=1": lambda: dense(1),
    "dense, D=2": lambda: dense(2),
    "dense, D=3": lambda: dense(3),
    "dense, D=5": lambda: dense(5),
    "mixed": mixed,
    "image": image,
    "nested": nested,
    "constant layers alone": lambda: EBFlow((3,), [Dense(3), ActNorm((3,))]),
    "varying layers alone": lambda: EBFlow((3,), [SmoothLeakyReLU(), SmoothLeakyReLU(residual=True)]),
    "no layer": lambda: EBFlow((3,), []),
}
EVERY_FLOW = pytest.mark.parametrize("build", FLOWS.values(), ids=FLOWS.keys())
PLANE = {name: FLOWS[name] for name in ("dense, D=2", "mixed")}
PLANE_FLOWS = pytest.mark.parametrize("build", PLANE.values(), ids=PLANE.keys())


def batch(flow: EBFlow, n: int = 6, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(n, *flow.shape, generator=generator(3), dtype=dtype)


def whitening(flow: EBFlow) -> tuple[Tensor, Tensor]:
    """Mean and Cholesky factor of the flow's own samples: coordinates in which a grid fits the density."""
    own = flow.sample(2000, generator()).flatten(1)
    return own.mean(0), torch.linalg.cholesky(own.mT.cov())


class TestDensity:
    @EVERY_FLOW
    @pytest.mark.parametrize("seed", [0, 1])
    def test_log_prob_is_the_change_of_variables(self, build, seed: int, randomise, log_density) -> None:
        flow = randomise(build(), seed)
        x = batch(flow)
        expected = log_density(flow, x)
        torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(-flow.energy(x) - flow.log_normalizer(), expected, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("dimension", [2, 3, 5])
    @pytest.mark.parametrize("sign", [-1.0, 1.0])
    def test_either_sign_of_the_determinant(self, dimension: int, sign: float, randomise, log_density) -> None:
        flow = randomise(dense(dimension))
        weights = [layer.weight for layer in flow.layers if isinstance(layer, Dense)]
        with torch.no_grad():
            if (weights[0].det() * weights[1].det()).sign() != sign:
                weights[0][0].neg_()
        x = batch(flow)
        jacobian = torch.func.jacrev(lambda one: flow(one[None])[0][0])(x[0])
        assert torch.linalg.det(jacobian).sign() == sign
        torch.testing.assert_close(flow.log_prob(x), log_density(flow, x), rtol=1e-10, atol=1e-10)

    @EVERY_FLOW
    def test_the_constant_layers_are_in_log_z_and_the_others_in_the_energy(self, build, randomise) -> None:
        flow = randomise(build())
        x = batch(flow)
        z, varying = flow(x)
        constant = sum(part.log_abs_det().item() for part in flow.modules() if isinstance(part, ConstantLayer))
        assert flow.log_normalizer().item() == pytest.approx(-constant, rel=1e-12)
        assert flow.constant_log_det().item() == pytest.approx(constant, rel=1e-12)
        base = 0.5 * z.flatten(1).square().sum(1) + 0.5 * z[0].numel() * math.log(2 * math.pi)
        torch.testing.assert_close(flow.energy(x), base - varying, rtol=1e-12, atol=1e-12)

    @PLANE_FLOWS
    def test_total_mass_is_one(self, build, randomise) -> None:
        flow = randomise(build())
        with torch.no_grad():
            mean, axes = whitening(flow)
            unit = torch.linspace(-12, 12, 801, dtype=DOUBLE)
            density = flow.log_prob(mean + torch.cartesian_prod(unit, unit) @ axes.mT).exp()
        # The sum over a grid is exact to rounding for a smooth density that the grid resolves and covers.
        cell = (unit[1] - unit[0]).square() * axes.det()
        assert (density.sum() * cell).item() == pytest.approx(1, abs=1e-4)

    def test_total_mass_of_an_image_flow_is_one(self, randomise) -> None:
        shape = (1, 2, 2)
        layers = [Convolution(shape, 3), SmoothLeakyReLU(residual=True), Squeeze(), Convolution1x1((4, 1, 1))]
        flow = randomise(EBFlow(shape, layers))
        # Importance sampling from a normal distribution wider than the flow's own.
        with torch.no_grad():
            mean, axes = whitening(flow)
            proposal = torch.distributions.MultivariateNormal(mean, scale_tril=1.4 * axes)
            torch.manual_seed(1)
            x = proposal.sample((200_000,))
            weights = (flow.log_prob(x.view(-1, *shape)) - proposal.log_prob(x)).exp()
        error = weights.std().item() / math.sqrt(len(weights))
        assert error < 0.02
        assert abs(weights.mean().item() - 1) < 5 * error

    @EVERY_FLOW
    def test_float32_agrees_with_float64(self, build, randomise) -> None:
        flow = randomise(build())
        x = batch(flow)
        expected = flow.log_prob(x)
        single = flow.float().log_prob(x.float())
        assert expected.dtype == DOUBLE
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.to(DOUBLE), expected, rtol=1e-4, atol=1e-4)

    @EVERY_FLOW
    @pytest.mark.parametrize("n", [0, 1])
    def test_small_batches(self, build, n: int, randomise) -> None:
        flow = randomise(build())
        x = batch(flow, 6)
        assert flow.log_prob(x[:n]).shape == flow.energy(x[:n]).shape == (n,)
        assert flow.score(x[:n]).shape == flow.sample(n).shape == (n, *flow.shape)
        torch.testing.assert_close(flow.log_prob(x[:n]), flow.log_prob(x)[:n])

    @EVERY_FLOW
    def test_meta(self, build) -> None:
        flow = build().to("meta")
        x = torch.empty(4, *flow.shape, device="meta")
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled):
                for _ in range(2):  # the second time, there is something in the cache
                    assert flow.log_prob(x).shape == flow.energy(x).shape == (4,)
        assert flow.score(x).shape == flow.inverse(flow(x)[0]).shape == x.shape
        assert flow.log_prob(x).device.type == flow.score(x).device.type == "meta"

    def test_non_finite_samples_stay_visible(self, randomise) -> None:
        flow = randomise(mixed())
        for value in (math.nan, math.inf):
            x = batch(flow, 3)
            x[1, 0] = value
            assert flow.log_prob(x).isfinite().tolist() == [True, False, True]
            assert flow.score(x).isfinite().all(1).tolist() == [True, False, True]


class TestScore:
    @EVERY_FLOW
    def test_is_the_gradient_of_the_log_density(self, build, randomise, log_density) -> None:
        flow = randomise(build())
        x = batch(flow).requires_grad_()
        (expected,) = torch.autograd.grad(log_density(flow, x).sum(), x)
        torch.testing.assert_close(flow.score(x), expected, rtol=1e-9, atol=1e-9)

    @EVERY_FLOW
    def test_agrees_with_finite_differences(self, build, randomise) -> None:
        flow = randomise(build())
        x, step = batch(flow, 3), 1e-5
        score = flow.score(x).flatten(1)
        for index in range(score.shape[1]):
            shift = torch.zeros_like(score)
            shift[:, index] = step
            shift = shift.view_as(x)
            with torch.no_grad():
                slope = (flow.log_prob(x + shift) - flow.log_prob(x - shift)) / (2 * step)
            torch.testing.assert_close(score[:, index], slope, rtol=1e-6, atol=1e-7)

    @EVERY_FLOW
    def test_needs_no_determinant(self, build, randomise, linear_algebra) -> None:
        flow = randomise(build())
        with linear_algebra:
            flow.score(batch(flow).requires_grad_()).sum().backward()
        assert linear_algebra.calls == []

    def test_can_be_differentiated_again(self, randomise) -> None:
        flow = randomise(dense(3))
        assert torch.autograd.gradcheck(
            lambda x, *_: flow.score(x), (batch(flow, 2).requires_grad_(), *flow.parameters())
        )

    def test_works_under_no_grad_and_leaves_its_input_alone(self, randomise) -> None:
        flow = randomise(dense(3))
        x = batch(flow)
        expected = flow.score(x)
        with torch.no_grad():
            assert torch.equal(flow.score(x), expected)
        assert not x.requires_grad
        assert x.grad is None
        assert all(parameter.grad is None for parameter in flow.parameters())


def optimiser_step(make: Callable[..., torch.optim.Optimizer]) -> Callable[[EBFlow], None]:
    def step(flow: EBFlow) -> None:
        optimiser = make(flow.parameters())
        with torch.enable_grad():
            (flow.energy(batch(flow)).mean() - flow.constant_log_det()).backward()
        optimiser.step()

    return step


def larger_weights(flow: EBFlow) -> dict[str, torch.Tensor]:
    """All weights, half as large again; constants stay as they are."""
    state = flow.state_dict().items()
    return {name: tensor if name.endswith("_extra_state") else 1.5 * tensor for name, tensor in state}


def load_other_weights(flow: EBFlow) -> None:
    flow.load_state_dict(larger_weights(flow))


def load_by_assignment(flow: EBFlow) -> None:
    flow.load_state_dict(larger_weights(flow), assign=True)


def new_data(flow: EBFlow) -> None:
    flow.layers[0].weight.data = 1.5 * flow.layers[0].weight.data


def edit_data(flow: EBFlow) -> None:
    flow.layers[0].weight.data.mul_(1.5)


def edit_in_place(flow: EBFlow) -> None:
    with torch.no_grad():
        flow.layers[0].weight.mul_(1.5)


def edit_one_bit_through_numpy(flow: EBFlow) -> None:
    # Counted by no version counter, and the smallest change there is.
    array = flow.layers[2].weight.detach().numpy()
    array[0, 0] = torch.nextafter(torch.tensor(array[0, 0]), torch.tensor(math.inf, dtype=DOUBLE)).item()


def new_parameter(flow: EBFlow) -> None:
    flow.layers[2].weight = nn.Parameter(1.5 * flow.layers[2].weight.detach())


def new_layer(flow: EBFlow) -> None:
    flow.layers[2] = Dense(3).double()


def average_weights(flow: EBFlow) -> None:
    parameters = [parameter.data for parameter in flow.parameters()]
    torch._foreach_lerp_(parameters, [torch.full_like(parameter, 2.0) for parameter in parameters], 0.3)


def parameters_from_a_vector(flow: EBFlow) -> None:
    vector = nn.utils.parameters_to_vector(flow.parameters())
    nn.utils.vector_to_parameters(1.5 * vector, flow.parameters())


EDITS = {
    "SGD": optimiser_step(lambda parameters: torch.optim.SGD(parameters, lr=0.1)),
    "RMSprop, foreach": optimiser_step(lambda parameters: torch.optim.RMSprop(parameters, lr=0.1, foreach=True)),
    "Adam, fused": optimiser_step(lambda parameters: torch.optim.Adam(parameters, lr=0.1, fused=True)),
    "AdamW, one by one": optimiser_step(lambda parameters: torch.optim.AdamW(parameters, lr=0.1, foreach=False)),
    "load_state_dict": load_other_weights,
    "load_state_dict, assign": load_by_assignment,
    "new .data": new_data,
    "edit .data": edit_data,
    "edit under no_grad": edit_in_place,
    "one bit through numpy": edit_one_bit_through_numpy,
    "new parameter": new_parameter,
    "new layer": new_layer,
    "average": average_weights,
    "vector_to_parameters": parameters_from_a_vector,
    "initialize": lambda flow: flow.initialize(5 + 3 * batch(flow, 20)),
}


def with_actnorm() -> EBFlow:
    return EBFlow((3,), [Dense(3), SmoothLeakyReLU(), Dense(3), ActNorm((3,))])


def afresh(flow: EBFlow) -> Tensor:
    return -sum(layer.log_abs_det() for layer in flow.layers if layer.constant_jacobian)


class TestLogNormalizerCache:
    @pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
    @torch.no_grad()
    def test_no_edit_leaves_it_stale(self, edit, randomise, linear_algebra) -> None:
        flow = randomise(with_actnorm())
        x = batch(flow)
        before = flow.log_normalizer()
        edit(flow)
        with linear_algebra:
            after = flow.log_normalizer()
        # Computed again, for one bit may leave the sum as it was.
        assert linear_algebra.calls
        assert torch.equal(after, afresh(flow))
        assert torch.equal(flow.log_prob(x), -flow.energy(x) - afresh(flow))
        if edit is not edit_one_bit_through_numpy:
            assert abs(after - before) > 1e-3

    @torch.no_grad()
    def test_follows_the_dtype(self, randomise) -> None:
        flow = randomise(with_actnorm(), dtype=torch.float32)
        assert flow.log_normalizer().dtype == torch.float32
        flow.double()
        assert flow.log_normalizer().dtype == DOUBLE
        assert torch.equal(flow.log_normalizer(), afresh(flow))
        # Back and forth, the weights have single precision now: equal numbers, another dtype.
        flow.float()
        assert torch.equal(flow.log_normalizer(), afresh(flow))
        assert flow.log_normalizer().dtype == torch.float32

    @torch.no_grad()
    def test_a_copy_has_a_cache_of_its_own(self, randomise) -> None:
        flow = randomise(with_actnorm())
        before = flow.log_normalizer()
        other = copy.deepcopy(flow)
        edit_data(other)
        assert torch.equal(other.log_normalizer(), afresh(other))
        assert torch.equal(flow.log_normalizer(), before)
        edit_data(flow)
        edit_data(flow)
        assert torch.equal(flow.log_normalizer(), afresh(flow))
        assert torch.equal(other.log_normalizer(), afresh(other))

    @torch.no_grad()
    def test_the_result_belongs_to_the_caller(self, randomise) -> None:
        flow = randomise(with_actnorm())
        for _ in range(2):
            flow.log_normalizer().add_(1)
        assert torch.equal(flow.log_normalizer(), afresh(flow))

    @torch.no_grad()
    def test_is_used(self, randomise, linear_algebra) -> None:
        flow = randomise(mixed())
        with linear_algebra:
            flow.log_normalizer()
        assert linear_algebra.calls == ["_linalg_slogdet"] * 2  # the two dense layers
        for parameter in flow.layers[1].parameters():
            parameter.mul_(2)  # the coupling's Jacobian varies: none of log Z's business
        with linear_algebra:
            flow.log_normalizer()
            flow.log_prob(batch(flow))
        assert linear_algebra.calls == ["_linalg_slogdet"] * 2

    def test_is_used_with_frozen_weights_where_gradients_are_recorded(self, randomise, linear_algebra) -> None:
        flow = randomise(dense(3)).requires_grad_(False)
        with torch.no_grad():
            flow.log_normalizer()
        x = batch(flow).requires_grad_()
        with linear_algebra:
            flow.log_prob(x).sum().backward()
        assert linear_algebra.calls == []
        torch.testing.assert_close(x.grad, flow.score(x))

    def test_does_not_cut_the_graph(self, randomise) -> None:
        flow = randomise(with_actnorm())
        with torch.no_grad():
            flow.log_normalizer()  # fills the cache
        assert torch.autograd.gradcheck(lambda *_: flow.log_normalizer(), tuple(flow.layers[0].parameters()))
        assert torch.autograd.gradcheck(lambda *_: flow.log_prob(batch(flow)), tuple(flow.parameters()))

    @torch.no_grad()
    def test_is_not_saved(self, randomise) -> None:
        flow = randomise(dense(3))
        names = set(flow.state_dict())
        flow.log_normalizer()
        weights = {f"layers.{i}.{part}" for i in (0, 2) for part in ("weight", "bias")}
        assert set(flow.state_dict()) == names == weights | {"layers.1._extra_state"}


class TestNestedConstantLayers:
    def test_the_energy_leaves_them_out_and_log_z_counts_them(self, randomise, linear_algebra) -> None:
        flow = randomise(nested())
        x = batch(flow)
        with linear_algebra:
            flow.score(x)
            flow.energy(x).sum().backward()
        assert linear_algebra.calls == []
        split = flow.layers[2].layers[3]
        norm, activation, _, dense = split.layers
        values = batch(EBFlow(split.output_shape((4, 1, 2)), [])).reshape(6, 4, 1, 2)
        reached, _ = norm(values[:, :2])
        torch.testing.assert_close(split(values)[1], activation(reached)[1])
        log_normalizer = flow.log_normalizer()
        norm.log_scale.data += 0.25
        dense.weight.data *= 2.0
        expected = log_normalizer + 4 * 0.25 - 4 * math.log(2.0)
        torch.testing.assert_close(flow.log_normalizer(), expected)

    @torch.no_grad()
    def test_an_edit_leaves_no_stale_cache(self, randomise, linear_algebra) -> None:
        flow = randomise(nested())
        before = flow.log_normalizer()
        with linear_algebra:
            flow.log_normalizer()
        assert linear_algebra.calls == []
        flow.layers[2].layers[3].layers[0].log_scale.data[0] -= 0.5
        torch.testing.assert_close(flow.log_normalizer(), before - 2 * 0.5)

    def test_a_singular_one_is_named(self, randomise) -> None:
        flow = randomise(nested())
        flow.layers[2].layers[3].layers[3].weight.data.zero_()
        with pytest.raises(SingularJacobianError, match=r"layer 2\.layers\.3\.layers\.3 \(Dense\) is singular"):
            flow.log_normalizer()

    def test_a_layer_that_occurs_twice_counts_twice(self) -> None:
        layer = ActNorm((2,))
        flow = EBFlow((4,), [Split((4,), [layer, layer])])
        layer.log_scale.data.fill_(1.0)
        assert flow.log_normalizer().item() == 4.0

    def test_are_initialised_from_what_reaches_them(self, randomise) -> None:
        flow = randomise(nested())
        flow.initialize(batch(flow, 50))
        _, norm, outer, _ = flow.layers
        mixed_channels, _ = norm(flow.layers[0](batch(flow, 50))[0])
        reaching, _ = EBFlow((1, 2, 4), outer.layers[:3])(mixed_channels[:, :1])
        values, _ = outer.layers[3].layers[0](reaching[:, :2])
        for result in (mixed_channels, values):
            torch.testing.assert_close(result.mean((0, 2, 3)), torch.zeros(2, dtype=DOUBLE), rtol=0, atol=1e-9)
            torch.testing.assert_close(result.std((0, 2, 3)), torch.ones(2, dtype=DOUBLE))


def spoilt(layer: Layer, shape: tuple[int, ...], value: float) -> EBFlow:
    """Behind two others, a layer all of whose weights are one number."""
    for weight in [*layer.parameters(), *layer.buffers()]:
        weight.data.fill_(value)
    return EBFlow(shape, [SmoothLeakyReLU(), Scale(shape, 0.0, 2.0), layer])


MATRICES = {
    "dense": (lambda: Dense(4), (4,), "Dense"),
    "lower": (lambda: Triangular(4, upper=False), (4,), "Triangular"),
    "upper": (lambda: Triangular(4, upper=True), (4,), "Triangular"),
    "1x1": (lambda: Convolution1x1((4, 2, 1)), (4, 2, 1), "Convolution1x1"),
    "convolution": (lambda: Convolution((1, 4, 2), 3), (1, 4, 2), "Convolution"),
    "whitening": (lambda: Whitening(4), (4,), "Whitening"),
}
EVERY_MATRIX = pytest.mark.parametrize(("layer", "shape", "name"), MATRICES.values(), ids=MATRICES.keys())


class TestSingularLayers:
    @EVERY_MATRIX
    @pytest.mark.parametrize("enabled", [True, False])
    @pytest.mark.parametrize(
        ("value", "trouble"),
        [(0.0, "is singular"), *((v, "holds a weight that is not finite") for v in (math.nan, math.inf))],
    )
    def test_are_named_alike_by_all_that_need_them(
        self, layer, shape: tuple[int, ...], name: str, enabled: bool, value: float, trouble: str
    ) -> None:
        flow = spoilt(layer(), shape, value)
        x = torch.randn(5, *shape, generator=generator())
        with torch.set_grad_enabled(enabled):
            calls = flow.log_normalizer, lambda: flow.log_prob(x), lambda: flow.inverse(x), lambda: flow.sample(5)
            for call in calls:
                with pytest.raises(SingularJacobianError, match=rf"^layer 2 \({name}\) {trouble}[,:]"):
                    call()

    @EVERY_MATRIX
    def test_have_no_inverse_by_themselves_either(self, layer, shape: tuple[int, ...], name: str) -> None:
        alone = spoilt(layer(), shape, 0.0).layers[2]
        with pytest.raises(SingularJacobianError, match=f"^{name} is singular, so that it has no inverse"):
            alone.inverse(torch.randn(5, *shape))

    @pytest.mark.parametrize("where", ["layers.0.bias", "layers.1.log_scale.0.weight", "layers.2.shift"])
    @torch.no_grad()
    def test_any_weight_that_is_not_finite_is_named(self, where: str, randomise) -> None:
        flow = randomise(mixed())
        flow.log_prob(batch(flow))  # fills the cache
        flow.get_parameter(where).view(-1)[-1] = math.nan
        layer = where.rpartition(".")[0].removeprefix("layers.")
        for call in (lambda: flow.log_prob(batch(flow)), lambda: flow.sample(3)):
            with pytest.raises(SingularJacobianError, match=rf"^layer {layer} \(\w+\) holds a weight that is not"):
                call()

    def test_large_weights_are_finite(self) -> None:
        flow = EBFlow((3,), [Bias((3,))])
        flow.layers[0].bias.data.fill_(3e38)  # the sum overflows
        assert flow.log_normalizer() == 0

    def test_a_convolution_too(self, randomise) -> None:
        flow = randomise(image())
        flow.layers[1].weight.data.zero_()
        with pytest.raises(SingularJacobianError, match=r"layer 1 \(Convolution\)"):
            flow.log_normalizer()

    def test_an_overflow_of_the_sum_says_so(self) -> None:
        flow = EBFlow((1,), [ActNorm((1,)), ActNorm((1,))])
        for layer in flow.layers:
            layer.log_scale.data.fill_(3e38)
        with pytest.raises(SingularJacobianError, match="float64"):
            flow.log_normalizer()
        assert flow.double().log_normalizer().isfinite()

    def test_is_a_value_error_and_heals_with_the_weights(self, randomise) -> None:
        flow = randomise(dense(3))
        good = flow.layers[0].weight.detach().clone()
        flow.layers[0].weight.data.zero_()
        with torch.no_grad(), pytest.raises(ValueError, match="layer 0"):
            flow.log_normalizer()
        flow.layers[0].weight.data.copy_(good)
        assert flow.log_normalizer().isfinite()


class TestLostDigits:
    @pytest.mark.parametrize("matrix", ["lower", "upper", "lu"])
    def test_an_inverse_that_is_garbage_in_float32_says_so(self, matrix: Matrix) -> None:
        flow = architectures.multimodal(matrix=matrix)
        x = torch.randn(50, 10, generator=generator()) * 2.0 ** torch.arange(10)
        z = flow(x)[0].detach()
        remedy = r"convert the flow to float64 by flow.double\(\)"
        with pytest.warns(RuntimeWarning, match=f"^the inverse has lost its digits in float32: .*: {remedy}"):
            back = flow.inverse(z)
        assert (back - x).abs().max() > 1e3
        with pytest.warns(RuntimeWarning, match="^the inverse has lost its digits in float32"):
            flow.sample(50, generator())

    def test_float64_helps_where_it_can(self) -> None:
        flow = EBFlow((20,), [Dense(20)])
        turns = [torch.linalg.qr(torch.randn(20, 20, generator=generator(seed))).Q for seed in (1, 2)]
        flow.layers[0].weight.data.copy_(turns[0] * torch.logspace(0, -9, 20) @ turns[1])
        x = torch.randn(50, 20, generator=generator())
        with pytest.warns(RuntimeWarning, match="digits in float32: there and back, latents change by"):
            flow.inverse(flow(x)[0])
        flow, x = flow.double(), x.double()
        torch.testing.assert_close(flow.inverse(flow(x)[0]), x, rtol=0, atol=1e-5)

    def test_in_float64_the_layers_are_to_blame(self) -> None:
        flow = architectures.multimodal(matrix="lu").double()
        with pytest.warns(RuntimeWarning, match="digits in float64: .*its layers are too close to singular"):
            flow.sample(50, generator())

    def test_an_overflow_counts_as_lost(self) -> None:
        flow = EBFlow((2,), [ActNorm((2,))])
        flow.layers[0].log_scale.data.fill_(100.0)
        with pytest.warns(RuntimeWarning, match="latents change by inf standard deviations"):
            flow.sample(3, generator())

    def test_latents_that_are_not_finite_are_the_callers(self) -> None:
        x = dense(2).inverse(torch.tensor([[math.nan, 0.0], [0.0, 1.0]]))
        assert x.isfinite().all(1).tolist() == [False, True]

    @pytest.mark.parametrize("build", [lambda: architectures.fc((30,), 3), lambda: architectures.cnn((1, 8, 8), 6)])
    def test_a_sound_inverse_is_silent_whatever_the_size_of_the_data(self, build) -> None:
        flow = build()
        for scale in (1e-6, 1.0, 1e6):
            flow.inverse(flow(scale * torch.randn(20, *flow.shape, generator=generator()))[0])
        with torch.autocast("cpu", torch.bfloat16):
            flow.sample(20, generator())

    def test_training_by_samples_pays_no_look(self, randomise) -> None:
        flow = randomise(dense(3))
        calls = []
        flow.layers[1].register_forward_hook(lambda *_: calls.append(1))
        SML()(flow, batch(flow), generator())
        assert len(calls) == 1

    def test_batched_derivatives_of_the_inverse_still_work(self, randomise) -> None:
        flow = randomise(dense(3))
        jacobian = torch.func.jacrev(lambda z: flow.inverse(z[None])[0])(torch.zeros(3, dtype=DOUBLE))
        x = flow.inverse(torch.zeros(1, 3, dtype=DOUBLE)).detach()
        there = torch.autograd.functional.jacobian(lambda x: flow(x[None])[0][0], x[0])
        torch.testing.assert_close(jacobian @ there, torch.eye(3, dtype=DOUBLE))


class TestInverseAndSamples:
    @EVERY_FLOW
    def test_inverse(self, build, randomise) -> None:
        flow = randomise(build())
        x = batch(flow)
        z, _ = flow(x)
        assert z.shape == (6, *flow.latent_shape)
        torch.testing.assert_close(flow.inverse(z), x, rtol=0, atol=1e-9)

    @EVERY_FLOW
    @pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
    def test_samples_are_the_inverse_of_standard_normal_latents(self, build, dtype: torch.dtype, randomise) -> None:
        flow = randomise(build(), dtype=dtype)
        samples = flow.sample(5, generator(2))
        # A flow without a single tensor has no dtype of its own.
        expected = dtype if [*flow.parameters(), *flow.buffers()] else torch.get_default_dtype()
        assert samples.dtype == expected
        assert not samples.requires_grad
        z = torch.randn(5, *flow.latent_shape, generator=generator(2), dtype=expected)
        torch.testing.assert_close(flow(samples)[0], z, rtol=0, atol=1e-3 if expected == torch.float32 else 1e-9)

    @pytest.mark.parametrize("layer", [Logit(1.0), Scale((2,), 0.0, 2.0), Permutation(torch.tensor([1, 0]))])
    def test_a_flow_without_parameters_can_be_sampled(self, layer: Layer) -> None:
        samples = EBFlow((2,), [layer]).sample(4, generator())
        assert samples.shape == (4, 2)
        assert samples.dtype == torch.float32

    @PLANE_FLOWS
    def test_samples_follow_the_density(self, build, randomise) -> None:
        """Pearson's chi-squared over cells of the plane, cell probabilities by a sum over a fine grid."""
        flow = randomise(build())
        n, cells, fine, reach = 40_000, 30, 20, 4.5
        width = 2 * reach / (cells * fine)
        unit = -reach + width * (torch.arange(cells * fine, dtype=DOUBLE) + 0.5)
        with torch.no_grad():
            mean, axes = whitening(flow)
            density = flow.log_prob(mean + torch.cartesian_prod(unit, unit) @ axes.mT).exp() * axes.det()
        expected = n * density.reshape(cells, fine, cells, fine).sum(dim=(1, 3)) * width**2
        whitened = torch.linalg.solve(axes, (flow.sample(n, generator(5)) - mean).mT).mT
        index = ((whitened + reach) / (width * fine)).floor().long()
        inside = ((index >= 0) & (index < cells)).all(1)
        index = index[inside]
        observed = torch.bincount(index[:, 0] * cells + index[:, 1], minlength=cells**2).view(cells, cells)
        common = expected >= 10
        # All rare cells, and the plane outside of the grid, make one cell more.
        rest = n - expected[common].sum()
        chi_squared = ((observed[common] - expected[common]).square() / expected[common]).sum()
        chi_squared += (n - observed[common].sum() - rest).square() / rest
        degrees = int(common.sum())
        assert degrees > 50
        # chi^2 has mean `degrees` and variance 2 `degrees`: five standard deviations.
        assert chi_squared.item() < degrees + 5 * math.sqrt(2 * degrees)

    def test_a_generator_decides_and_the_global_one_is_untouched(self, randomise) -> None:
        flow = randomise(dense(3))
        state = torch.get_rng_state()
        first = flow.sample(4, generator(1))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(flow.sample(4, generator(1)), first)
        assert not torch.equal(flow.sample(4, generator(2)), first)

    def test_without_a_generator_the_global_seed_decides(self, randomise) -> None:
        flow = randomise(dense(3))
        torch.manual_seed(3)
        first = flow.sample(4)
        assert not torch.equal(flow.sample(4), first)
        torch.manual_seed(3)
        assert torch.equal(flow.sample(4), first)


class TestInitialize:
    def test_sets_every_layer_from_what_reaches_it(self, randomise) -> None:
        layers = [ActNorm((3,)), Dense(3), SmoothLeakyReLU(), ActNorm((3,))]
        flow = EBFlow((3,), layers)
        randomise(layers[1])
        flow.double()
        x = 4 + 2 * torch.randn(200, 3, dtype=DOUBLE)
        flow.initialize(x)
        after_first, _ = layers[0](x)
        for values in (after_first, flow(x)[0]):
            torch.testing.assert_close(values.mean(0), torch.zeros(3, dtype=DOUBLE), rtol=0, atol=1e-9)
            torch.testing.assert_close(values.std(0), torch.ones(3, dtype=DOUBLE))
        assert all(parameter.grad_fn is None and parameter.requires_grad for parameter in flow.parameters())


class TestShapes:
    def test_layers_must_fit_each_other(self) -> None:
        with pytest.raises(ValueError, match=r"Dense takes samples of shape \(3,\), not \(4,\)"):
            EBFlow((4,), [SmoothLeakyReLU(), Dense(3)])
        with pytest.raises(ValueError, match=r"takes samples of shape \(1, 4, 4\), not \(4, 2, 2\)"):
            EBFlow((1, 4, 4), [Squeeze(), Convolution((1, 4, 4), 3)])

    @pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
    def test_samples_must_have_components(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="at least one component"):
            EBFlow(shape, [])

    def test_latent_shape(self) -> None:
        assert image().latent_shape == (16,)
        assert EBFlow([1, 4, 2], iter([Squeeze()])).latent_shape == (4, 2, 1)

    # Each of these could pass as another batch by a reshape or by broadcasting.
    @pytest.mark.parametrize("shape", [(16, 1), (1, 16), (4, 2, 2), (2, 4, 2), (2, 2, 2, 4), ()])
    def test_batches_of_another_shape_are_refused(self, shape: tuple[int, ...], randomise) -> None:
        flow = image()
        for call in (flow, flow.energy, flow.log_prob, flow.score, flow.initialize):
            with pytest.raises(ValueError, match=r"shape \(B, 2, 4, 2\)"):
                call(torch.zeros(shape))
        with pytest.raises(ValueError, match=r"shape \(B, 16\)"):
            flow.inverse(torch.zeros(2, 8, 2, 1))
