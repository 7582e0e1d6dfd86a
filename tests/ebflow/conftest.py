"""What the tests of ebflow share: seeds, random weights, an independent log-density, a watch on linear algebra."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ebflow import EBFlow

# Everything that costs O(D^3); a vector norm has `linalg` in its name and does not.
CUBIC = re.compile(r"_?linalg_(?!vector_norm)|(slog|log)?det$|inverse|lu_|cholesky|triangular_solve|geqrf")


class LinearAlgebra(TorchDispatchMode):
    """While entered, records every determinant, solve and inverse beneath autograd, whatever name it was called by."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if CUBIC.match(func.overloadpacket.__name__):
            self.calls.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _seeded_on_one_thread() -> Iterator[None]:
    # Thousands of tiny operations: beside other work, threads that wait for each other take ten times as long.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def linear_algebra() -> LinearAlgebra:
    return LinearAlgebra()


@pytest.fixture
def randomise() -> Callable[..., nn.Module]:
    """Give every parameter a random value, far from where a module starts, in float64."""

    def apply(module: nn.Module, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
        source = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.4 * torch.randn(parameter.shape, generator=source))
        return module.to(dtype)

    return apply


@pytest.fixture
def log_density() -> Callable[[EBFlow, Tensor], Tensor]:
    """Log p by the change of variables with the autograd Jacobian of the map alone, shape (B,), differentiable."""

    def of(flow: EBFlow, x: Tensor) -> Tensor:
        jacobian = torch.func.vmap(torch.func.jacrev(lambda one: flow(one[None])[0].flatten()))(x)
        z = flow(x)[0].flatten(1)
        base = -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
        return base + torch.linalg.slogdet(jacobian.reshape(len(x), z.shape[1], z.shape[1])).logabsdet

    return of
