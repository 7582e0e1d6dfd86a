"""The published numbers, from ``published.toml`` and ``published_tabular.toml`` beside this file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import polars as pl

_NETWORK = ("dataset", "architecture")


@dataclass(frozen=True)
class PublishedScore:
    """A number that a paper on density estimation prints for a method and a dataset.

    Attributes:
        dataset: The name of the dataset.
        value: The test log-likelihood, or for images also bits per dimension.
        unit: "nats" a sample of the standardised data, "nats in logit space" or "bits/dim", which do not compare.
        error: The error that is printed after the value; None if none is.
        method: The method, as the paper calls it.
        paper: The number of the paper at arXiv, or where else it is.
        read: Where the number was read: "authors" for their own repository, "compilation" for a repository of others
            that names the paper, "notes" for a transcription of its table.
        error_kind: "test-set" for two standard errors over test samples, "runs" for repeated runs, or "unstated".
        checked: A second source that prints the same number; empty if there is none.
        note: What to know before comparing with the number; empty if there is nothing.
    """

    dataset: str
    value: float
    unit: str
    error: float | None
    method: str
    paper: str
    read: str
    error_kind: str = "unstated"
    checked: str = ""
    note: str = ""


@cache
def _tables(name: str = "published.toml") -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads(files("harness.paper").joinpath(name).read_text())


def tabular() -> list[PublishedScore]:
    """Return the published test log-likelihoods on POWER, GAS, HEPMASS, MINIBOONE and BSDS300, in nats a sample."""
    return [
        PublishedScore(dataset, value, "nats", entry.get("error", {}).get(dataset), **_source(entry))
        for entry in _tables("published_tabular.toml")["result"]
        for dataset, value in entry["log_likelihood"].items()
    ]


def images() -> list[PublishedScore]:
    """Return the published test log-likelihoods on images in logit space, and the published bits per dimension."""
    return [
        PublishedScore(dataset, value, unit, entry.get(f"{dataset}_error", {}).get(method), method, **_source(entry))
        for table, unit in (("image_logit_space", "nats in logit space"), ("image_bits_per_dim", "bits/dim"))
        for entry in _tables("published_tabular.toml")[table]
        for dataset in ("mnist", "cifar10", "imagenet32", "imagenet64")
        for method, value in entry.get(dataset, {}).items()
    ]


def _source(entry: dict[str, Any]) -> dict[str, str]:
    return {key: text for key, text in entry.items() if isinstance(text, str)}


def _numbers(table: str, column: str, called: str, *keys: str) -> pl.DataFrame:
    """Return one row for each number in a column of a table's entries: keys of the entry, objective and number."""
    rows = [
        (*map(entry.get, keys), name, number)
        for entry in _tables()[table]
        for name, number in entry.get(column, {}).items()
    ]
    return pl.DataFrame(rows, schema=[*keys, "objective", called], orient="row")


def likelihood() -> pl.DataFrame:
    """Return the paper's test NLLs in nats, one a dataset, architecture and objective.

    The columns of the NLL and of half its interval's width are ``published_nll`` and ``published_ci``.
    """
    table = _numbers("likelihood", "nll", "published_nll", *_NETWORK)
    widths = _numbers("likelihood", "ci", "published_ci", *_NETWORK)
    return table.join(widths, [*_NETWORK, "objective"], "left", maintain_order="left")


def priors() -> pl.DataFrame:
    """Return the test NLLs in nats that other people published, one a dataset, architecture and method."""
    table = _numbers("prior", "nll", "published_nll", *_NETWORK, "source")
    method = pl.format("{} ({})", "objective", "source").alias("method")
    return table.select(*_NETWORK, method, "published_nll")


def caveats(dataset: str, architecture: str) -> list[str]:
    """Return the sentences to read before comparing a result on a dataset and architecture with a published number."""
    network = (dataset, architecture)
    return [entry["text"] for entry in _tables()["caveat"] if (entry["dataset"], entry["architecture"]) == network]


def time_to_level() -> pl.DataFrame:
    """Return how long the paper's trainings took to levels of validation bits/dim, read from its figure to 10 %.

    Returns:
        One row a dataset, architecture, objective and level (bits/dim), with published_hours and published_steps; the
        steps are the hours times the published batches a second.
    """
    hours = _numbers("time_to_level", "hours", "published_hours", *_NETWORK, "bits_per_dim")
    steps = (pl.col("published_hours") * 3600 * pl.col("batches_per_second")).round().cast(pl.Int64)
    timed = hours.join(throughput(), [*_NETWORK, "objective"], "left", maintain_order="left")
    level = pl.col("bits_per_dim").alias("level")
    return timed.select(*_NETWORK, "objective", level, "published_hours", published_steps=steps)


def ablation() -> pl.DataFrame:
    """Return the paper's test NLLs in nats on MNIST, one an architecture, objective, EMA and MaP."""
    table = _numbers("ablation", "nll", "published_nll", "architecture", "ema", "map")
    dataset = pl.lit("mnist").alias("dataset")
    return table.select(dataset, "architecture", "objective", EMA="ema", MaP="map", published_nll="published_nll")


def runtime() -> pl.DataFrame:
    """Return the seconds that the authors' GPU took for a batch of 100, one an architecture, objective and shape."""
    rows = [
        (entry["architecture"], objective, f"{entry['channels']}x{n}x{n}", entry["channels"] * n * n, seconds)
        for entry in _tables()["runtime"]
        for objective in ("ml", "sml", "ssm", "dsm", "fdssm")
        for n, seconds in zip(entry["n"], entry.get(objective, []), strict=False)
    ]
    return pl.DataFrame(rows, schema=["architecture", "objective", "shape", "D", "published_seconds"], orient="row")


def throughput() -> pl.DataFrame:
    """Return the batches of 100 a second on the authors' GPU, one a dataset, architecture and objective."""
    return _numbers("likelihood", "batches_per_second", "batches_per_second", *_NETWORK)
