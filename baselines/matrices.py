"""One network with linear layers of four forms (appendix of https://arxiv.org/abs/2305.15267), by maximum likelihood.

Triangular factors keep the determinant cheap and restrict or bend what a layer can be; a full matrix does neither. The
data are `multimodal10`. Their density rises towards the edges of its support so steeply that score matching without
added noise has nothing finite to match, so maximum likelihood is the only objective here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from baselines.ebflow import EBFlowModel
from harness.methods import Method, Problem

if TYPE_CHECKING:
    from ebflow.architectures import Matrix

__all__ = ["METHODS"]


def _build(matrix: Matrix, problem: Problem) -> EBFlowModel:
    from ebflow import ML, architectures

    return EBFlowModel(architectures.multimodal(problem.shape, problem.layers, matrix=matrix), ML())


_FORMS: list[tuple[Matrix, str, str]] = [
    ("full", "dense", "any M"),
    ("lower", "lower", "M lower triangular"),
    ("upper", "upper", "M upper triangular"),
    ("lu", "lu", "M an upper triangular matrix times a lower one"),
]

METHODS = [
    Method(
        name=f"ebflow-{matrix}-ml",
        objective="ml",
        linear=linear,
        build=partial(_build, matrix),
        architectures=("multimodal",),
        summary=f"maximum likelihood, z = x M with {form}",
        paper="https://arxiv.org/abs/2305.15267",
    )
    for matrix, linear, form in _FORMS
]
