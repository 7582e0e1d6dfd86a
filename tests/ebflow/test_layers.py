"""What every layer promises, tested for all of them, and what some promise alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from layer_cases import DOUBLE, LAYERS, Case
from torch import Tensor, nn

import ebflow.layers
from ebflow.layers import (
    ActNorm,
    Chain,
    ChannelCoupling,
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
)

CASES = pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS.keys())
CONSTANT = {name: case for name, case in LAYERS.items() if case.build().constant_jacobian}
CONSTANT_CASES = pytest.mark.parametrize("case", CONSTANT.values(), ids=CONSTANT.keys())
TRAINED = {name: case for name, case in LAYERS.items() if list(case.build().parameters())}
TRAINED_CASES = pytest.mark.parametrize("case", TRAINED.values(), ids=TRAINED.keys())


def jacobian(layer: Layer, x: Tensor) -> Tensor:
    """The autograd Jacobians, shape (B, D, D)."""
    size = x[0].numel()
    return torch.func.vmap(torch.func.jacrev(lambda one: layer(one[None])[0]))(x).reshape(len(x), size, size)


def log_det(layer: Layer, x: Tensor) -> Tensor:
    """What the layer says about log|det J|, all of it, shape (B,)."""
    constant = sum(part.log_abs_det() for part in layer.constant_layers())
    return (layer(x)[1] + constant).expand(len(x))


def test_every_layer_of_the_package_has_a_case() -> None:
    exported = {getattr(ebflow.layers, name) for name in ebflow.layers.__all__}
    concrete = {layer for layer in exported if not layer.__abstractmethods__}
    assert concrete == {type(case.build()) for case in LAYERS.values()}


@CASES
def test_inverse_undoes_forward_and_forward_inverse(case: Case, randomise) -> None:
    layer = randomise(case.build())
    x = case.batch(20)
    y, _ = layer(x)
    assert (layer.inverse(y) - x).abs().max() < 1e-9
    assert (layer(layer.inverse(y))[0] - y).abs().max() < 1e-9
    assert layer.inverse(y).shape == x.shape


@CASES
def test_round_trip_in_float32_is_as_good_as_the_condition_number_allows(case: Case, randomise) -> None:
    layer = randomise(case.build())
    x = case.batch(20)
    condition = torch.linalg.cond(jacobian(layer, x)).max().item()
    layer, single = layer.float(), x.float()
    y, _ = layer(single)
    back = layer.inverse(y)
    assert y.dtype == back.dtype == torch.float32
    error = (back - single).abs().max().item()
    assert error < 20 * torch.finfo(torch.float32).eps * condition * (1 + x.abs().max().item())


@pytest.mark.parametrize("seed", range(3))
@CASES
def test_log_det_is_that_of_the_autograd_jacobian(case: Case, seed: int, randomise) -> None:
    layer = randomise(case.build(), seed)
    x = case.batch(4)
    torch.testing.assert_close(
        log_det(layer, x), torch.linalg.slogdet(jacobian(layer, x)).logabsdet, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize(
    "name",
    [
        *("dense", "lower triangular", "upper triangular"),
        *("convolution, k=3", "convolution, k=5", "convolution, k=7, beyond the image", "convolution 1x1"),
    ],
)
def test_log_det_holds_for_either_sign_of_the_determinant(name: str, randomise) -> None:
    case = LAYERS[name]
    x = case.batch(1)
    signs = set()
    for seed in range(40):
        layer = randomise(case.build(), seed)
        sign, expected = torch.linalg.slogdet(jacobian(layer, x))
        signs.add(sign.item())
        torch.testing.assert_close(log_det(layer, x), expected, rtol=1e-9, atol=1e-9)
    assert signs == {-1.0, 1.0}


@CASES
def test_the_layer_tells_the_truth_about_its_jacobian(case: Case, randomise) -> None:
    layer = randomise(case.build())
    here, there = jacobian(layer, case.batch(2))
    moves = (here - there).abs().max().item() > 1e-6
    assert moves != layer.constant_jacobian


@CONSTANT_CASES
def test_forward_of_a_constant_layer_returns_a_scalar_zero_without_a_determinant(
    case: Case, randomise, linear_algebra
) -> None:
    layer = randomise(case.build())
    x = case.batch(3).requires_grad_()
    with linear_algebra:
        y, ladj = layer(x)
        y.sum().backward()
    assert linear_algebra.calls == []
    assert ladj.shape == ()
    assert ladj.item() == 0
    assert not ladj.requires_grad


@CONSTANT_CASES
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_constant_log_abs_det_is_a_scalar_of_the_modules_dtype(case: Case, dtype: torch.dtype, randomise) -> None:
    ladj = randomise(case.build(), dtype=dtype).log_abs_det()
    assert ladj.shape == ()
    assert ladj.dtype == dtype


@pytest.mark.parametrize("name", [name for name in TRAINED if name in CONSTANT])
def test_gradient_of_log_abs_det(name: str, randomise) -> None:
    layer = randomise(LAYERS[name].build())
    # gradcheck moves the parameters in place, so the function may ignore its arguments.
    assert torch.autograd.gradcheck(lambda *_: layer.log_abs_det(), tuple(layer.parameters()))


@CASES
def test_first_and_second_derivatives_of_forward(case: Case, randomise) -> None:
    layer = randomise(case.build())
    inputs = (case.batch(2).requires_grad_(), *layer.parameters())

    def both(x: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        y, ladj = layer(x)
        return (y, ladj) if ladj.requires_grad else (y,)

    assert torch.autograd.gradcheck(both, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(both, inputs, fast_mode=True)


@CASES
def test_first_and_second_derivatives_of_inverse(case: Case, randomise) -> None:
    layer = randomise(case.build())
    y = layer(case.batch(2))[0].detach().requires_grad_()
    inputs = (y, *layer.parameters())
    assert torch.autograd.gradcheck(lambda y, *_: layer.inverse(y), inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda y, *_: layer.inverse(y), inputs, fast_mode=True)


@TRAINED_CASES
def test_gradients_reach_every_parameter(case: Case, randomise) -> None:
    layer = randomise(case.build())
    x = case.batch(4)
    (layer(x)[0].square().sum() + log_det(layer, x).sum()).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@CASES
@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_shapes(case: Case, n: int, device: str) -> None:
    layer = case.build().to(device)
    y, ladj = layer(case.batch(n, torch.float32).to(device))
    assert y.shape == (n, *layer.output_shape(case.shape))
    assert ladj.shape == (() if layer.constant_jacobian else (n,))
    back = layer.inverse(y)
    assert back.shape == (n, *case.shape)
    assert y.device.type == ladj.device.type == back.device.type == device
    if layer.constant_jacobian:
        assert layer.log_abs_det().shape == ()
        assert layer.log_abs_det().device.type == device


@CASES
def test_can_be_built_on_meta_and_filled_from_a_state_dict(case: Case, randomise) -> None:
    trained = randomise(case.build(), dtype=torch.float32)
    with torch.device("meta"):
        layer = case.build()
    layer.to_empty(device="cpu")
    for tensor in (*layer.parameters(), *layer.buffers()):
        tensor.data.fill_(math.nan if tensor.is_floating_point() else 0)  # what uninitialised memory may hold
    layer.load_state_dict(trained.state_dict())
    x = case.batch(3, torch.float32)
    torch.testing.assert_close(layer(x)[0], trained(x)[0])
    torch.testing.assert_close(log_det(layer, x), log_det(trained, x))


@TRAINED_CASES
def test_state_dict_restores_the_whole_layer(case: Case, randomise) -> None:
    trained, fresh = randomise(case.build()), case.build().to(DOUBLE)
    x = case.batch(3)
    assert not torch.allclose(fresh(x)[0], trained(x)[0])
    fresh.load_state_dict(copy.deepcopy(trained.state_dict()))
    assert torch.equal(fresh(x)[0], trained(x)[0])
    assert torch.equal(log_det(fresh, x), log_det(trained, x))


def test_state_dict_restores_the_order_of_a_permutation() -> None:
    other = Permutation(torch.tensor([0, 1, 2, 3]))
    other.load_state_dict(Permutation(torch.tensor([2, 0, 3, 1])).state_dict())
    assert other(torch.arange(4.0)[None])[0].tolist() == [[2, 0, 3, 1]]


@CASES
def test_samples_do_not_see_each_other(case: Case, randomise) -> None:
    layer = randomise(case.build())
    x = case.batch(3)
    y, ladj = layer(x)
    back = layer.inverse(y)
    for index in range(3):
        alone, ladj_alone = layer(x[index : index + 1])
        torch.testing.assert_close(alone[0], y[index])
        torch.testing.assert_close(ladj_alone.expand(1)[0], ladj.expand(3)[index])
        torch.testing.assert_close(layer.inverse(y[index : index + 1])[0], back[index])


@CASES
def test_inputs_are_left_alone(case: Case, randomise) -> None:
    layer = randomise(case.build())
    x = case.batch(3)
    before = x.clone()
    y, _ = layer(x)
    assert torch.equal(x, before)
    before = y.clone()
    layer.inverse(y)
    assert torch.equal(y, before)
    assert not x.requires_grad


@CASES
def test_other_shapes_are_refused(case: Case) -> None:
    layer = case.build()
    for shape in case.refuses:
        with pytest.raises(ValueError, match="shape"):
            layer.output_shape(shape)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Dense(0), "dimension of at least 1, not 0"),
        (lambda: Triangular(0, upper=True), "dimension of at least 1, not 0"),
        (lambda: Convolution((4,), 3), "images"),
        (lambda: Convolution((1, 4, 4), 4), "odd kernel size, not 4"),
        (lambda: Convolution((1, 4, 4), -1), "odd kernel size, not -1"),
        (lambda: Convolution1x1((4, 4)), "images"),
        (lambda: Scale((2,), 0.0, 0.0), "other than zero"),
        (lambda: Scale((2,), 0.0, math.nan), "other than zero"),
        (lambda: Logit(0.0), "positive"),
        (lambda: Logit(-1.0), "positive"),
        (lambda: Logit(math.nan), "positive"),
        (lambda: Permutation(torch.tensor([0, 1, 1])), r"permutation of 0\.\.2"),
        (lambda: Permutation(torch.tensor([1, 2, 3])), r"permutation of 0\.\.2"),
        (lambda: Permutation(torch.tensor([1.0, 0.0])), "not torch.float32"),
        (lambda: Permutation(torch.tensor([True, False])), "not torch.bool"),
        (lambda: Permutation(torch.tensor([[0, 1]])), r"of shape \(1, 2\)"),
        (lambda: Reshape((2, 3), (5,)), "number of components"),
        (lambda: ChannelCoupling((3, 2, 2), nn.Identity()), r"even number of channels, not of shape \(3, 2, 2\)"),
        (lambda: ChannelCoupling((4,), nn.Identity()), "images"),
        (lambda: Split((3, 2, 2), []), r"even number of channels, not samples of shape \(3, 2, 2\)"),
        (lambda: Split((4, 2, 2), [ActNorm((4, 2, 2))]), r"not \(2, 2, 2\)"),
    ],
)
def test_bad_arguments_are_refused(build: Callable[[], Layer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "layer",
    [
        Dense(5),
        Triangular(5, upper=False),
        Triangular(5, upper=True),
        Convolution((3, 4, 2), 1),
        Convolution((2, 3, 5), 5),
        ActNorm((3, 2, 2)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_starts_as_the_identity(layer: Layer) -> None:
    x = torch.randn(4, *(layer.shape if hasattr(layer, "shape") else (5,)))
    torch.testing.assert_close(layer(x)[0], x)


@pytest.mark.parametrize("upper", [False, True])
def test_a_triangular_layer_is_the_triangle_of_what_fills_it(upper: bool) -> None:
    layer = Triangular(4, upper=upper).to(DOUBLE)
    matrix = torch.randn(4, 4, dtype=DOUBLE)
    layer.fill(matrix)
    triangle = matrix.triu() if upper else matrix.tril()
    assert torch.equal(layer.matrix(), triangle)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 10
    x = torch.randn(3, 4, dtype=DOUBLE)
    torch.testing.assert_close(layer(x)[0], (triangle @ x.mT).mT)


@pytest.mark.parametrize("upper", [False, True])
def test_a_triangular_layer_needs_no_cubic_determinant_and_may_be_singular(upper: bool, linear_algebra) -> None:
    layer = Triangular(3, upper=upper)
    layer.fill(torch.ones(3, 3) - torch.diag(torch.tensor([0.0, 1.0, 0.0])))
    with linear_algebra:
        value = layer.log_abs_det()
    assert linear_algebra.calls == []
    assert value.item() == -math.inf


def test_1x1_convolution_starts_as_a_rotation_or_reflection() -> None:
    weight = Convolution1x1((6, 2, 2)).weight
    torch.testing.assert_close(weight @ weight.mT, torch.eye(6))
    assert not torch.allclose(weight.abs(), torch.eye(6))


def test_squeeze_orders_channels_by_channel_row_column() -> None:
    x = torch.arange(16.0).reshape(1, 2, 2, 4)  # two channels of one row of two blocks
    y, _ = Squeeze()(x)
    assert y[0, :, 0, 0].tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
    assert y[0, :, 0, 1].tolist() == [2, 3, 6, 7, 10, 11, 14, 15]


def test_channel_coupling_reads_scales_from_even_and_shifts_from_odd_channels() -> None:
    h = torch.tensor([0.5, 3.0, -40.0, -1.0])  # scales exp(2 tanh(0.25)) and, at its bound, exp(-2)
    layer = ChannelCoupling((4, 1, 1), _Constant(h[:, None, None]))
    y, log_det = layer(torch.tensor([7.0, 8.0, 2.0, 3.0])[None, :, None, None])
    log_scales = [2 * math.tanh(0.25), -2.0]
    assert y.flatten().tolist() == pytest.approx(
        [7.0, 8.0, 2 * math.exp(log_scales[0]) + 3, 3 * math.exp(log_scales[1]) - 1]
    )
    assert log_det.item() == pytest.approx(sum(log_scales))


class _Constant(nn.Module):
    """A network whose output does not depend on its input."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        return self.output.expand(len(x), -1, -1, -1)


