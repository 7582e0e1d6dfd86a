"""Results: the schema of a row, the file of a cell, and the store that keeps the files."""

from harness.results.schema import SCHEMA, Row, cell_key, reproducible, to_frame
from harness.results.store import Store

__all__ = ["SCHEMA", "Row", "Store", "cell_key", "reproducible", "to_frame"]
