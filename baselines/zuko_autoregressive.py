"""zuko (https://github.com/probabilists/zuko), MAF and neural spline flows, trained by maximum likelihood.

zuko's own flows of L transforms, autoregressive as by its default, the order of the components reversed from one to the
next. The problem says how large networks are and how many bins a spline has; zuko's splines always end at -5 and 5, and
its networks drop no units. zuko asks for standardised data: a trained elementwise affine map that starts from data is
in front.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from baselines._published_recipes import autoregressive_splines, masked_autoregressive
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

    sizes: dict[str, Any] = {"hidden_features": (problem.hidden,) * problem.blocks}
    if name == "NSF":
        sizes["bins"] = problem.bins
    with torch.device("cpu"):  # the masks are worked out from numbers
        flow = getattr(zuko.flows, name)(problem.dimension, transforms=problem.layers, **sizes)
        return StandardisedModel(problem, flow)


_MAF = masked_autoregressive(5, 1e-4)
_NSF = {
    name: replace(recipe, caveat="splines on [-5, 5], no dropout and no linear layers between them, which zuko lacks")
    for name, recipe in autoregressive_splines().items()
}

METHODS = [
    Method(
        name=f"zuko-{name.lower()}-ml",
        objective="ml",
        linear="none",
        build=partial(_build, name),
        requires=("zuko",),
        summary=f"{form}; a sample takes D passes",
        paper=paper,
        own_recipes=own_recipes,
    )
    for name, form, paper, own_recipes in [
        ("MAF", "masked affine autoregressive blocks", "https://arxiv.org/abs/1705.07057", _MAF),
        ("NSF", "autoregressive rational-quadratic splines on [-5, 5]", "https://arxiv.org/abs/1906.04032", _NSF),
    ]
]
