"""Results: the schema of a row, the file of a cell, and the store that keeps the files."""

from harness.results.schema import DRIFT_METRIC, NOISY, SCHEMA, Row, cell_key, reproducible, to_frame
from harness.results.store import Store

__all__ = ["DRIFT_METRIC", "NOISY", "SCHEMA", "Row", "Store", "cell_key", "reproducible", "to_frame"]
