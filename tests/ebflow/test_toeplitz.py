"""The matrix of a convolution and its log-determinant, against a convolution of the identity."""

import pytest
import torch
from torch.nn.functional import conv2d

from ebflow import SingularJacobianError
from ebflow.layers import Convolution, toeplitz

# Kernel size, channels, height, width: no window, one, and many; a kernel beyond the image; a pixel; a row.
CASES = [
    (7, 1, 28, 5),
    (7, 2, 7, 4),
    (7, 2, 6, 3),
    (7, 3, 13, 2),
    (5, 2, 8, 3),
    (3, 3, 9, 4),
    (1, 2, 6, 5),
    (7, 2, 2, 3),
]
CASES += [(3, 1, 1, 1), (5, 2, 1, 6), (3, 4, 12, 1)]


def by_identity(kernel: torch.Tensor, height: int, width: int) -> torch.Tensor:
    size = len(kernel) * height * width
    basis = torch.eye(size, dtype=kernel.dtype).view(size, len(kernel), height, width)
    return conv2d(basis, kernel, padding="same").flatten(1).mT


def random_kernel(size: int, channels: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(channels, channels, size, size, generator=generator, dtype=torch.float64)
    return (kernel / (size * channels**0.5)).requires_grad_()


@pytest.mark.parametrize(("size", "channels", "height", "width"), CASES)
def test_matrix_and_log_determinant(size: int, channels: int, height: int, width: int) -> None:
    kernel = random_kernel(size, channels)
    expected = by_identity(kernel, height, width)
    assert torch.equal(toeplitz.matrix(kernel, height, width), expected)
    expected = torch.linalg.slogdet(expected).logabsdet
    found = toeplitz.log_abs_det(kernel, height, width)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(value, kernel)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8 * gradients[1].abs().max().item())


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(lambda kernel: toeplitz.log_abs_det(kernel, 7, 2), (random_kernel(3, 2),))


@pytest.mark.parametrize(("size", "channels"), [(3, 2), (5, 1)])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_second_derivatives_and_forward_mode(size: int, channels: int) -> None:
    def function(kernel: torch.Tensor) -> torch.Tensor:
        return toeplitz.log_abs_det(kernel, 7, 2)

    kernel = random_kernel(size, channels)
    assert torch.autograd.gradcheck(function, (kernel,), check_forward_ad=True, check_batched_forward_grad=True)
    assert torch.autograd.gradgradcheck(function, (kernel,), check_fwd_over_rev=True)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_torch_func_differentiates_as_it_does_the_whole_matrix() -> None:
    def banded(kernel: torch.Tensor) -> torch.Tensor:
        return toeplitz.log_abs_det(kernel, 7, 2)

    def whole(kernel: torch.Tensor) -> torch.Tensor:
        return torch.linalg.slogdet(toeplitz.matrix(kernel, 7, 2)).logabsdet

    kernels = torch.stack([random_kernel(3, 1).detach(), random_kernel(3, 1).detach() + 1])
    torch.testing.assert_close(torch.func.vmap(banded)(kernels), torch.func.vmap(whole)(kernels))
    for derivative in (torch.func.grad, torch.func.hessian):
        torch.testing.assert_close(derivative(banded)(kernels[0]), derivative(whole)(kernels[0]))
    tangent = (kernels[:1], kernels[1:])
    torch.testing.assert_close(
        torch.func.jvp(torch.func.vmap(banded), *((each,) for each in tangent)),
        torch.func.jvp(torch.func.vmap(whole), *((each,) for each in tangent)),
    )


def test_rows_are_exchanged_where_a_pivot_is_zero() -> None:
    # Each pixel becomes the sum of its two neighbours above and below: all leading blocks of odd height are singular,
    # the matrix of even height is not; its determinant is -1 or 1 for every column.
    kernel = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    kernel[0, 0, 0, 1] = kernel[0, 0, 2, 1] = 1
    assert toeplitz.log_abs_det(kernel, 10, 3).item() == pytest.approx(0, abs=1e-12)
    assert toeplitz.log_abs_det(kernel, 9, 3).item() == -torch.inf


@pytest.mark.parametrize("height", [2, 7])
def test_singular(height: int) -> None:
    assert toeplitz.log_abs_det(torch.zeros(2, 2, 3, 3), height, 3).item() == -torch.inf


