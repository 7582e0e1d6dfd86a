"""Facts that a row holds inside its JSON or its labels, as columns: made once, where rows are read."""

import json
import shlex
from typing import Any

import polars as pl

from harness.errors import printable
from harness.methods.families import family

DERIVED: dict[str, type[pl.DataType]] = {
    "kind": pl.String,
    "EMA": pl.Boolean,
    "MaP": pl.Boolean,
    "smooth_noise": pl.Float64,
    "residual": pl.Boolean,
    "other_network": pl.Boolean,
    "compiled": pl.Boolean,
    "launch": pl.String,
    "torch": pl.String,
    "base": pl.String,
    "shortened": pl.Boolean,
    "training": pl.String,
    "command": pl.String,
    "project": pl.String,
    "family": pl.String,
}
"""Names and types of the columns that `derived` adds."""

_MADE_OF = ("experiment", "config", "versions", "commit", "threads", "objective", "linear")


def derived(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the columns of `DERIVED` to a frame of `harness.results.SCHEMA`.

    The columns are: ``kind`` (likelihood, runtime, imputation, normalizer or asv), ``EMA`` (whether averaged weights
    were scored), ``MaP`` (whether matching came after preprocessing), ``smooth_noise`` (the scale of smooth
    dequantisation noise), ``residual`` (whether the activation was in its residual form), ``other_network`` (whether
    the recipe's depth or activation was changed), ``compiled`` (whether a step was compiled or replayed), ``launch``
    (which of the two: compiled, CUDA graphs, or null), ``torch`` (its version), ``base`` (the recipe's name without
    what was changed), ``shortened`` (whether a training had less than the length of its recipe), ``training`` (what
    determined it but the seed, as JSON), ``command`` (what measures the cell again), ``project`` (the version of this
    project, which changes with the numbers that it makes), and ``family`` (one of the names in
    `harness.methods.families`). EMA, MaP, shortened and training are null where nothing was trained.
    """
    cells = frame.select(_MADE_OF).unique(maintain_order=True)
    facts = pl.DataFrame([_facts(row) for row in cells.iter_rows(named=True)], schema=DERIVED)
    return frame.join(
        pl.concat([cells, facts], how="horizontal"), on=_MADE_OF, how="left", nulls_equal=True, maintain_order="left"
    )


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    content, versions = _parsed(row["config"]), _parsed(row["versions"])
    identity, settings, origin = (_part(content, name) for name in ("identity", "settings", "origin"))
    config = _part(settings, "config")
    kind = "asv" if row["experiment"] == "asv" else identity.get("kind")
    trained = kind in ("likelihood", "imputation")
    replayed = "CUDA graphs" if config.get("cuda_graphs") is True else None
    launch = "compiled" if config.get("compile") is True else replayed
    problem = {name: value for name, value in _part(identity, "problem").items() if name != "seed"}
    facts = {
        "kind": kind,
        "EMA": config.get("ema_decay") is not None if trained else None,
        "MaP": settings.get("preprocess", True) if trained else None,
        "smooth_noise": settings.get("smooth_noise"),
        "residual": _part(settings, "problem").get("residual"),
        "other_network": not {"layers", "residual"}.isdisjoint(_part(origin, "overrides")),
        "compiled": launch is not None,
        "launch": launch,
        "torch": versions.get("torch"),
        "base": origin.get("recipe"),
        "shortened": origin.get("shortened"),
        "training": json.dumps(identity | {"problem": problem}, sort_keys=True) if trained else None,
        "command": _command(row, origin, identity.get("processes")),
        "project": identity.get("project"),
        "family": content.get("family"),
    }
    known = {name: _of_type(value, DERIVED[name]) for name, value in facts.items()}
    return known | {"family": known["family"] or family(row["objective"], row["linear"])}


def _of_type(value: Any, column: type[pl.DataType]) -> Any:
    """Return a value of JSON as a column of this type holds it; None if the value is of another type."""
    if isinstance(value, bool):
        return value if column is pl.Boolean else None
    if isinstance(value, str):
        return printable(value) if column is pl.String else None
    return value if column is pl.Float64 and isinstance(value, int | float) and abs(value) < 2**63 else None


def _parsed(text: str) -> dict[str, Any]:
    """Read a column of JSON; nothing where another program wrote something else there."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _part(content: dict[str, Any], name: str) -> dict[str, Any]:
    part = content.get(name)
    return part if isinstance(part, dict) else {}


def _command(row: dict[str, Any], origin: dict[str, Any], processes: Any) -> str | None:
    if row["experiment"] == "asv":
        return shlex.join(["asv", "run", f"{row['commit']}^!"])
    argv = origin.get("argv")
    if not isinstance(argv, list) or not argv:
        return None
    program = ["harness"]
    if isinstance(processes, int) and processes > 1:
        program = ["torchrun", "--nproc-per-node", str(processes), "-m", "harness.cli"]
    return shlex.join([*program, *map(str, argv), "--threads", str(row["threads"])])
