"""Cells: the units of work that are run, stored and resumed.

Each kind has a file: seconds an iteration, test NLL, imputation, estimates of log Z.
"""

from harness.cells.base import Cell, Keep, Progress, check_fit, finished_rows, forget, identity_of, row_maker, single
from harness.cells.imputation import ImputationCell
from harness.cells.likelihood import LikelihoodCell, load_data
from harness.cells.normalizer import NormalizerCell
from harness.cells.runtime import RuntimeCell

__all__ = [
    "Cell",
    "ImputationCell",
    "Keep",
    "LikelihoodCell",
    "NormalizerCell",
    "Progress",
    "RuntimeCell",
    "check_fit",
    "finished_rows",
    "forget",
    "identity_of",
    "load_data",
    "row_maker",
    "single",
]
