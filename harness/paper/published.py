"""The published numbers, from ``published.toml`` beside this file."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import polars as pl


@cache
def _tables() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads(files("harness.paper").joinpath("published.toml").read_text())


def likelihood() -> pl.DataFrame:
    """Return the paper's test NLLs in nats, one a dataset, architecture and objective.

    The columns of the NLL and of half its interval's width are ``published_nll`` and ``published_ci``.
    """
    rows = [
        (entry["dataset"], entry["architecture"], objective, nll, entry.get("ci", {}).get(objective))
        for entry in _tables()["likelihood"]
        for objective, nll in entry["nll"].items()
    ]
    names = ["dataset", "architecture", "objective", "published_nll", "published_ci"]
    return pl.DataFrame(rows, schema=names, orient="row")


def priors() -> pl.DataFrame:
    """Return the test NLLs in nats that other people published, one a dataset, architecture and method."""
    rows = [
        (entry["dataset"], entry["architecture"], f"{name} ({entry['source']})", nll)
        for entry in _tables()["prior"]
        for name, nll in entry["nll"].items()
    ]
    return pl.DataFrame(rows, schema=["dataset", "architecture", "method", "published_nll"], orient="row")


def caveats(dataset: str, architecture: str) -> list[str]:
    """Return the sentences to read before comparing a result on a dataset and architecture with a published number."""
    return [
        entry["text"]
        for entry in _tables()["caveat"]
        if (entry["dataset"], entry["architecture"]) == (dataset, architecture)
    ]


def time_to_level() -> pl.DataFrame:
    """Return how long the paper's trainings took to levels of validation bits/dim, read from its figure to 10 %.

    Returns:
        One row a dataset, architecture, objective and level (bits/dim), with published_hours and published_steps; the
        steps are the hours times the published batches a second.
    """
    speed = {
        (entry["dataset"], entry["architecture"]): entry.get("batches_per_second", {})
        for entry in _tables()["likelihood"]
    }
    rows = [
        (
            entry["dataset"],
            entry["architecture"],
            objective,
            entry["bits_per_dim"],
            hours,
            round(hours * 3600 * speed[entry["dataset"], entry["architecture"]][objective]),
        )
        for entry in _tables()["time_to_level"]
        for objective, hours in entry["hours"].items()
    ]
    names = ["dataset", "architecture", "objective", "level", "published_hours", "published_steps"]
    return pl.DataFrame(rows, schema=names, orient="row")


def ablation() -> pl.DataFrame:
    """Return the paper's test NLLs in nats on MNIST, one an architecture, objective, EMA and MaP."""
    rows = [
        ("mnist", entry["architecture"], objective, entry["ema"], entry["map"], nll)
        for entry in _tables()["ablation"]
        for objective, nll in entry["nll"].items()
    ]
    return pl.DataFrame(
        rows, schema=["dataset", "architecture", "objective", "EMA", "MaP", "published_nll"], orient="row"
    )


def runtime() -> pl.DataFrame:
    """Return the seconds that the authors' GPU took for a batch of 100, one an architecture, objective and shape."""
    rows = [
        (entry["architecture"], objective, f"{entry['channels']}x{n}x{n}", seconds)
        for entry in _tables()["runtime"]
        for objective in ("ml", "sml", "ssm", "dsm", "fdssm")
        for n, seconds in zip(entry["n"], entry.get(objective, []), strict=False)
    ]
    return pl.DataFrame(rows, schema=["architecture", "objective", "shape", "published_seconds"], orient="row")


def throughput() -> pl.DataFrame:
    """Return the batches of 100 a second on the authors' GPU, one a dataset, architecture and objective."""
    rows = [
        (entry["dataset"], entry["architecture"], objective, rate)
        for entry in _tables()["likelihood"]
        for objective, rate in entry.get("batches_per_second", {}).items()
    ]
    return pl.DataFrame(rows, schema=["dataset", "architecture", "objective", "batches_per_second"], orient="row")
