"""What a competitor promises, how it is found and built, and what keeps foreign code from doing harm.

An adapter needs one line: ``from harness.methods import LayerCost, Method, Model, Problem``. Importing this package
imports neither torch nor any flow library.
"""

from harness.methods.contract import (
    SCORE_MATCHING,
    Calibrated,
    ClosedForm,
    Imputes,
    Method,
    Model,
    NormalizerEstimates,
    Observed,
    SharedWeights,
    Stateful,
)
from harness.methods.cost import LayerCost
from harness.methods.moments import Moments, moments
from harness.methods.problem import ARCHITECTURES, DTYPES, STARTS, Problem

__all__ = [
    "ARCHITECTURES",
    "DTYPES",
    "SCORE_MATCHING",
    "STARTS",
    "Calibrated",
    "ClosedForm",
    "Imputes",
    "LayerCost",
    "Method",
    "Model",
    "Moments",
    "NormalizerEstimates",
    "Observed",
    "Problem",
    "SharedWeights",
    "Stateful",
    "moments",
]
