"""The published numbers, from ``published.toml`` beside this file."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import polars as pl

__all__ = ["ablation", "likelihood", "runtime"]


@cache
def _tables() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads(files("harness.paper").joinpath("published.toml").read_text())


def likelihood() -> pl.DataFrame:
    """Test NLL in nats: dataset, architecture, objective, published_nll, published_ci (half-width)."""
    rows = [
        (entry["dataset"], entry["architecture"], objective, nll, entry.get("ci", {}).get(objective))
        for entry in _tables()["likelihood"]
        for objective, nll in entry["nll"].items()
    ]
    names = ["dataset", "architecture", "objective", "published_nll", "published_ci"]
    return pl.DataFrame(rows, schema=names, orient="row")


def ablation() -> pl.DataFrame:
    """Test NLL in nats on MNIST: architecture, objective, EMA, MaP, published_nll."""
    rows = [
        ("mnist", entry["architecture"], objective, entry["ema"], entry["map"], nll)
        for entry in _tables()["ablation"]
        for objective, nll in entry["nll"].items()
    ]
    return pl.DataFrame(
        rows, schema=["dataset", "architecture", "objective", "EMA", "MaP", "published_nll"], orient="row"
    )


def runtime() -> pl.DataFrame:
    """Seconds for a batch of 100 on the authors' GPU: architecture, objective, shape, published_seconds."""
    rows = [
        (entry["architecture"], objective, f"{entry['channels']}x{n}x{n}", seconds)
        for entry in _tables()["runtime"]
        for objective in ("ml", "sml", "ssm", "dsm", "fdssm")
        for n, seconds in zip(entry["n"], entry.get(objective, []), strict=False)
    ]
    return pl.DataFrame(rows, schema=["architecture", "objective", "shape", "published_seconds"], orient="row")
