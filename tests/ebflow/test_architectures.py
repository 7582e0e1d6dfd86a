"""The paper's networks: sizes, starting points, structure; and raw pixels inside the model."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from ebflow import EBFlow
from ebflow.architectures import Matrix, cnn, fc, glow, multimodal, raw_pixels, toy, whitened_fc
from ebflow.layers import (
    ActNorm,
    AffineCoupling,
    Chain,
    ChannelCoupling,
    Convolution,
    Convolution1x1,
    Dense,
    Layer,
    Logit,
    Reshape,
    Scale,
    SmoothLeakyReLU,
    Split,
    Squeeze,
    Triangular,
)

DOUBLE = torch.float64


def kinds(flow: Chain) -> list[type[Layer]]:
    return [type(layer) for layer in flow.layers]


@pytest.mark.parametrize(
    ("build", "shape", "count"),
    [
        (fc, (1, 28, 28), 1_230_880),
        (fc, (784,), 1_230_880),
        (fc, (3, 32, 32), 18_880_512),
        (cnn, (1, 28, 28), 26_796),
        (cnn, (3, 32, 32), 240_912),
        # Per coupling of C channels a 3 x 3 convolution from C / 2 to 512, a 1 x 1 convolution, a 3 x 3 convolution to
        # C, and C gains: 290,824 numbers for C = 4, 318,480 for C = 8. Per step 2 C of ActNorm and C^2 of the matrix.
        (glow, (1, 28, 28), 17 * 290_824 + 16 * 318_480 + 16 * (24 + 80)),
        # Per coupling two networks 2-64-64-64-2 of 8,642 and three units' 64 betas; 11 dense layers; 10 ActNorms.
        (toy, (2,), 10 * (2 * 8_642 + 3 * 64 + 4) + 11 * 6),
        (multimodal, (10,), 11 * 100 + 10 * 20),
        (partial(multimodal, matrix="lower"), (10,), 11 * 55 + 10 * 20),
        (partial(multimodal, matrix="upper"), (10,), 11 * 55 + 10 * 20),
        (partial(multimodal, matrix="lu"), (10,), 11 * 110 + 10 * 20),
    ],
)
def test_parameter_counts(build, shape: tuple[int, ...], count: int) -> None:
    with torch.device("meta"):
        flow = build(shape)
        x = torch.empty(2, *shape)
    assert sum(parameter.numel() for parameter in flow.parameters()) == count
    assert all(parameter.requires_grad for parameter in flow.parameters())
    assert flow.log_prob(x).shape == (2,)


class TestFC:
    @pytest.mark.parametrize("layers", [1, 2, 4])
    def test_structure(self, layers: int) -> None:
        alternating = [Dense] + (layers - 1) * [SmoothLeakyReLU, Dense]
        assert kinds(fc((6,), layers)) == alternating
        assert kinds(fc((1, 2, 3), layers)) == [Reshape, *alternating]

    def test_starts_at_minus_the_identity_with_unit_biases(self) -> None:
        for layer in fc((1, 2, 2), 3).layers:
            if isinstance(layer, Dense):
                assert torch.equal(layer.weight, -torch.eye(4))
                assert torch.equal(layer.bias, torch.ones(4))

    def test_starting_density_of_one_layer_is_a_unit_normal_around_one(self) -> None:
        x = torch.randn(5, 3, dtype=DOUBLE)
        expected = torch.distributions.Normal(1.0, 1.0).log_prob(x).sum(1)
        torch.testing.assert_close(fc((3,), 1).double().log_prob(x), expected)

    def test_options_reach_the_activations(self) -> None:
        for build, layers in ((fc, 3), (cnn, 3)):
            flow = build((1, 4, 4), layers, alpha=0.2, residual=True)
            activations = [layer for layer in flow.layers if isinstance(layer, SmoothLeakyReLU)]
            assert len(activations) == 2
            for layer in activations:
                assert (layer.rise, layer.lowest_slope) == (0.8, 1.2)

    def test_defaults_are_those_of_the_paper(self) -> None:
        x = torch.tensor([-1e6, 1e6])
        assert fc((2,)).layers[1].slope(x).tolist() == pytest.approx([0.3, 1.0])
        assert cnn((1, 4, 4)).layers[1].slope(x).tolist() == pytest.approx([1.3, 2.0])


class TestCNN:
    def test_structure(self) -> None:
        block = [Convolution, SmoothLeakyReLU]
        assert kinds(cnn((1, 8, 4))) == [*block, *block, Squeeze, *block, *block, Squeeze, *block, Convolution]
        assert kinds(cnn((1, 8, 4), 3)) == [*block, Squeeze, *block, Squeeze, Convolution]
        convolutions = [layer for layer in cnn((3, 8, 4)).layers if isinstance(layer, Convolution)]
        assert [layer.shape for layer in convolutions] == 2 * [(3, 8, 4)] + 2 * [(12, 4, 2)] + 2 * [(48, 2, 1)]
        assert {layer.weight.shape[2:] for layer in convolutions} == {(7, 7)}

    def test_kernels_start_at_minus_the_identity(self) -> None:
        for layer in cnn((2, 4, 4)).layers:
            if isinstance(layer, Convolution):
                with torch.no_grad():
                    layer.bias.zero_()
                x = torch.randn(3, *layer.shape)
                torch.testing.assert_close(layer(x)[0], -x)

    def test_biases_start_at_the_authors_standard_deviation(self) -> None:
        biases = [(layer.bias, layer.shape[0]) for layer in cnn((20, 4, 4)).layers if isinstance(layer, Convolution)]
        ratios = torch.cat([bias.detach() / (0.01 / math.sqrt(49 * channels)) for bias, channels in biases])
        # 840 draws of N(0, 1): five standard errors of the mean, 1 / sqrt(840), and of the variance, sqrt(2 / 840).
        assert abs(ratios.mean()) < 5 * math.sqrt(1 / 840)
        assert abs(ratios.var() - 1) < 5 * math.sqrt(2 / 840)

    @pytest.mark.parametrize("layers", [1, 2, 4, 7])
    def test_layers_must_be_a_multiple_of_three(self, layers: int) -> None:
        with pytest.raises(ValueError, match=f"multiple of 3, not {layers}"):
            cnn((1, 4, 4), layers)

    @pytest.mark.parametrize("shape", [(1, 6, 4), (1, 4, 6), (1, 3, 4)])
    def test_images_must_halve_twice(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="even height and width"):
            cnn(shape)

    def test_vectors_are_refused(self) -> None:
        with pytest.raises(ValueError, match="images"):
            cnn((16,))


class TestGlow:
    def test_structure(self) -> None:
        step = [ActNorm, Convolution1x1, ChannelCoupling]
        flow = glow((1, 8, 4), 6, width=3)
        assert kinds(flow) == [Squeeze, *step, *step, *step, ChannelCoupling, Split]
        nested = flow.layers[-1]
        assert kinds(nested) == [Squeeze, *step, *step, *step]
        assert [layer.shape for layer in flow.layers[1:-1]] == 10 * [(4, 4, 2)]
        assert [layer.shape for layer in nested.layers[1:]] == 9 * [(8, 2, 1)]
        assert flow.latent_shape == (32,)
        slopes = [layer.network.slope for layer in flow.layers if isinstance(layer, ChannelCoupling)]
        assert slopes == [0.1, 0.1, 0.1, 0.0]

    def test_a_network_is_three_convolutions(self) -> None:
        network = glow((1, 4, 4), 2, width=5).layers[3].network.double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_()
        x = torch.randn(3, 2, 4, 6, dtype=DOUBLE)

        def activation(h: torch.Tensor) -> torch.Tensor:
            return torch.where(h > 0, h, 0.1 * h)

        h = activation(torch.conv2d(x, network.first.weight.view(5, 2, 3, 3), network.first.bias, padding=1))
        h = activation(torch.conv2d(h, network.second.weight[:, :, None, None], network.second.bias))
        # Patches are added up where they lie: each entry of a patch goes where the turned kernel would read it.
        last = network.last.weight.view(4, 3, 3, 5).flip(1, 2).permute(0, 3, 1, 2)
        h = torch.conv2d(h, last, network.bias.flatten(), padding=1)
        torch.testing.assert_close(network(x), h * torch.exp(3 * network.log_gain))

    def test_couplings_start_as_the_identity(self) -> None:
        x = torch.randn(3, 4, 2, 2)
        for layer in glow((1, 4, 4), 2, width=5).layers:
            if isinstance(layer, ChannelCoupling):
                y, log_det = layer(x)
                assert torch.equal(y, x)
                assert torch.equal(log_det, torch.zeros(3))

    def test_log_prob_and_inverse_in_float64(self, randomise, log_density) -> None:
        flow = randomise(glow((1, 4, 4), 4, width=6))
        x = torch.randn(5, 1, 4, 4, dtype=DOUBLE)
        torch.testing.assert_close(flow.log_prob(x), log_density(flow, x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(flow.inverse(flow(x)[0]), x, rtol=0, atol=1e-9)

    def test_initialize_normalises_both_resolutions(self) -> None:
        # At the start couplings are the identity and 1 x 1 convolutions keep the sum of the variances.
        flow = glow((1, 8, 8), 2, width=4).double()
        x = 3 + 2 * torch.randn(400, 1, 8, 8, dtype=DOUBLE)
        flow.initialize(x)
        first, second = flow(x)[0].chunk(2, dim=1)
        for part, channels in ((first, 8), (second, 2)):
            values = part.reshape(400, channels, -1)
            torch.testing.assert_close(values.mean((0, 2)), torch.zeros(channels, dtype=DOUBLE), rtol=0, atol=1e-9)
        assert first.reshape(400, 8, -1).var((0, 2)).sum().item() == pytest.approx(8)

    @pytest.mark.parametrize("layers", [1, 3, 7])
    def test_layers_must_be_even(self, layers: int) -> None:
        with pytest.raises(ValueError, match=f"multiple of 2, not {layers}"):
            glow((1, 4, 4), layers)

    @pytest.mark.parametrize("shape", [(1, 6, 4), (1, 4, 6), (1, 3, 4), (16,)])
    def test_images_must_halve_twice(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="even height and width"):
            glow(shape, 2, width=4)


class TestToy:
    def test_structure(self) -> None:
        flow = toy()
        assert kinds(flow) == 10 * [Dense, AffineCoupling, ActNorm] + [Dense]
        masks = [layer.mask.tolist() for layer in flow.layers if isinstance(layer, AffineCoupling)]
        assert masks == 5 * [[0, 1], [1, 0]]
        assert kinds(toy((3,), 1)) == [Dense]

    def test_dense_layers_start_orthogonal(self) -> None:
        for layer in toy((4,), 3).layers:
            if isinstance(layer, Dense):
                torch.testing.assert_close(layer.weight @ layer.weight.mT, torch.eye(4))

    @pytest.mark.parametrize("dimension", [2, 3])
    def test_log_prob_and_inverse_in_float64(self, dimension: int, randomise, log_density) -> None:
        flow = toy((dimension,), 4, width=8)
        for layer in flow.layers:
            if isinstance(layer, AffineCoupling | ActNorm):
                randomise(layer)
        flow.double()
        x = torch.randn(5, dimension, dtype=DOUBLE)
        torch.testing.assert_close(flow.log_prob(x), log_density(flow, x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(flow.inverse(flow(x)[0]), x, rtol=0, atol=1e-9)

    def test_initialize_normalises_before_the_last_layer(self) -> None:
        flow = toy().double()
        x = 3 + 2 * torch.randn(500, 2, dtype=DOUBLE)
        flow.initialize(x)
        z, _ = flow(x)
        # The last layer starts orthogonal, which keeps zero means and the sum of the variances.
        torch.testing.assert_close(z.mean(0), torch.zeros(2, dtype=DOUBLE), rtol=0, atol=1e-9)
        assert z.var(0).sum().item() == pytest.approx(2)

    @pytest.mark.parametrize("shape", [(1,), (2, 2), ()])
    def test_other_shapes_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="at least two components"):
            toy(shape)


class TestMultimodal:
    @pytest.mark.parametrize(
        ("matrix", "linear"),
        [("full", [Dense]), ("lower", [Triangular]), ("upper", [Triangular]), ("lu", [Triangular, Triangular])],
    )
    def test_structure(self, matrix: Matrix, linear: list[type[Layer]]) -> None:
        assert kinds(multimodal(matrix=matrix)) == 10 * [*linear, SmoothLeakyReLU, ActNorm] + linear
        assert kinds(multimodal((3,), 1, matrix=matrix)) == linear

    def test_a_matrix_acts_on_rows(self) -> None:
        """z = x M, so that z_1 depends on all of x where M is lower triangular, and on x_1 alone where it is upper."""
        x = torch.randn(4, dtype=DOUBLE)
        for matrix, kept in (("lower", torch.triu), ("upper", torch.tril)):
            flow = multimodal((4,), 3, matrix=matrix).double()
            jacobian = torch.func.jacrev(lambda x, flow=flow: flow(x[None])[0][0])(x)
            assert (jacobian != 0).equal(kept(torch.ones(4, 4)).bool()), matrix

    def test_starts_orthogonal_and_as_triangles_of_it(self) -> None:
        (full,) = multimodal((5,), 1).double().layers
        torch.testing.assert_close(full.weight @ full.weight.mT, torch.eye(5, dtype=DOUBLE), atol=1e-6, rtol=0)
        first, second = multimodal((5,), 1, matrix="lu").layers
        assert (first.upper, second.upper) == (False, True)
        assert torch.equal(second.matrix(), torch.ones(5, 5).triu())
        # The last row of a triangle is a whole row of the orthogonal matrix.
        assert first.matrix()[-1].norm().item() == pytest.approx(1, abs=1e-6)
        assert all((first.matrix().diagonal() != 0).tolist())

    @pytest.mark.parametrize("matrix", ["full", "lower", "upper", "lu"])
    def test_log_prob_and_inverse_in_float64(self, matrix: Matrix, randomise, log_density) -> None:
        flow = randomise(multimodal((4,), 3, matrix=matrix))
        x = torch.randn(5, 4, dtype=DOUBLE)
        torch.testing.assert_close(flow.log_prob(x), log_density(flow, x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(flow.inverse(flow(x)[0]), x, rtol=0, atol=1e-8)

    def test_starts_from_data_without_a_singular_layer(self) -> None:
        x = 100 * torch.randn(500, 10, dtype=DOUBLE)
        for matrix in ("full", "lower", "upper", "lu"):
            flow = multimodal(matrix=matrix).double()
            flow.initialize(x)
            assert flow.log_prob(x).isfinite().all()
            assert flow.score(x).isfinite().all()
            assert all(layer.log_abs_det() > -50 for layer in flow.layers if layer.constant_jacobian)

    @pytest.mark.parametrize("shape", [(2, 2), ()])
    def test_other_shapes_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="takes vectors"):
            multimodal(shape)


@pytest.mark.parametrize("layers", [0, -3])
def test_a_flow_needs_a_layer(layers: int) -> None:
    for build, shape in ((fc, (4,)), (cnn, (1, 4, 4)), (glow, (1, 4, 4)), (toy, (2,)), (multimodal, (2,))):
        with pytest.raises(ValueError, match=f"at least one linear layer, not {layers}"):
            build(shape, layers)


@pytest.mark.parametrize("matrix", ["uper", "LU", "dense"])
def test_an_unknown_form_of_the_matrix_is_refused(matrix: str) -> None:
    with pytest.raises(ValueError, match=f"full, lower, upper, lu, not '{matrix}'"):
        multimodal((2,), matrix=matrix)


class TestRawPixels:
    @pytest.mark.parametrize("margin", [-0.1, 0.5, 0.7, math.nan])
    def test_a_margin_that_leaves_nothing_is_refused(self, margin: float) -> None:
        with pytest.raises(ValueError, match=f"below 0.5, not {margin}"):
            raw_pixels((1, 2, 2), margin=margin, alpha=0.5)

    @pytest.mark.parametrize("levels", [1, 0, -256])
    def test_a_single_grey_level_is_refused(self, levels: int) -> None:
        with pytest.raises(ValueError, match=f"at least two grey levels, not {levels}"):
            raw_pixels((1, 2, 2), levels=levels, alpha=0.5)

    # With a wide margin, the terms in its square show.
    @pytest.mark.parametrize("margin", [1e-6, 1e-3, 0.1])
    @pytest.mark.parametrize(("levels", "alpha"), [(256, 0.5), (17, 0.75)])
    def test_is_the_preprocessing_of_the_paper(self, margin: float, levels: int, alpha: float) -> None:
        shape = (1, 2, 3)
        flow = EBFlow(shape, raw_pixels(shape, levels=levels, margin=margin, alpha=alpha)).double()
        values = torch.tensor([0.0, 1e-3, 0.5, levels / 2, levels - 1.0, levels - 1e-6], dtype=DOUBLE).reshape(
            1, *shape
        )
        u = (values / levels + margin) * (1 - 2 * margin)
        expected = (u.log() - (-u).log1p()) / alpha
        y, varying = flow(values)
        # A rounding of u by eps moves log(1 - u) by eps / margin.
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
        leaf = values.clone().requires_grad_()
        (slopes,) = torch.autograd.grad(flow(leaf)[0].sum(), leaf)
        torch.testing.assert_close(
            varying - flow.log_normalizer(), slopes.log().flatten(1).sum(1), rtol=1e-9, atol=1e-9
        )
        by_hand = ((1 - 2 * margin) / levels / (alpha * u * (1 - u))).log().flatten(1).sum(1)
        torch.testing.assert_close(varying - flow.log_normalizer(), by_hand, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(flow.inverse(y), values, rtol=0, atol=1e-9)

    def test_only_the_scale_is_in_log_z(self) -> None:
        shape = (1, 2, 2)
        scale, logit = raw_pixels(shape, alpha=0.5)
        assert isinstance(scale, Scale)
        assert isinstance(logit, Logit)
        flow = EBFlow(shape, [scale, logit]).double()
        assert flow.log_normalizer().item() == pytest.approx(4 * math.log(256 / (1 - 2e-6)), rel=1e-12)

    @pytest.mark.parametrize("build", [fc, cnn, partial(glow, width=4)], ids=["fc", "cnn", "glow"])
    def test_goes_in_front(self, build, log_density) -> None:
        shape = (1, 4, 4)
        layers = raw_pixels(shape, alpha=0.5)
        flow = build(shape, 6, before=layers).double()
        assert tuple(flow.layers[:2]) == layers
        assert kinds(flow)[2:] == kinds(build(shape, 6))
        x = 256 * torch.rand(3, *shape, dtype=DOUBLE)
        torch.testing.assert_close(flow.log_prob(x), log_density(flow, x), rtol=1e-9, atol=1e-9)


FAR = {
    "fc": lambda: fc((4,), 3),
    "residual fc": lambda: fc((4,), 3, residual=True),
    "one component": lambda: fc((1,), 2),
    "whitened fc": lambda: whitened_fc((4,)),
    "cnn": lambda: cnn((1, 8, 8), 3),
    "glow": lambda: glow((1, 8, 8), 2, width=8),
    "toy": lambda: toy(),
    "toy of five": lambda: toy((5,), 5, width=16),
    "full": lambda: multimodal(),
    "lower": lambda: multimodal(matrix="lower"),
    "upper": lambda: multimodal(matrix="upper"),
    "lu": lambda: multimodal(matrix="lu"),
}


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("build", FAR.values(), ids=FAR.keys())
def test_far_from_the_data_there_is_no_density_and_never_nan(build, spread: float, dtype: torch.dtype) -> None:
    flow = build().to(dtype)
    if spread and not isinstance(flow.layers[0], Triangular):  # whose diagonals come near zero
        for parameter in flow.parameters():
            parameter.data += spread * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    for exponent in (1, 2, 3, 5, 8, 12, 16, 20, 25, 30):
        direction = torch.randn(16, *flow.shape, dtype=dtype)
        x = 10.0**exponent * torch.nn.functional.normalize(direction.flatten(1)).view_as(direction)
        log_prob = flow.log_prob(x).detach()
        assert not log_prob.isnan().any()
        assert flow.score(x).isfinite().all()
    assert (log_prob < -1e6).all()


def test_the_toy_flow_is_exact_as_far_as_numbers_reach() -> None:
    flow = toy().double()
    x = torch.tensor([[5.0, -3.0], [40.0, 30.0], [-60.0, 50.0]], dtype=DOUBLE)
    expected, z = torch.zeros(3, dtype=DOUBLE), x
    for layer in flow.layers:
        if isinstance(layer, AffineCoupling):
            kept, free = layer.mask * z, 1 - layer.mask
            log_scale = layer.log_scale(kept)
            z = kept + free * (z - layer.shift(kept)) / log_scale.exp()
            expected = expected - (free * log_scale).sum(1)
        else:
            z = layer.transform(z)
    expected = expected + flow.constant_log_det() - 0.5 * z.square().sum(1) - math.log(2 * math.pi)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-12, atol=0)
    assert expected[1:].max() < -500
    assert flow.log_prob(torch.tensor([[900.0, 900.0]], dtype=DOUBLE)).item() == -math.inf


def test_what_is_not_finite_stays_visible_in_couplings() -> None:
    for flow in (toy((2,), 2, width=8), glow((1, 4, 4), 2, width=8)):
        for value in (math.nan, math.inf):
            x = torch.zeros(2, *flow.shape)
            x[1].view(-1)[0] = value
            assert flow.score(x).flatten(1).isfinite().all(1).tolist() == [True, False]
            flow.zero_grad()
            flow.energy(x).sum().backward()
            assert not all(p.grad.isfinite().all() for p in flow.parameters() if p.grad is not None)
