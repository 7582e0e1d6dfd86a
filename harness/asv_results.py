"""Reads what ``asv run`` leaves into rows of the one schema."""

from __future__ import annotations

import ast
import itertools
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

from harness.errors import one_line
from harness.registry import registry
from harness.results import Row

__all__ = ["read"]

_MOST_POINTS = 10_000  # of one benchmark; asv lists every combination of its parameters

_BENCHMARKS = {
    "iteration.TrainingIteration.time_iteration": "seconds_per_iteration",
    "evaluation.LogDeterminant.time_log_determinant": "seconds_per_log_determinant",
    "evaluation.Sampling.time_sampling": "seconds_per_sampling",
}


def read(folder: Path) -> tuple[list[Row], list[str]]:
    """Return the rows of the newest commit of every machine and environment, and one line for every damaged file.

    Args:
        folder: ``results_dir`` of ``asv.conf.json``.
    """
    newest: dict[tuple[str, str], tuple[str, list[Row]]] = {}
    damaged = []
    for path in sorted(folder.glob("*/*.json")):
        if path.name == "machine.json":
            continue
        try:
            # asv writes bare NaN, which json reads and polars does not.
            content = json.loads(path.read_text())
            key, date = (content["params"]["machine"], content["env_name"]), content["date"]
            if not isinstance(date, int):
                raise ValueError(f"its date is {date!r}, no time in milliseconds")
            if key not in newest or date >= newest[key][0]:
                rows = list(_rows(content))
                for row in rows:
                    _check(row)
                newest[key] = date, rows
        except Exception as error:  # a damaged file may surprise in any place
            damaged.append(f"{path}: not a readable asv result ({one_line(error)}); delete it")
    return [row for _, rows in newest.values() for row in rows], damaged


def _rows(content: dict[str, Any]) -> Iterator[Row]:
    machine = content["params"]
    columns = content["result_columns"]
    for benchmark, metric in _BENCHMARKS.items():
        if benchmark not in content["results"]:
            continue
        entry = dict(zip(columns, content["results"][benchmark], strict=False))
        started_at = datetime.fromtimestamp(entry["started_at"] / 1e3, UTC).isoformat(timespec="seconds")
        if math.prod(map(len, entry["params"])) > _MOST_POINTS:
            raise ValueError(f"it names more than {_MOST_POINTS} points of {benchmark}")
        points = itertools.product(*(map(ast.literal_eval, values) for values in entry["params"]))
        for index, (name, dimension, layers) in enumerate(points):
            value = entry["result"][index] if entry["result"] else None
            if value is not None and math.isnan(value):
                continue  # a point that --bench left out
            measured = value is not None
            method = registry().methods.get(name)
            yield Row(
                cell=content["commit_hash"][:16],
                experiment="asv",
                profile="custom",
                recipe="none",
                method=name,
                objective=method.objective if method else "",
                linear=method.linear if method else "",
                dataset="normal",
                architecture="fc",
                shape=str(dimension),
                D=dimension,
                L=layers,
                B=100,
                parameters=None,
                seed=0,
                dtype="float32",
                device="cpu",
                threads=int(content.get("env_vars", {}).get("OMP_NUM_THREADS", 0)),
                metric=metric,
                value=value if measured else None,
                unit="s",
                ci_low=_finite(entry, "stats_ci_99_a", index),
                ci_high=_finite(entry, "stats_ci_99_b", index),
                n=_finite(entry, "stats_repeat", index),
                status="ok" if measured else "failed",
                reason=None if measured else "asv has no value: see the output of asv run",
                config=json.dumps({"env_name": content["env_name"]}),
                versions=json.dumps(content.get("requirements", {}), sort_keys=True),
                cpu=f"{machine.get('cpu')}, {machine.get('num_cpu')} cores",
                gpu=None,
                commit=content["commit_hash"],
                started_at=started_at,
            )


def _check(row: Row) -> None:
    """Hold a row to the types of the schema, which JSON does not know, and its numbers to what a timing can be.

    Raises:
        ValueError: It is of no asv benchmark.
    """
    hints = get_type_hints(Row)
    for name, value in vars(row).items():
        hint = float | int | None if hints[name] == float | None else hints[name]
        if isinstance(value, bool) or not isinstance(value, hint):
            raise ValueError(f"its {name} is {value!r}")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError(f"its {name} is too large")
    timed = [number for number in (row.value, row.ci_low, row.ci_high) if number is not None]
    if not all(0 < number < math.inf for number in timed):
        raise ValueError(f"a time of {row.method} is {min(timed)} s")
    if not all(0 < size < 2**31 for size in (row.D, row.L)):
        raise ValueError(f"{row.method} was timed at D = {row.D}, L = {row.L}")


def _finite(entry: dict[str, Any], column: str, index: int) -> Any:
    values = entry.get(column)
    value = values[index] if values else None
    return value if value is not None and math.isfinite(value) else None
