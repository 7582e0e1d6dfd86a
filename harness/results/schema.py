"""The one schema of a result row, and the name of the cell that a row belongs to."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_type_hints

import polars as pl

NOISY = "noisy"
"""What the reason of an ok row begins with if the machine drifted while it was measured, by more than `NOISY_DRIFT`."""

BETTER_THAN_TRUTH = "better than the truth"
"""What the reason of an ok row begins with if its method claims more likelihood than the exact density has."""

DRIFT_METRIC = "reference_gemm_drift"
"""By how much it drifted: the metric of a row of the machine for a timing, of the method for a training."""

STATUSES = ("ok", "diverged", "failed", "unavailable")
FINISHED = ("ok", "diverged")
"""Statuses of rows that no further run would alter."""
TIMED_UNITS = ("s", "flop/s", "B/s")
"""Units of what depends on how busy the machine is."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number, or the reason why there is none.

    Args:
        cell: Key of the cell that made it; the name of its file.
        experiment: What asked for it, such as ``table2-mnist-fc`` or ``runtime``.
        profile: How far the protocol was shortened: quick, paper, or custom.
        recipe: How it was trained: a name of `harness.paper.configurations`, and what was changed; none for a timing.
        method: Name of the method; or ``machine``.
        objective: What the training of the method minimises, such as ml or dsm.
        linear: The form of the method's linear layers, such as dense or lu.
        dataset: Name of the data, or ``normal`` for the synthetic batches of a timing.
        architecture: Name of the network.
        shape: The shape of one sample, such as 1x28x28.
        D: The dimension of a sample.
        L: The number of linear layers.
        B: The batch size.
        parameters: Number of trained numbers.
        seed: Seed of the initial weights, the noise and the order of the data.
        dtype: Number format of the weights and data.
        device: Device of the computation: cpu, cuda or cuda:N.
        threads: Number of torch's threads.
        metric: What was measured.
        value: The number; null unless the status is ok.
        unit: Unit of the value and its interval.
        ci_low: Lower end of the value's 95 % interval; null if it has none.
        ci_high: Upper end of the value's 95 % interval; null if it has none.
        n: Number of repetitions or draws that the value and its interval are from.
        status: ok, diverged, failed or unavailable; the last three have no value and a reason.
        reason: Why there is no value. An ok row has a reason only if something has to be known about its value:
            `NOISY`, `BETTER_THAN_TRUTH`, or that its method changed shared settings.
        config: Everything else that determines the cell, as JSON.
        versions: Versions of Python, torch and the method's libraries, as JSON.
        cpu: Name of the processor and number of its cores.
        gpu: Name of the GPU; null if none was used.
        commit: Commit of this project, with a + where files differed from it or the packages had new ones.
        started_at: Time at which the measurement was started, UTC, ISO 8601.
        iteration: For a metric that is followed through training, the step where this value was seen; for one of
            several repetitions or draws its number, the same for all methods that shared it.
        seconds: For a metric that is followed through training, the training time spent until then.
        limits: What the method declares that it cannot do, or does otherwise than the recipe says.
    """

    cell: str
    experiment: str
    profile: str
    recipe: str
    method: str
    objective: str
    linear: str
    dataset: str
    architecture: str
    shape: str
    D: int
    L: int
    B: int
    parameters: int | None = None
    seed: int
    dtype: str
    device: str
    threads: int
    metric: str
    value: float | None = None
    unit: str
    ci_low: float | None = None
    ci_high: float | None = None
    n: int | None = None
    status: str = "ok"
    reason: str | None = None
    config: str
    versions: str
    cpu: str
    gpu: str | None = None
    commit: str | None = None
    started_at: str
    iteration: int | None = None
    seconds: float | None = None
    limits: str | None = None


_COLUMNS: dict[Any, type[pl.DataType]] = {float: pl.Float64, int: pl.Int64, str: pl.String}
_COLUMNS |= {kind | None: column for kind, column in _COLUMNS.items()}

SCHEMA = {name: _COLUMNS[hint] for name, hint in get_type_hints(Row).items()}
"""Column names and types of every frame of rows."""

REQUIRED = tuple(name for name, hint in get_type_hints(Row).items() if hint in (str, int, float))
"""Columns in which every row has something."""


def noted(row: Row, caveat: str) -> Row:
    """Put a caveat before what the reason of an ok row says already; other rows stay as they are."""
    return dataclasses.replace(row, reason="; ".join(filter(None, [caveat, row.reason]))) if row.status == "ok" else row


def to_frame(rows: Iterable[Row]) -> pl.DataFrame:
    """Put rows into a frame of `SCHEMA`."""
    return pl.DataFrame([dataclasses.asdict(row) for row in rows], schema=SCHEMA)


def cell_key(identity: dict[str, Any]) -> str:
    """Name a cell by what determines it: 16 hexadecimal digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def reproducible(rows: pl.DataFrame) -> pl.DataFrame:
    """Leave what two runs of the same cells must agree on, in one order: no times of day, durations, rates, commits."""
    of_the_clock = pl.col("unit").is_in(TIMED_UNITS) | (pl.col("metric") == DRIFT_METRIC)
    return rows.filter(~of_the_clock).drop("started_at", "seconds", "commit").sort(pl.all())
