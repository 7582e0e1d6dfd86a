"""Reads what ``asv run`` leaves into rows of the one schema."""

import ast
import itertools
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import polars as pl

from harness.errors import one_line
from harness.methods.registry import registry
from harness.results import SCHEMA, Row

THREADS_VARIABLE = "OMP_NUM_THREADS"
"""The variable of asv's matrix that sets the number of threads, which asv keeps with its results."""

THREADS = 1
"""The number of threads in an environment without a matrix, as those of ``asv run -E existing`` are."""

_MOST_POINTS = 10_000  # points of one benchmark; asv lists every combination of its parameters

_BENCHMARKS = {
    "iteration.TrainingIteration.time_iteration": "seconds_per_iteration",
    "evaluation.LogDeterminant.time_log_determinant": "seconds_per_log_determinant",
    "evaluation.Sampling.time_sampling": "seconds_per_sampling",
}

_SERIES = ["metric", "method", "D", "L", "cpu", "env"]
_OF_A_ROW = ("metric", "method", "D", "L", "cpu", "cell", "commit", "value", "ci_low", "ci_high")
HISTORY: dict[str, type[pl.DataType] | pl.DataType] = {name: SCHEMA[name] for name in _OF_A_ROW}
HISTORY |= {"env": pl.String, "date": pl.Datetime("ms", "UTC")}
"""Column names and types of `history`: one row for each benchmark point and commit, with its value in seconds."""

INTERVALS_APART = 1.5
"""A commit is slower or faster than the one before if asv's 99 % intervals lie apart, and its median by this factor.

On shared cores identical code differs by up to 1.13 in long runs and 1.6 in short ones.
"""


def read(folder: Path) -> tuple[list[Row], list[str]]:
    """Return the rows of the newest commit of every machine and environment, and one line for every damaged file.

    Args:
        folder: The ``results_dir`` of ``asv.conf.json``.
    """
    newest: dict[tuple[str, str], _Result] = {}
    results, damaged = _results(folder)
    for result in results:
        key = result.machine, result.env
        if key not in newest or result.date >= newest[key].date:
            newest[key] = result
    return [row for result in newest.values() for row in result.rows], damaged


def history(folder: Path) -> pl.DataFrame:
    """Return every benchmark point of every commit in a folder, and how it compares with the commit before.

    Damaged files are left out; `read` names them.

    Args:
        folder: The ``results_dir`` of ``asv.conf.json``.

    Returns:
        A frame with the columns of `HISTORY`, oldest first within a series, with ratio (to the value of the commit
        before; None for the first commit) and change (slower, faster or None, by `INTERVALS_APART`).
    """
    points = [
        {**vars(row), "env": result.env, "date": datetime.fromtimestamp(result.date / 1e3, UTC)}
        for result in _results(folder)[0]
        for row in result.rows
        if row.value is not None
    ]
    before = {name: pl.col(name).shift(1).over(_SERIES) for name in ("value", "ci_low", "ci_high")}
    slower = (pl.col("ratio") >= INTERVALS_APART) & (pl.col("ci_low") > before["ci_high"])
    faster = (pl.col("ratio") <= 1 / INTERVALS_APART) & (pl.col("ci_high") < before["ci_low"])
    return (
        pl.DataFrame(points, schema=HISTORY)
        .sort([*_SERIES, "date"])
        .with_columns(ratio=pl.col("value") / before["value"])
        .with_columns(change=pl.when(slower).then(pl.lit("slower")).when(faster).then(pl.lit("faster")))
    )


class _Result(NamedTuple):
    """One result file of asv: the rows of one commit, whose date is in milliseconds."""

    machine: str
    env: str
    date: int
    rows: list[Row]


def _results(folder: Path) -> tuple[list[_Result], list[str]]:
    results, damaged = [], []
    for path in sorted(folder.glob("*/*.json")):
        if path.name == "machine.json":
            continue
        try:
            # asv writes bare NaN, which json reads and polars does not.
            content = json.loads(path.read_text())
            machine, env, date = content["params"]["machine"], content["env_name"], int(content["date"])
            if not isinstance(machine, str) or not isinstance(env, str):
                raise ValueError("it names no machine or environment")
            rows = list(_rows(content))
            for row in rows:
                _check(row)
            results.append(_Result(machine, env, date, rows))
        except Exception as error:  # a damaged file may surprise in any place
            damaged.append(f"{path}: not a readable asv result ({one_line(error)}); delete it")
    return results, damaged


def _rows(content: dict[str, Any]) -> Iterator[Row]:
    machine = content["params"]
    for benchmark, metric in _BENCHMARKS.items():
        if benchmark not in content["results"]:
            continue
        entry = dict(zip(content["result_columns"], content["results"][benchmark], strict=False))
        started_at = datetime.fromtimestamp(entry["started_at"] / 1e3, UTC).isoformat(timespec="seconds")
        if math.prod(map(len, entry["params"])) > _MOST_POINTS:
            raise ValueError(f"it names more than {_MOST_POINTS} points of {benchmark}")
        points = itertools.product(*(map(ast.literal_eval, values) for values in entry["params"]))
        for index, (name, dimension, layers) in enumerate(points):
            value = entry["result"][index] if entry["result"] else None
            if value is not None and math.isnan(value):
                continue  # a point that --bench left out
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
                seed=0,
                dtype="float32",
                device="cpu",
                threads=int(content.get("env_vars", {}).get(THREADS_VARIABLE, THREADS)),
                metric=metric,
                value=value,
                unit="s",
                ci_low=_finite(entry, "stats_ci_99_a", index),
                ci_high=_finite(entry, "stats_ci_99_b", index),
                n=_finite(entry, "stats_repeat", index),
                status="failed" if value is None else "ok",
                reason="asv has no value: see the output of asv run" if value is None else None,
                config=json.dumps({"env_name": content["env_name"]}),
                versions=json.dumps(content.get("requirements", {}), sort_keys=True),
                cpu=f"{machine.get('cpu')}, {machine.get('num_cpu')} cores",
                commit=content["commit_hash"],
                started_at=started_at,
            )


def _check(row: Row) -> None:
    """Raise ValueError if a row has other types than the schema, which JSON does not know, or numbers of no timing."""
    types = get_type_hints(Row)
    for name, value in vars(row).items():
        hint = float | int | None if types[name] == float | None else types[name]
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
