"""zuko (https://github.com/probabilists/zuko), MAF and neural spline flows, trained by maximum likelihood.

zuko's own flows of L transforms, autoregressive as by its default, the order of the components reversed from one to the
next. Networks have two hidden layers of 256 units, splines 8 bins on [-5, 5]. zuko asks for standardised data: a
trained elementwise affine map that starts from data is in front.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from baselines._zuko_model import ZukoModel
from harness.methods import Method, Problem

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METHODS"]


class StandardisedModel(ZukoModel):
    """A flow behind an elementwise affine map."""

    def __init__(self, problem: Problem, flow: Any) -> None:
        import torch
        from torch.distributions import AffineTransform
        from zuko.lazy import UnconditionalTransform

        ones = torch.ones(problem.dimension)
        self.front = UnconditionalTransform(AffineTransform, loc=torch.zeros_like(ones), scale=ones)
        super().__init__(problem, [self.front, *flow.transform.transforms])

    def init_batch(self, x: Tensor) -> None:
        import torch

        if len(x) == 1:
            return  # one sample has no scale
        std, mean = torch.std_mean(x.flatten(1), 0)
        with torch.no_grad():
            self.front.scale.copy_(1 / (std + 1e-6))
            self.front.loc.copy_(-mean / (std + 1e-6))


def _build(name: str, problem: Problem) -> StandardisedModel:
    import torch
    import zuko

    with torch.device("cpu"):  # the masks are worked out from numbers
        flow = getattr(zuko.flows, name)(problem.dimension, transforms=problem.layers, hidden_features=(256, 256))
        return StandardisedModel(problem, flow)


METHODS = [
    Method(
        name=f"zuko-{name.lower()}-ml",
        objective="ml",
        linear="none",
        build=partial(_build, name),
        requires=("zuko",),
        summary=f"{form}, 2 x 256 hidden units; a sample takes D passes",
        paper=paper,
    )
    for name, form, paper in [
        ("MAF", "masked affine autoregressive blocks", "https://arxiv.org/abs/1705.07057"),
        ("NSF", "autoregressive rational-quadratic splines, 8 bins on [-5, 5]", "https://arxiv.org/abs/1906.04032"),
    ]
]
