"""`harness fetch`: the published datasets, downloaded and checked."""

from __future__ import annotations

from typing import Annotated

import typer

from harness import datasets
from harness.cli import completion, options
from harness.datasets.files import data_folder


def size(name: str) -> str:
    """Return how much a dataset takes to download, in words; empty for one that is not downloaded."""
    count = datasets.DECLARATIONS[name].download_bytes
    return "size not published" if count is None else f"{count / 1e6:.0f} MB" if count else ""


_SIZES = ", ".join(f"{name} ({size(name)})" for name in datasets.names() if size(name))


def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET...",
            help=f"Names of datasets, with the size of their download: {_SIZES}.",
            autocompletion=completion.datasets,
        ),
    ],
    data_dir: options.DataDir = None,
) -> None:
    """Download datasets from their authors, check them by their hash, and keep them where every command finds them.

    The place is --data-dir, HARNESS_DATA_DIR, or else the user's cache. What is there already is not fetched again:
    power, hepmass, miniboone and bsds300 come in one archive.

    Examples:
      harness fetch mnist
      harness fetch mnist cifar10 --data-dir data
      harness fetch power
    """
    from harness.cli import screen
    from harness.errors import InputError, printable, unknown

    folder = options.existing(data_dir)
    for name in names:
        if name not in datasets.names():
            raise unknown("dataset", name, datasets.names())
    for name in names:
        missing = datasets.why_unavailable(name, folder)
        if not size(name):
            if missing is not None:
                raise InputError(missing)
            print(f"{name}: nothing to fetch")
            continue
        if missing is not None:
            screen.say(f"fetching {name} ({size(name)})")
            datasets.fetch(name, folder)
        print(f"{name}: in {printable(str(data_folder(folder)))}")
