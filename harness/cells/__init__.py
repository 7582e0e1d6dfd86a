"""Cells: the units of work that are run, stored and resumed, and how a sweep of them runs.

Each kind has a file: seconds an iteration, test NLL, imputation, estimates of log Z.
"""

from harness.cells.base import Cell, Keep, Origin, Progress, single
from harness.cells.imputation import ImputationCell
from harness.cells.likelihood import LikelihoodCell
from harness.cells.normalizer import NormalizerCell
from harness.cells.runtime import RuntimeCell

__all__ = [
    "Cell",
    "ImputationCell",
    "Keep",
    "LikelihoodCell",
    "NormalizerCell",
    "Origin",
    "Progress",
    "RuntimeCell",
    "single",
]
