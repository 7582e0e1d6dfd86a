"""What takes the rows of stored files from one version of the schema to the next. Append; never change what is here."""

import json
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import polars as pl

from harness.results.schema import SCHEMA, cell_key

Migration = Callable[[pl.DataFrame], pl.DataFrame]

_WHERE = ("project", "versions", "cpu", "gpu", "threads", "processes", "data")
_VERSION_2 = json.loads(files("harness.results").joinpath("version_2.json").read_text())
"""The defaults that an absent field of version 2 stood for, and that keys of version 3 leave out."""


def add_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Take a version 1 cell to version 2: add empty columns where they are missing.

    Files of version 1 name no version, have no seal, and hold as many of these as there were when they were written.
    """
    missing = [name for name in ("iteration", "seconds", "limits") if name not in frame.columns]
    return frame.with_columns(pl.lit(None, SCHEMA[name]).alias(name) for name in missing)


def name_by_differences(frame: pl.DataFrame) -> pl.DataFrame:
    """Take a version 2 cell to version 3: its key is made of what differs from defaults, its origin is data.

    In version 2 the key was made of all fields, so that every new option renamed all cells, and how a cell was asked
    for stood in the label ``recipe`` alone.
    """
    first = {row["config"]: row for row in reversed(frame.to_dicts())}
    configs = {text: _version_3(row) for text, row in first.items()}
    keys = {text: cell_key(json.loads(config)["identity"]) for text, config in configs.items()}
    return frame.with_columns(
        cell=pl.col("config").replace_strict(keys, return_dtype=pl.String),
        config=pl.col("config").replace_strict(configs, return_dtype=pl.String),
    )


MIGRATIONS: tuple[Migration, ...] = (add_columns, name_by_differences)
"""What takes the rows of version 1 to version 2, of 2 to 3, and so on."""


def _version_3(row: Mapping[str, Any]) -> str:
    old = json.loads(row["config"])
    kind = old.pop("kind").removesuffix("Cell").lower()
    where = {name: old.pop(name) for name in _WHERE if name in old}
    label = old.pop("recipe", row["recipe"])
    defaults = {**_VERSION_2["kinds"][kind], "problem": _VERSION_2["problem"]}
    if kind != "normalizer":
        defaults["config"] = _VERSION_2["config"]
    settings = {**defaults, **old}
    settings |= {part: {**defaults[part], **settings[part]} for part in ("problem", "config") if part in defaults}
    identity = {"kind": kind, **where, **_differing(settings, defaults)}
    if kind == "runtime" and not identity["config"]:  # the one configuration that has a default as a whole
        del identity["config"]
    origin = _origin(kind, label, row, settings)
    return json.dumps({"identity": identity, "settings": settings, "origin": origin}, sort_keys=True)


def _differing(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _differing(value, defaults[name]) if isinstance(defaults.get(name), dict) else value
        for name, value in settings.items()
        if name not in defaults or isinstance(defaults[name], dict) or value != defaults[name]
    }


def _origin(kind: str, label: str, row: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read from the label and the configuration how a cell was asked for, as version 2 did for every report."""
    recipe, *changes = label.split(", ")
    budget = re.search(r", (\d+) of [\d,]+ epochs$", label)
    overrides: dict[str, Any] = {"epochs": int(budget[1])} if budget else {}
    config = settings.get("config", {})
    methods = settings.get("methods") or [settings["method"]]
    words: list[Any]
    if row["experiment"] == "train":
        if not budget:
            changed = {**settings["problem"], **config}
            overrides = {name: changed[name] for name in (change.split(" ")[0] for change in changes)}
        if recipe == "paper" and config["epochs"] < 80:  # the fewest published, of glow; the first labels had no epochs
            overrides = {"epochs": config["epochs"], **overrides}
        words = ["train", "--method", methods[0], "--architecture", row["architecture"], "--dataset", row["dataset"]]
        words += ["--recipe", recipe, "--draws", settings["draws"], "--dtype", row["dtype"]]
        flags = {"ema_decay": ["--no-ema"], "compile": ["--compile"]}
        for name, value in overrides.items():
            words += flags.get(name, [f"--{name.replace('_', '-')}", value])
        words += [] if settings["preprocess"] else ["--without-map"]
    elif row["experiment"] == "runtime":
        words = ["runtime", "--architecture", row["architecture"], "--dims", row["D"], "--layers", row["L"]]
        words += ["--batch", row["B"], "--dtype", row["dtype"], "--repeats", settings["repeats"]]
        words += ["--methods", ",".join(methods), *(["--compile"] if config["compile"] else [])]
    else:
        words = ["reproduce", row["experiment"], "--profile", row["profile"], "--methods", ",".join(methods)]
        words += ["--seeds", 1, *(["--epochs", budget[1]] if budget else [])]
    words += ["--seed", row["seed"], "--device", row["device"]]
    shortened = row["profile"] == "quick" or config.get("max_seconds") is not None or "epochs" in overrides
    trained = kind in ("likelihood", "imputation")
    return {
        "argv": [str(word) for word in words],
        "recipe": recipe,
        "overrides": overrides,
        "shortened": (shortened and row["objective"] != "closed-form") if trained else None,
    }
