"""Results: the schema of a row, the file of a cell, and the store that keeps the files."""

from harness.results.file import SCHEMA_VERSION
from harness.results.schema import DRIFT_METRIC, NOISY, SCHEMA, Row, cell_key, reproducible, to_frame
from harness.results.store import Store, load_results

__all__ = [
    "DRIFT_METRIC",
    "NOISY",
    "SCHEMA",
    "SCHEMA_VERSION",
    "Row",
    "Store",
    "cell_key",
    "load_results",
    "reproducible",
    "to_frame",
]
