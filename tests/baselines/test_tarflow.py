"""TarFlow: its Jacobian, its order of tokens and its inverse, on images, vectors, a prime D and D = 1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from baselines._causal_transformer import CausalTransformer
from baselines._tokens import Tokens, patch_side
from harness.conformance.subject import jacobians
from harness.methods import Model, Problem
from harness.methods.density import build, log_prob
from harness.methods.registry import registry

SHAPES = [(1,), (2,), (64,), (67,), (1, 8, 8)]

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def moved(shape: tuple[int, ...]) -> Model:
    """A model whose every trained number is away from the start."""
    model = build(registry().find("tarflow-ml"), Problem(shape=shape, dtype="float64"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def draw(shape: tuple[int, ...], n: int = 3) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("dimension", "side"),
    [(784, 4), (64, 2), (256, 4), (1024, 8), (225, 3), (16, 1), (1, 0), (9, 0), (63, 0), (3072, 0), (46**2, 0)],
)
def test_squares_are_cut_into_patches(dimension: int, side: int) -> None:
    assert patch_side(dimension) == side


@pytest.mark.parametrize(
    ("dimension", "count", "size"), [(784, 49, 16), (64, 16, 4), (63, 63, 1), (67, 34, 2), (3072, 64, 48), (1, 1, 1)]
)
def test_there_are_at_most_64_tokens(dimension: int, count: int, size: int) -> None:
    tokens = Tokens(dimension)
    assert (tokens.count, tokens.size) == (count, size)
    x = draw((dimension,))
    assert tokens.cut(x).shape == (3, count, size)
    assert torch.equal(tokens.joined(tokens.cut(x)), x)


def test_a_token_is_a_patch() -> None:
    tokens = Tokens(64).cut(torch.arange(64.0).view(1, 64))
    assert tokens[0, :5].tolist() == [[0, 1, 8, 9], [2, 3, 10, 11], [4, 5, 12, 13], [6, 7, 14, 15], [16, 17, 24, 25]]


@pytest.mark.parametrize("token", range(5))
def test_shift_and_scale_depend_on_earlier_tokens_alone(token: int) -> None:
    torch.manual_seed(0)
    transformer = CausalTransformer(tokens=5, size=2, width=8, depth=2, heads=2).double()
    nn.init.normal_(transformer.output.weight)
    tokens = draw((5, 2)).requires_grad_()
    for output in transformer(tokens):
        (gradient,) = torch.autograd.grad(output[:, token].square().sum(), tokens, retain_graph=True)
        assert bool((gradient[:, :token] != 0).all())
        assert not bool(gradient[:, token:].any())


@pytest.mark.parametrize("backwards", [False, True])
def test_blocks_read_in_turn(backwards: bool) -> None:
    model, x = moved((1, 8, 8)), draw((1, 8, 8))
    with torch.no_grad():
        for number, block in enumerate(model.module.blocks):
            if (number % 2 == 1) != backwards:  # a block without output moves nothing
                block.output.weight.zero_()
                block.output.bias.zero_()
    jacobian = jacobians(model, x)
    corners = {False: [0, 1, 8, 9], True: [54, 55, 62, 63]}  # the patch that is read first
    first, last = corners[backwards], corners[not backwards]
    assert torch.equal(jacobian[:, first].count_nonzero(2), torch.ones(3, 4, dtype=torch.long))
    assert bool((jacobian[:, last][:, :, first] != 0).all())


@every_shape
def test_it_starts_as_the_identity(shape: tuple[int, ...]) -> None:
    model = build(registry().find("tarflow-ml"), Problem(shape=shape, dtype="float64"))
    x = draw(shape)
    z, log_det = model.to_latent(x)
    assert torch.equal(z.view_as(x), x)
    assert torch.equal(log_det, torch.zeros(3, dtype=torch.float64))


@every_shape
def test_the_log_determinant_is_that_of_the_jacobian(shape: tuple[int, ...]) -> None:
    model, x = moved(shape), draw(shape)
    truth = torch.linalg.slogdet(jacobians(model, x)).logabsdet
    assert float(truth.abs().min()) > 0.01
    torch.testing.assert_close(model.to_latent(x)[1], truth, rtol=1e-10, atol=1e-10)


@every_shape
def test_the_way_back_is_the_inverse(shape: tuple[int, ...]) -> None:
    model, x = moved(shape), draw(shape)
    with torch.no_grad():
        z = model.to_latent(x)[0]
        assert float((z.view_as(x) - x).abs().max()) > 0.1
        torch.testing.assert_close(model.to_data(z), x, rtol=1e-8, atol=1e-8)


def test_images_have_the_density_of_their_vectors() -> None:
    x = draw((1, 8, 8))
    torch.testing.assert_close(log_prob(moved((1, 8, 8)), x), log_prob(moved((64,)), x.flatten(1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_from_the_data_there_is_no_density_and_never_nan(dtype: torch.dtype) -> None:
    model = moved((4,))
    model.module.to(dtype)
    for exponent in (3, 10, 19, 25, 30):
        value = log_prob(model, 10.0**exponent * draw((4,)).to(dtype))
        assert (value < -1e4).all()