def test_split_puts_the_second_half_unchanged_behind_the_first() -> None:
    layer = Split((2, 1, 2), [Scale((1, 1, 2), 0.0, 0.5), Reshape((1, 1, 2), (2,))])
    y, log_det = layer(torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 1, 2))
    assert y.tolist() == [[2.0, 4.0, 3.0, 4.0]]
    assert log_det.tolist() == [0.0]
    assert [type(part) for part in layer.constant_layers()] == [Scale, Reshape]


def test_scale_keeps_its_numbers_through_single_precision() -> None:
    layer = Scale((1,), 0.1, 3.3).float().double()
    assert layer(torch.tensor([[0.7]], dtype=DOUBLE))[0].item() == (0.7 - 0.1) / 3.3
    assert layer.log_abs_det().item() == -math.log(3.3)


def test_logit_gives_nan_outside_the_unit_interval() -> None:
    y, ladj = Logit(0.5)(torch.tensor([[-0.1], [1.1], [0.5]]))
    assert y.isnan().flatten().tolist() == [True, True, False]
    assert ladj.isnan().tolist() == [True, True, False]


class TestActNormInitialize:
    @pytest.mark.parametrize("shape", [(3,), (3, 4, 2)])
    def test_its_batch_leaves_with_zero_mean_and_unit_deviation(self, shape: tuple[int, ...]) -> None:
        layer = ActNorm(shape).to(DOUBLE)
        scale = torch.tensor([1e-3, 1.0, 50.0], dtype=DOUBLE).reshape(3, *(1 for _ in shape[1:]))
        x = 5 + scale * torch.randn(40, *shape, dtype=DOUBLE)
        layer.initialize(x)
        channels = layer(x)[0].transpose(0, 1).flatten(1)
        torch.testing.assert_close(channels.mean(1), torch.zeros(3, dtype=DOUBLE), rtol=0, atol=1e-9)
        torch.testing.assert_close(channels.std(1), torch.ones(3, dtype=DOUBLE))
        expected = torch.linalg.slogdet(jacobian(layer, x[:1])).logabsdet[0]
        torch.testing.assert_close(layer.log_abs_det(), expected)

    def test_its_parameters_stay_the_same_leaves(self) -> None:
        layer = ActNorm((3,))
        before = list(layer.parameters())
        layer.initialize(torch.randn(8, 3))
        for parameter, old in zip(layer.parameters(), before, strict=True):
            assert parameter is old
            assert parameter.is_leaf
            assert parameter.requires_grad

    def test_an_empty_batch_is_refused(self) -> None:
        with pytest.raises(ValueError, match="empty batch"):
            ActNorm((3,)).initialize(torch.randn(0, 3))

    @pytest.mark.parametrize("shape", [(3,), (3, 1, 1)])
    def test_a_single_value_a_channel_has_no_scale_and_leaves_it_the_identity(self, shape: tuple[int, ...]) -> None:
        layer, x = ActNorm(shape), torch.randn(1, *shape)
        layer.initialize(x)
        torch.testing.assert_close(layer(x)[0], x)

    def test_takes_one_image_of_several_pixels(self) -> None:
        layer, x = ActNorm((2, 3, 3)), torch.randn(1, 2, 3, 3)
        layer.initialize(x)
        torch.testing.assert_close(layer(x)[0].std(dim=(0, 2, 3)), torch.ones(2))

    def test_refuses_a_constant_channel_and_stays_as_it_was(self) -> None:
        layer = ActNorm((3,))
        x = torch.randn(8, 3)
        x[:, 1] = 0.1  # whose standard deviation may be above zero by rounding
        with pytest.raises(ValueError, match=r"ActNorm cannot start from channel 1, which is 0.1 in all of the batch"):
            layer.initialize(x)
        torch.testing.assert_close(layer(x)[0], x)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_names_a_number_that_is_not_finite(self, value: float) -> None:
        x = torch.randn(8, 2, 3, 3)
        x[5, 1, 0, 2] = value
        with pytest.raises(ValueError, match=f"the data hold {value} at component 1, 0, 2 of sample 5"):
            ActNorm((2, 3, 3)).initialize(x)

    def test_a_spread_that_overflows_says_so(self) -> None:
        x = torch.tensor([[1.0, -3e38], [2.0, 3e38]])
        with pytest.raises(ValueError, match=r"the spread of channel 1 overflows torch.float32"):
            ActNorm((2,)).initialize(x)

    def test_runs_on_meta(self) -> None:
        layer = ActNorm((3,)).to("meta")
        layer.initialize(torch.empty(8, 3, device="meta"))
        assert layer.shift.shape == (3,)


