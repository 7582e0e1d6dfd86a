"""zuko (https://github.com/probabilists/zuko), dense and LU layers, trained by maximum likelihood.

The stack is the paper's fc. zuko has no dense transform, which ebflow lends it, and its LU transform has no bias, which
zuko's shift adds. Its lower factor has a free diagonal of any sign, so that both start where ebflow's does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from baselines._triangular import factors
from baselines._zuko_model import ZukoModel
from harness.methods import LayerCost, Method, Problem

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["METHODS"]


class LinearStack(ZukoModel):
    """Linear layers with a smooth leaky ReLU between them.

    Args:
        problem: The problem to build for.
        linear: A function from W and b to the lazy transforms of z = W x + b.
        read: A function from these transforms, no longer lazy, to W and b.
    """

    def __init__(
        self,
        problem: Problem,
        linear: Callable[[Tensor, Tensor], list[nn.Module]],
        read: Callable[[list[Any]], tuple[Tensor, Tensor]],
    ) -> None:
        import torch

        from ebflow.interop.zuko import LazyLayer
        from ebflow.layers import SmoothLeakyReLU

        self.linear, self.read = linear, read
        weight, bias = -torch.eye(problem.dimension), torch.ones(problem.dimension)
        self.linear_maps = [linear(weight.clone(), bias.clone()) for _ in range(problem.layers)]
        chain = [*self.linear_maps[0]]
        for parts in self.linear_maps[1:]:
            chain += [LazyLayer(SmoothLeakyReLU(residual=problem.residual)), *parts]
        super().__init__(problem, chain)

    def linear_layers(self) -> list[tuple[Tensor, Tensor]]:
        import torch

        with torch.no_grad():
            return [self.read([part() for part in parts]) for parts in self.linear_maps]

    def load_linear_layers(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        for parts, (weight, bias) in zip(self.linear_maps, layers, strict=True):
            for part, wanted in zip(parts, self.linear(weight, bias), strict=True):
                part.load_state_dict(wanted.state_dict())


def _dense(problem: Problem) -> LinearStack:
    from zuko.lazy import UnconditionalTransform

    from ebflow.interop.zuko import DenseTransform

    def linear(weight: Tensor, bias: Tensor) -> list[nn.Module]:
        return [UnconditionalTransform(DenseTransform, weight=weight, bias=bias)]

    return LinearStack(problem, linear, lambda parts: (parts[0].weight.detach(), parts[0].bias.detach()))


def _lu(problem: Problem) -> LinearStack:
    from zuko.lazy import UnconditionalTransform
    from zuko.transforms import AdditiveTransform, LULinearTransform

    def linear(weight: Tensor, bias: Tensor) -> list[nn.Module]:
        # The diagonal is moved from U to L, where zuko has it.
        lower, upper = factors(weight)
        pivots = upper.diag()
        both = lower * pivots + (upper / pivots[:, None]).triu(1)
        return [
            UnconditionalTransform(LULinearTransform, LU=both),
            UnconditionalTransform(AdditiveTransform, shift=bias),
        ]

    return LinearStack(problem, linear, lambda parts: (parts[0].L @ parts[0].U, parts[1].shift))


METHODS = [
    Method(
        name=f"zuko-{name}-ml",
        objective="ml",
        linear=name,
        build=build,
        requires=("zuko",),
        fc_cost=cost,
        summary=summary,
        paper="https://github.com/probabilists/zuko",
    )
    for name, build, cost, summary in [
        ("dense", _dense, LayerCost(3, cubic=2), "any matrix, slogdet at every step, as a transform of zuko's"),
        # L U is one product of D x D matrices forward and two back, 2 D^3 flops each.
        ("lu", _lu, LayerCost(3, cubic=6), "LULinearTransform: assembles L U at every step, O(D^3)"),
    ]
]