def test_float32_stays_close_to_float64() -> None:
    kernel = random_kernel(7, 1).detach() * 0.1
    kernel[0, 0, 3, 3] += 1
    exact = toeplitz.log_abs_det(kernel, 28, 28).item()
    assert toeplitz.log_abs_det(kernel.float(), 28, 28).item() == pytest.approx(exact, rel=1e-5)


def test_no_values_are_needed_for_the_shape() -> None:
    kernel = torch.empty(2, 2, 3, 3, device="meta", requires_grad=True)
    value = toeplitz.log_abs_det(kernel, 9, 4)
    assert value.shape == ()
    assert torch.autograd.grad(value, kernel)[0].shape == kernel.shape


def solved(kernel: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return toeplitz.solve(kernel, y)[0]


def solved_whole(kernel: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    whole = toeplitz.matrix(kernel, *y.shape[2:])
    return torch.linalg.solve(whole, y.flatten(1).mT).mT.reshape(y.shape)


@pytest.mark.parametrize(("size", "channels", "height", "width"), CASES)
def test_the_band_is_solved_as_the_whole_matrix(size: int, channels: int, height: int, width: int) -> None:
    kernel = random_kernel(size, channels, seed=1)
    y = torch.randn(3, channels, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, pivot = toeplitz.solve(kernel, y)
    torch.testing.assert_close(conv2d(x, kernel, padding="same"), y, rtol=0, atol=1e-9 * float(x.abs().max().detach()))
    assert float(pivot.detach()) > 0
    weights = torch.randn_like(y)
    gradients = [torch.autograd.grad((f(kernel, y) * weights).sum(), kernel)[0] for f in (solved, solved_whole)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-7 * gradients[1].abs().max().item())


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_torch_func_solves_the_band_too() -> None:
    kernels = torch.stack([random_kernel(3, 1).detach(), random_kernel(3, 1).detach() + 1])
    y = torch.randn(2, 4, 1, 7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(solved)(kernels, y), torch.func.vmap(solved_whole)(kernels, y))
    tangents = ((kernels[0], y[0]), (kernels[1], y[1]))
    torch.testing.assert_close(torch.func.jvp(solved, *tangents), torch.func.jvp(solved_whole, *tangents))


def test_solving_exchanges_rows_and_tells_what_is_singular() -> None:
    kernel = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    kernel[0, 0, 0, 1] = kernel[0, 0, 2, 1] = 1
    y = torch.randn(2, 1, 10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, pivot = toeplitz.solve(kernel, y)
    torch.testing.assert_close(conv2d(x, kernel, padding="same"), y, rtol=0, atol=1e-12)
    assert float(pivot) == 1
    assert float(toeplitz.solve(kernel, y[:, :, :9])[1]) == 0
    assert [part.shape for part in toeplitz.solve(kernel.to("meta"), y.to("meta"))] == [y.shape, torch.Size([])]


def test_a_large_convolution_is_inverted_along_its_band(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Convolution((2, 24, 24), 7).double()
    with torch.no_grad():
        layer.weight += 0.02 * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    y = torch.randn(5, 2, 24, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = layer.inverse(y)
    torch.testing.assert_close(layer(x)[0], y, rtol=0, atol=1e-10)
    monkeypatch.setattr("ebflow.layers.convolution._DENSE_UP_TO", 2000)
    torch.testing.assert_close(layer.inverse(y), x, rtol=1e-9, atol=1e-10)
    monkeypatch.undo()
    for value, message in ((0.0, "Convolution is singular"), (float("nan"), "holds a weight that is not finite")):
        with torch.no_grad():
            layer.weight.fill_(value)
        with pytest.raises(SingularJacobianError, match=message):
            layer.inverse(y)


def test_a_large_inverse_can_be_exported() -> None:
    class Inverse(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Convolution((1, 32, 32), 3)

        def forward(self, y: torch.Tensor) -> torch.Tensor:
            return self.layer.inverse(y)

    inverse, y = Inverse(), torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(inverse, (y,)).module()
    torch.testing.assert_close(exported(y), inverse(y), rtol=1e-4, atol=1e-5)
