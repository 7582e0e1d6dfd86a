"""`harness evaluate` and `harness sample`: a trained model on data."""

from __future__ import annotations

import io
import math
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import completion
from harness.cli.options import MODEL, OUTPUT, DataDir, existing, option
from harness.errors import InputError, listed

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from harness.models.trained import DensityModel

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="File that `harness train --save` wrote.", show_default=False)
]
Seed = Annotated[int, option(MODEL, "N", "Seed of everything random.", min=0)]
Output = Annotated[Path | None, option(OUTPUT, "FILE", "File to write, .npy or .csv.")]


def evaluate(
    model: Model,
    dataset: Annotated[
        str,
        option(
            MODEL,
            "NAME|FILE",
            "Name of a dataset, whose test part is taken, or a .csv, .parquet, .feather or .npy file of rows.",
            autocompletion=completion.datasets,
        ),
    ],
    seed: Seed = 0,
    data_dir: DataDir = None,
    output: Output = None,
) -> None:
    """Print how likely data are under a trained model: the mean log-likelihood, in nats and in bits/dim.

    With --output the log-likelihood of every row is written to a file, in nats. The seed is that of the dequantisation
    noise of images; seed 0 is the first test pass of `harness train`.

    Examples:
      harness evaluate model.safetensors --dataset rows.csv
      harness evaluate model.safetensors --dataset rows.csv --output scores.csv
    """
    import polars as pl
    import torch

    from harness import datasets, load_model
    from harness.cli import screen
    from harness.results.statistics import mean_interval

    _check(output)
    trained: DensityModel = load_model(model)
    if datasets.is_file(dataset):
        rows, _, _ = datasets.read_rows(Path(dataset), trained.description.columns)
        raw = torch.from_numpy(rows)
    else:
        raw = datasets.load(dataset, existing(data_dir)).test
    try:
        values = trained.test_densities(raw, seed)
    except InputError as error:
        raise InputError(f"{dataset}: {error}") from error
    if not len(values):
        raise InputError(f"{dataset}: holds no rows")
    if far := trained.far_columns(raw):
        screen.say(
            f"warning: {dataset}: most rows lie more than 10 standard deviations of the training data from their mean "
            f"in columns {listed(far)}; compare the units"
        )
    if lost := (~values.isfinite()).nonzero().flatten().tolist():
        screen.say(
            f"warning: {dataset}: {len(lost)} of {len(values)} rows have no finite log-likelihood, the first in row "
            f"{lost[0]} from 0 ({values[lost[0]]:g} nats): it is too far from the training data"
        )
    mean = mean_interval(values.tolist())
    bits = -1 / (math.prod(trained.shape) * math.log(2))
    told = {"method": trained.description.method, "dataset": dataset, "N": len(values)}
    told |= {"log-likelihood nats": mean.value, "low": mean.low, "high": mean.high}
    told |= {"bits/dim": mean.value * bits}
    screen.show_table("Mean log-likelihood of a row, with its 95 % interval", pl.DataFrame([told]))
    if output is not None:
        _write(output, pl.DataFrame({"log_likelihood": values.numpy()}), values.numpy())


def sample(
    model: Model,
    n: Annotated[int, option(MODEL, "N", "Number of samples.", "--number", "-n", min=1)] = 100,
    seed: Seed = 0,
    output: Output = None,
) -> None:
    """Draw samples from a trained model, in the data's own units; without --output they are printed as CSV.

    Examples:
      harness sample model.safetensors -n 100
      harness sample model.safetensors -n 100 --output samples.csv
    """
    import numpy as np
    import polars as pl

    from harness import load_model
    from harness.cli import screen

    _check(output)
    trained: DensityModel = load_model(model)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", RuntimeWarning)
        samples = np.asarray(trained.sample(n, seed))
    for note in notes:
        screen.say(f"warning: {note.message}")
    flat = samples.reshape(n, -1)
    names = trained.description.columns or tuple(f"x{number}" for number in range(flat.shape[1]))
    _write(output, pl.DataFrame(flat, schema=list(names)), samples)


def _check(output: Path | None) -> None:
    """Find out before the work whether the output can be written.

    Raises:
        InputError: if the ending is no format that is written, or a folder has the name.
    """
    if output is not None and output.suffix not in (".npy", ".csv"):
        raise InputError(f"{output}: results are written as .npy or .csv; choose one of these endings")
    if output is not None and output.is_dir():
        raise InputError(f"{output}: it is a folder; choose another file")


def _write(output: Path | None, frame: pl.DataFrame, array: np.ndarray) -> None:
    """Write a frame as CSV, or the array of the same numbers as `.npy`; without a file, print the frame."""
    import numpy as np

    from harness.results.whole_file import put

    if output is None:
        sys.stdout.write(frame.write_csv())
        return
    content = io.BytesIO()
    if output.suffix == ".npy":
        np.save(content, array)
    else:
        frame.write_csv(content)
    put(output, content.getvalue())
