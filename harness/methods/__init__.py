"""What a competitor promises, how it is found and built, and what keeps foreign code from doing harm.

An adapter needs one line: ``from harness.methods import LayerCost, Method, Model, Problem``. Importing this package
imports neither torch nor any flow library.
"""

from harness.methods.contract import (
    FAMILIES,
    SCORE_MATCHING,
    ClosedForm,
    Imputes,
    LossBeforeMap,
    Method,
    Model,
    NormalizerEstimates,
    Observed,
    OwnRecipe,
    Prepared,
    Rate,
    SharedWeights,
    Stateful,
    matches_scores,
)
from harness.methods.cost import LayerCost
from harness.methods.moments import Moments, moments
from harness.methods.problem import ARCHITECTURES, DTYPES, Problem

__all__ = [
    "ARCHITECTURES",
    "DTYPES",
    "FAMILIES",
    "SCORE_MATCHING",
    "ClosedForm",
    "Imputes",
    "LayerCost",
    "LossBeforeMap",
    "Method",
    "Model",
    "Moments",
    "NormalizerEstimates",
    "Observed",
    "OwnRecipe",
    "Prepared",
    "Problem",
    "Rate",
    "SharedWeights",
    "Stateful",
    "matches_scores",
    "moments",
]
