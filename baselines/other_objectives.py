"""Flows of other libraries, trained by objectives of ebflow instead of their own.

A model is the one that the library's own maximum-likelihood method builds, and its log-density stays the library's. The
loss alone is another: an objective of ebflow on the same parameters. Score matching
(https://arxiv.org/abs/2305.15267) needs no determinant of a linear layer, and amortised maximum likelihood one now and
then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from baselines import nflows, normflows, normflows_luperm, zuko
from baselines._objective_model import ObjectiveModel
from baselines.ebflow import PERIODS, objective_of
from harness.methods import LayerCost, Method, Model, Problem, SharedWeights

if TYPE_CHECKING:
    from torch import Tensor

    from ebflow import EBFlow, Objective

__all__ = ["METHODS"]


class PeerModel(ObjectiveModel):
    """A library's model with an objective on the view of its flow as an `ebflow.EBFlow`.

    Args:
        peer: The library's model, which takes vectors.
        view: The flow of ebflow on the parameters of the peer's module.
        objective: The objective to minimise.
    """

    def __init__(self, peer: Model, view: EBFlow, objective: Objective) -> None:
        self.peer, self.view, self.objective = peer, view, objective
        self.module = peer.module

    @property
    def trained_flow(self) -> EBFlow:
        return self.view

    def init_batch(self, x: Tensor) -> None:
        self.peer.init_batch(x)

    def after_step(self) -> None:
        self.peer.after_step()

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.peer.to_latent(x)

    def to_data(self, z: Tensor) -> Tensor:
        return self.peer.to_data(z)

    def linear_layers(self) -> list[tuple[Tensor, Tensor]]:
        assert isinstance(self.peer, SharedWeights)
        return self.peer.linear_layers()

    def load_linear_layers(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        assert isinstance(self.peer, SharedWeights)
        self.peer.load_linear_layers(layers)


def _build(likelihood: Method, library: str, objective: str, problem: Problem) -> Model:
    peer = likelihood.build(problem)
    view = import_module(f"ebflow.interop.{library}").from_flow(peer.module, (problem.dimension,))
    return PeerModel(peer, view, objective_of(objective, problem))


def _method(name: str, cost: LayerCost, form: str) -> Method:
    library, layer, objective = name.split("-")
    likelihood = _LIKELIHOOD[f"{library}-{layer}-ml"]
    return replace(
        likelihood,
        name=name,
        objective=objective,
        build=partial(_build, likelihood, library, objective),
        fc_cost=cost,
        periods={"fc": PERIODS["fc"]} if objective == "aml" else {},
        summary=f"{form}, trained by {_OBJECTIVES[objective]}",
        paper="" if objective == "aml" else "https://arxiv.org/abs/2305.15267",
    )


_LIKELIHOOD = {
    method.name: method for method in (*nflows.METHODS, *normflows.METHODS, *normflows_luperm.METHODS, *zuko.METHODS)
}
_OBJECTIVES = {
    "ssm": "sliced score matching: no determinant",
    "dsm": "denoising score matching: no determinant",
    "aml": "maximum likelihood whose log Z is differentiated now and then",
}

# Products as for ebflow's own network; two triangular factors are twice as many as one matrix.
METHODS = [
    _method("nflows-dense-ssm", LayerCost(9, rows=2, saved=2), "NaiveLinear"),
    _method("nflows-dense-dsm", LayerCost(6), "NaiveLinear"),
    _method("nflows-dense-aml", LayerCost(3, cubic=2), "NaiveLinear"),
    _method("nflows-lu-dsm", LayerCost(12), "LULinear"),
    _method("normflows-dense-ssm", LayerCost(9, rows=2, saved=2), "InvertibleAffine"),
    _method("normflows-dense-dsm", LayerCost(6), "InvertibleAffine"),
    _method("normflows-dense-aml", LayerCost(3, cubic=2), "InvertibleAffine"),
    _method("normflows-luperm-dsm", LayerCost(12), "LULinearPermute"),
    _method("zuko-dense-ssm", LayerCost(9, rows=2, saved=2), "a dense transform"),
    _method("zuko-dense-dsm", LayerCost(6), "a dense transform"),
    _method("zuko-dense-aml", LayerCost(3, cubic=2), "a dense transform"),
]
