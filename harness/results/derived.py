"""Facts that a row holds inside its JSON or its labels, as columns: made once, where rows are read."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import polars as pl

_KINDS = {
    "LikelihoodCell": "likelihood",
    "RuntimeCell": "runtime",
    "ImputationCell": "imputation",
    "NormalizerCell": "normalizer",
}
_TRAINED = ("likelihood", "imputation")
_BUDGET = re.compile(r", (\d+) of [\d,]+ epochs$")
_CUT_SHORT = re.compile(r", (\d+ of [\d,]+ epochs|epochs \d+)")

DERIVED: dict[str, type[pl.DataType]] = {
    "kind": pl.String,
    "EMA": pl.Boolean,
    "MaP": pl.Boolean,
    "smooth_noise": pl.Float64,
    "compiled": pl.Boolean,
    "torch": pl.String,
    "base": pl.String,
    "shortened": pl.Boolean,
    "training": pl.String,
    "command": pl.String,
}
"""Names and types of the columns that `derived` adds."""

_MADE_OF = ("experiment", "profile", "recipe", "method", "objective", "dataset", "architecture", "D", "L", "B")
_MADE_OF += ("seed", "dtype", "device", "threads", "config", "versions")


def derived(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the columns of `DERIVED` to a frame of `harness.results.SCHEMA`.

    The columns are: ``kind`` (likelihood, runtime, imputation, normalizer or asv), ``EMA`` (whether averaged weights
    were scored), ``MaP`` (whether matching came after preprocessing), ``smooth_noise`` (the scale of smooth
    dequantisation noise), ``compiled`` (whether the loss went through `torch.compile`), ``torch`` (its version),
    ``base`` (the recipe's name without what was changed), ``shortened`` (whether a training had less than the length
    of its recipe), ``training`` (its configuration without the seed, as JSON), and ``command`` (what measures the cell
    again, without the program's name). EMA, MaP, shortened and training are null where nothing was trained.
    """
    cells = frame.select(_MADE_OF).unique(maintain_order=True)
    facts = pl.DataFrame([_facts(row) for row in cells.iter_rows(named=True)], schema=DERIVED, strict=False)
    return frame.join(pl.concat([cells, facts], how="horizontal"), on=_MADE_OF, how="left", maintain_order="left")


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    config, versions = _parsed(row["config"]), _parsed(row["versions"])
    kind = "asv" if row["experiment"] == "asv" else _KINDS.get(str(config.get("kind")))
    settings = _settings(config, "config")
    trained = kind in _TRAINED
    return {
        "kind": kind,
        "EMA": settings.get("ema_decay") is not None if trained else None,
        "MaP": config.get("preprocess") if trained else None,
        "smooth_noise": config.get("smooth_noise"),
        "compiled": settings.get("compile") is True,
        "torch": versions.get("torch"),
        "base": row["recipe"].split(",")[0],
        "shortened": _shortened(row, settings) if trained else None,
        "training": _without_seed(config) if trained else None,
        "command": _command(row, config) if kind not in ("asv", None) else None,
    }


def _parsed(text: str) -> dict[str, Any]:
    """Read a column of JSON; nothing where another program wrote something else there."""
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _settings(config: dict[str, Any], part: str) -> dict[str, Any]:
    content = config.get(part)
    return content if isinstance(content, dict) else {}


def _shortened(row: dict[str, Any], settings: dict[str, Any]) -> bool:
    if row["objective"] == "closed-form":
        return False
    cut = settings.get("max_seconds") is not None or _CUT_SHORT.search(row["recipe"]) is not None
    return row["profile"] == "quick" or cut


def _without_seed(config: dict[str, Any]) -> str:
    problem = {name: value for name, value in _settings(config, "problem").items() if name != "seed"}
    return json.dumps(config | {"problem": problem}, sort_keys=True)


def _command(row: dict[str, Any], config: dict[str, Any]) -> str:
    words = {"runtime": _runtime, "train": _train}.get(row["experiment"], _reproduce)
    options = ["--seed", row["seed"], "--threads", row["threads"], "--device", row["device"]]
    return shlex.join(map(str, [*words(row, config), *options]))


def _reproduce(row: dict[str, Any], config: dict[str, Any]) -> list[Any]:
    words = ["reproduce", row["experiment"], "--profile", row["profile"]]
    if config["kind"] != "RuntimeCell":
        words += ["--methods", row["method"], "--seeds", 1]
    budget = _BUDGET.search(row["recipe"])
    return words + (["--epochs", budget[1]] if budget else [])


def _runtime(row: dict[str, Any], config: dict[str, Any]) -> list[Any]:
    words = ["runtime", "--architecture", row["architecture"], "--dims", row["D"], "--layers", row["L"]]
    words += ["--batch", row["B"], "--dtype", row["dtype"], "--repeats", config.get("repeats", 15)]
    if methods := config.get("methods"):
        words += ["--methods", ",".join(map(str, methods))]
    return words + (["--compile"] if _settings(config, "config").get("compile") else [])


def _train(row: dict[str, Any], config: dict[str, Any]) -> list[Any]:
    recipe, *changes = row["recipe"].split(", ")
    words = ["train", "--method", row["method"], "--architecture", row["architecture"], "--dataset", row["dataset"]]
    words += ["--recipe", recipe, "--draws", config.get("draws", 10)]
    for change in changes:
        name, _, value = change.partition(" ")
        words += [f"--{name.replace('_', '-')}", *([] if name == "compile" else [value])]
    if config.get("preprocess") is False:
        words.append("--without-map")
    return words