def test_one_channel_in_float32_takes_another_kernel_to_the_same_numbers(randomise) -> None:
    layer = randomise(Convolution((1, 9, 6), 5), dtype=torch.float32)
    exact = copy.deepcopy(layer).double()
    x = torch.randn(7, 1, 9, 6, generator=torch.Generator().manual_seed(0))
    for name in ("transform", "linear", "adjoint"):
        gradients = []
        for subject, argument in ((layer, x.clone()), (exact, x.double())):
            argument.requires_grad_()
            y = getattr(subject, name)(argument)
            gradients.append((y, *torch.autograd.grad(y.square().sum(), (argument, subject.weight))))
        for found, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_a_determinant_keeps_its_precision_under_autocast() -> None:
    layer = Convolution((1, 9, 4), 3)
    with torch.autocast("cpu", torch.bfloat16):
        value = layer.log_abs_det()
    (gradient,) = torch.autograd.grad(value, layer.weight)
    assert value.dtype == gradient.dtype == torch.float32
    assert gradient.isfinite().all()


OTHER_CONSTANTS = {
    "SmoothLeakyReLU": (lambda: SmoothLeakyReLU(0.2), lambda: SmoothLeakyReLU(0.3), "alpha = 0.3, .* made with 0.2"),
    "residual": (lambda: SmoothLeakyReLU(0.2, True), lambda: SmoothLeakyReLU(0.2), "residual = 0, .* made with 1"),
    "Logit": (lambda: Logit(0.5), lambda: Logit(0.75), "alpha = 0.75, .* made with 0.5"),
    "Scale": (lambda: Scale((3,), 0.0, 256.0), lambda: Scale((3,), 0.0, 17.0), "divisor = 17, .* made with 256"),
    "Triangular": (lambda: Triangular(3, upper=True), lambda: Triangular(3, upper=False), "upper = 0, .* made with 1"),
}


