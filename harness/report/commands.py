"""The command that measures a cell again."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any


def command(row: dict[str, Any]) -> str:
    """Return what to type to measure the cell of a row again, quoted for a shell.

    Args:
        row: Any row of the cell, with the columns of `harness.results.SCHEMA`.
    """
    if row["experiment"] == "asv":
        return shlex.join(["asv", "run", f"{row['commit']}^!"])
    config = parsed(row["config"])
    words = {"runtime": _runtime, "train": _train}.get(row["experiment"], _reproduce)
    options = ["--seed", row["seed"], "--threads", row["threads"], "--device", row["device"]]
    return shlex.join(map(str, ["harness", *words(row, config), *options]))


def parsed(text: str) -> dict[str, Any]:
    """Read a column of JSON; nothing where another program wrote something else there."""
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _reproduce(row: dict[str, Any], config: dict[str, Any]) -> list[Any]:
    words = ["reproduce", row["experiment"], "--profile", row["profile"]]
    if config.get("kind") != "RuntimeCell":
        words += ["--methods", row["method"], "--seeds", 1]
    budget = re.search(r", (\d+) of [\d,]+ epochs$", row["recipe"])
    return words + (["--epochs", budget[1]] if budget else [])


def _runtime(row: dict[str, Any], config: dict[str, Any]) -> list[Any]:
    words = ["runtime", "--architecture", row["architecture"], "--dims", row["D"], "--layers", row["L"]]
    words += ["--batch", row["B"], "--dtype", row["dtype"], "--repeats", config.get("repeats", 15)]
    if methods := config.get("methods"):
        words += ["--methods", ",".join(methods)]
    return words + (["--compile"] if (config.get("config") or {}).get("compile") else [])


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
