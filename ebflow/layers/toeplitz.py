"""The matrix of a zero-padded convolution, and its log-determinant and inverse without that matrix.

Row by row of the image the matrix is Toeplitz and banded: a pixel meets the kernel's reach of rows above and below and
no other. Gaussian elimination keeps the band, so a window that slides down the image does all the work:
O(H (W C)^3) for H rows of W pixels and C channels, and not O(H^3 (W C)^3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["log_abs_det", "matrix", "solve"]


def matrix(kernel: Tensor, height: int, width: int) -> Tensor:
    """Return the D x D matrix of a "same" convolution of images flattened from (C, H, W), D = C H W.

    Args:
        kernel: Kernel of the convolution, shape (C, C, k, k), k odd.
        height: Height H of an image.
        width: Width W of an image.
    """
    size = len(kernel) * height * width
    return _blocks(kernel, height, 0, height, width).permute(0, 2, 3, 1, 4, 5).reshape(size, size)


def log_abs_det(kernel: Tensor, height: int, width: int) -> Tensor:
    """Return log|det| (nats) of the `matrix` of a convolution: a scalar, -inf if singular.

    The band is eliminated with partial pivoting, which is as stable as for the whole matrix. Each step
    eliminates as many image rows as the kernel reaches, from the rows carried along and as many fresh ones. The fresh
    rows are the same every time.

    Args:
        kernel: Kernel of the convolution, shape (C, C, k, k), k odd.
        height: Height H of an image.
        width: Width W of an image.
    """
    reach, row, fresh = _rows_of_band(kernel, width)
    carried = fresh[: height * row, reach * row :][:, : height * row]
    left = height
    terms = []
    while left > 2 * reach:
        columns = min(3 * reach, left) * row
        window = torch.cat([pad(carried, (0, columns - carried.shape[1])), fresh[:, :columns]])
        carried, term, *_ = _Elimination.apply(window, reach * row)
        terms.append(term)
        left -= reach
    rest = torch.cat([carried, fresh[: max(0, left - reach) * row, : left * row]])
    # The transpose for the reason that `Dense` gives.
    return torch.stack([*terms, torch.linalg.slogdet(rest.mT).logabsdet]).sum()


def solve(kernel: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images whose convolution is y, by the elimination of `log_abs_det` and a substitution back.

    Args:
        kernel: Kernel of the convolution, shape (C, C, k, k), k odd.
        y: Convolved images, shape (B, C, H, W).

    Returns:
        The images, shape (B, C, H, W), and the smallest pivot in absolute value, a scalar: zero if the matrix is
        singular, and the images are no numbers then.
    """
    height, width = y.shape[2:]
    reach, row, fresh = _rows_of_band(kernel, width)
    known = y.permute(2, 1, 3, 0).reshape(height * row, len(y))  # the components of an image row lie together
    carried, carried_known = fresh[: height * row, reach * row :][:, : height * row], known[: reach * row]
    size, left, eliminated = reach * row, height, []
    while left > 2 * reach:
        columns, below = min(3 * reach, left) * row, known[(height - left + reach) * row :][:size]
        window = torch.cat([pad(carried, (0, columns - carried.shape[1])), fresh[:, :columns]])
        factors, pivots, _ = torch.linalg.lu_factor_ex(window[:, :size])
        order = torch.lu_unpack(factors.detach(), pivots, unpack_data=False)[0].argmax(0)
        both = torch.cat([window[:, size:], torch.cat([carried_known, below])], 1)[order]
        solved = torch.linalg.solve_triangular(factors[:size], both[:size], upper=False, unitriangular=True)
        rest = torch.addmm(both[size:], factors[size:], solved, alpha=-1)
        carried, carried_known = rest.split([columns - size, len(y)], 1)
        eliminated.append((factors[:size], *solved.split([columns - size, len(y)], 1)))
        left -= reach
    rest = torch.cat([carried, fresh[: max(0, left - reach) * row, : left * row]])
    factors, pivots, _ = torch.linalg.lu_factor_ex(rest)
    x = torch.linalg.lu_solve(factors, pivots, torch.cat([carried_known, known[(height - left + reach) * row :]]))
    smallest = [factors.diagonal().abs().amin()]
    for factors, right, one in reversed(eliminated):
        first = torch.linalg.solve_triangular(factors, one - right @ x[: right.shape[1]], upper=True)
        x = torch.cat([first, x])
        smallest.append(factors.diagonal().abs().amin())
    return x.reshape(height, len(kernel), width, len(y)).permute(3, 1, 0, 2), torch.stack(smallest).amin()


