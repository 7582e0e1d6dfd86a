"""EBFlow (https://arxiv.org/abs/2305.15267): one network, and objectives of its paper and of others.

The maximum-likelihood objective on the same layers is the project's own dense baseline: it differs from the
score-matching methods in the loss alone. Two newer objectives train the same network: the self-normalised likelihood
(SNL, https://arxiv.org/abs/2503.07021) and local curvature smoothing with Stein's identity (LCSS,
https://arxiv.org/abs/2412.03962).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from baselines._ebflow_network import network
from baselines._energy_model import DenseModel
from baselines._objective_model import ObjectiveModel
from harness.methods import LayerCost, Method, Problem

if TYPE_CHECKING:
    from ebflow import EBFlow, Objective

__all__ = ["METHODS", "PERIODS", "build", "objective_of"]


class EBFlowModel(ObjectiveModel, DenseModel):
    """An `ebflow.EBFlow` with one of its objectives."""

    def __init__(self, flow: EBFlow, objective: Objective) -> None:
        super().__init__(flow)
        self.objective = objective

    @property
    def trained_flow(self) -> EBFlow:
        return self.module


def build(name: str, problem: Problem) -> EBFlowModel:
    """Make the network of a problem with the objective of this name."""
    return EBFlowModel(network(problem), objective_of(name, problem))


def objective_of(name: str, problem: Problem) -> Objective:
    """Make the objective of this name, with the problem's noise scale and regulariser.

    Raises:
        ValueError: if the objective cannot be trained in the products that the problem's dtype stands for.
    """
    import ebflow

    if name == "fdssm" and problem.dtype in ("tf32", "bf16"):
        # For fc at D = 784 its gradient would be off by 2.3 and 17 times its length at epsilon = 0.1.
        raise ValueError(f"differences of energies are lost in the rounding of {problem.dtype}; choose float32")
    if name == "aml":
        # A given period replaces the drift's rule and not the looks at the drift, so that it costs what the rule costs
        # with as many refreshes.
        return ebflow.AmortizedML() if problem.refresh is None else ebflow.AmortizedML(problem.refresh, math.inf)
    objectives: dict[str, Callable[[], Objective]] = {
        "ml": ebflow.ML,
        "sml": ebflow.SML,
        "snl": ebflow.SNL,
        "ssm": ebflow.SSM,
        "tssm": ebflow.TaylorSSM,
        "dsm": partial(ebflow.DSM, problem.noise),
        "fdssm": partial(ebflow.FDSSM, problem.noise),
        "lcss": partial(ebflow.LCSS, problem.noise),
    }
    objective = objectives[name]()
    # Maximum likelihood has no such term in the authors' code either.
    if problem.energy_weight and name not in ("ml", "aml", "sml", "snl"):
        return ebflow.LowEnergy(objective, problem.energy_weight)
    return objective


PERIODS = {"fc": 24, "cnn": 4, "glow": 24, "toy": 24}
"""Steps from one refresh to the next in the timings of amortised maximum likelihood.

They are the means of trainings by drift on MNIST with the recipe tuned: fc 24.2 in 20 epochs, cnn 4.6 in 10. Glow and
toy take that of fc, for want of a training of theirs.
"""

_OTHER_PAPERS = {"aml": "", "snl": "https://arxiv.org/abs/2503.07021", "lcss": "https://arxiv.org/abs/2412.03962"}

_SAMPLED = (
    "the gradient of log Z is estimated at samples, which move with the weights while the gradient holds them still"
)

# Products of a layer: DSM makes one forward and one back for the score, and the backward pass makes two of each. SSM
# carries a tangent beside x; Taylor mode and FDSSM have three rows a sample. SML runs on data and samples, 2 B rows
# forward and back; drawing them is an LU and two triangular solves of B rows. SNL runs on data and four draws a sample,
# 5 B rows; LCSS takes the score of 2 B rows.
METHODS = [
    Method(
        name=f"ebflow-{name}",
        objective=name,
        linear="dense",
        build=partial(build, name),
        # Glow starts far from its optimum, where SNL's proposal is of no use.
        architectures=("fc", "cnn", "toy") if name == "snl" else ("fc", "cnn", "glow", "toy"),
        raw_pixels=True,
        fc_cost=cost,
        periods=PERIODS if name == "aml" else {},
        own_gradient=_SAMPLED if name == "sml" else "",
        summary=summary,
        paper=_OTHER_PAPERS.get(name, "https://arxiv.org/abs/2305.15267"),
    )
    for name, cost, summary in [
        ("ml", LayerCost(3, cubic=2), "maximum likelihood: every determinant at every step"),
        ("aml", LayerCost(3, cubic=2), "maximum likelihood: log Z is differentiated when it has drifted"),
        ("sml", LayerCost(7, cubic=2 / 3, rows=2, saved=2), "maximum likelihood, the gradient of log Z from samples"),
        ("ssm", LayerCost(9, rows=2, saved=2), "sliced score matching: no determinant"),
        ("tssm", LayerCost(9, rows=3, saved=3), "Taylor-mode sliced score matching (not in the paper): no determinant"),
        ("dsm", LayerCost(6), "denoising score matching: no determinant"),
        ("fdssm", LayerCost(9, rows=3, saved=3), "finite-difference sliced score matching: no determinant"),
        ("snl", LayerCost(15, rows=5, saved=5), "likelihood with a learnt log Z, from draws of a fixed proposal"),
        ("lcss", LayerCost(12, rows=2, saved=2), "score matching, the trace by Stein's identity: no determinant"),
    ]
]