@pytest.mark.parametrize(("saved", "own", "difference"), OTHER_CONSTANTS.values(), ids=OTHER_CONSTANTS.keys())
@pytest.mark.parametrize("strict", [True, False])
def test_weights_are_not_loaded_into_a_map_of_other_constants(
    saved: Callable[[], Layer], own: Callable[[], Layer], difference: str, strict: bool
) -> None:
    state = Chain((3,), [saved()]).state_dict()
    with pytest.raises(RuntimeError, match=f"layers.0: .* has {difference}"):
        Chain((3,), [own()]).load_state_dict(state, strict=strict)
    same = Chain((3,), [saved()])
    assert same.load_state_dict(state, strict=strict) == ([], [])


def test_constants_of_another_layer_are_refused() -> None:
    with pytest.raises(RuntimeError, match="Logit has 1 constants, the weights those of another layer"):
        Chain((3,), [Logit(0.5)]).load_state_dict(Chain((3,), [SmoothLeakyReLU(0.5)]).state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_state_that_was_cast_loads(dtype: torch.dtype) -> None:
    cast = {name: tensor.to(dtype) for name, tensor in Chain((3,), [SmoothLeakyReLU(0.3)]).state_dict().items()}
    Chain((3,), [SmoothLeakyReLU(0.3)]).load_state_dict(cast)
    with pytest.raises(RuntimeError, match=r"alpha = 0\.35"):
        Chain((3,), [SmoothLeakyReLU(0.35)]).load_state_dict(cast)


def test_weights_saved_without_constants_still_load() -> None:
    chain = Chain((3,), [Dense(3), SmoothLeakyReLU(0.2)])
    older = {name: tensor for name, tensor in chain.state_dict().items() if not name.endswith("_extra_state")}
    assert len(older) == len(chain.state_dict()) - 1
    assert chain.load_state_dict(older) == ([], [])
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"layers.0.bias\""):
        chain.load_state_dict({name: tensor for name, tensor in older.items() if "bias" not in name})