def _rows_of_band(kernel: Tensor, width: int) -> tuple[int, int, Tensor]:
    """Return the kernel's reach r in image rows, the components of one row, and r inner rows of blocks, 3 r wide."""
    reach = max(1, kernel.shape[-1] // 2)  # the band of a 1 x 1 kernel is as wide as that of a 3 x 3 one
    row = len(kernel) * width
    fresh = _blocks(kernel, reach, -reach, 3 * reach, width)
    return reach, row, fresh.permute(2, 0, 3, 4, 1, 5).reshape(reach * row, 3 * reach * row)


def _blocks(kernel: Tensor, rows: int, first: int, columns: int, width: int) -> Tensor:
    """Return what joins output rows 0, 1, ... to the input rows from `first` on: a Toeplitz matrix of Toeplitz blocks.

    Its entries are those of the kernel, laid out by windows that move one step a row.

    Returns:
        Shape (C out, C in, rows, W, columns, W).
    """
    reach = kernel.shape[-1] // 2
    above, beside = rows - 1 - reach - first, width - 1 - reach
    below = rows + columns - 1 - kernel.shape[-1] - above
    padded = pad(kernel, (beside, beside, above, below))  # a negative number crops
    return padded.unfold(2, columns, 1).unfold(3, width, 1).flip(2, 3)


class _Elimination(torch.autograd.Function):
    """Eliminates the first n columns of a window: the rows left over, and log|det| of the block that is gone.

    With the columns parted in E (the first n) and F, and E = P [L1; L2] U, the rest is F2 - L2 T with T = L1^-1 F1, all
    rows permuted by P. With G the gradient at the rest and g that at the logarithm, the gradients are
    F' = [-L1^-T L2^T G; G] and E' = ([g L1^-T; 0] - F' T^T) U^-T.

    P, the factors, T and L1^-1 are outputs too, since `torch.func` lets a function keep nothing else. They have no
    derivatives. So derivatives that are differentiated again are computed from the window, by M = E2 E1^-1 and
    N = E1^-1 F1.
    """

    @staticmethod
    def forward(window: Tensor, n: int) -> tuple[Tensor, ...]:
        factors, pivots, _ = torch.linalg.lu_factor_ex(window[:, :n])  # which does not raise where it is singular
        order = torch.lu_unpack(factors, pivots, unpack_data=False)[0].argmax(0)
        right = window[order, n:]
        # The identity beside it, so that the backward pass has L1^-1 at hand.
        identity = torch.eye(n, dtype=window.dtype, device=window.device)
        beside = torch.cat([right[:n], identity], 1)
        solved, inverse = torch.linalg.solve_triangular(factors[:n], beside, upper=False, unitriangular=True).split(
            [right.shape[1], n], 1
        )
        rest = torch.addmm(right[n:], factors[n:], solved, alpha=-1)
        return rest, factors.diagonal().abs().log().sum(), order, factors, solved, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(inputs[0], *output[2:])
        ctx.save_for_forward(inputs[0], output[2], output[3])

    @staticmethod
    def backward(ctx: Any, rest_grad: Tensor, log_det_grad: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        window, order, factors, solved, inverse = ctx.saved_tensors
        n = factors.shape[1]
        if torch.is_grad_enabled():
            first, across, through = _parted(window, order, n)
            right_grad = torch.cat([-(across.mT @ rest_grad), rest_grad])
            of_log_det = torch.cat([log_det_grad * torch.linalg.inv(first).mT, torch.zeros_like(across)])
            left_grad = of_log_det - right_grad @ through.mT
        else:
            right_grad = torch.cat([-(inverse.mT @ (factors[n:].mT @ rest_grad)), rest_grad])
            left_grad = right_grad @ -solved.mT
            left_grad[:n] += log_det_grad * inverse.mT
            left_grad = torch.linalg.solve_triangular(factors[:n].mT, left_grad, upper=False, left=False)
        return torch.cat([left_grad, right_grad], 1)[order.argsort()], None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> tuple[Tensor | None, ...]:
        window, order, factors = ctx.saved_tensors
        n = factors.shape[1]
        first, across, through = _parted(window, order, n)
        change = tangent[order]
        change_of_log_det = torch.linalg.solve(first, change[:n, :n]).diagonal().sum()
        change = change[n:] - across @ change[:n]
        return change[:, n:] - change[:, :n] @ through, change_of_log_det, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], windows: Tensor, n: int) -> tuple[tuple[Tensor, ...], int]:
        each = [_Elimination.apply(window, n) for window in windows.movedim(in_dims[0], 0)]
        return tuple(torch.stack(parts) for parts in zip(*each, strict=True)), 0


def _parted(window: Tensor, order: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return E1, E2 E1^-1 and E1^-1 F1 of a window whose rows are to be brought into an order."""
    left, right = window[order].split([n, window.shape[1] - n], 1)
    first = left[:n]
    across = torch.linalg.solve(first, left[n:], left=False)
    return first, across, torch.linalg.solve(first, right[:n])
