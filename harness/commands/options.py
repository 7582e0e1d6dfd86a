"""The options that several commands share, by the panel of the help that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands import completion
from harness.errors import InputError

__all__ = [
    "MACHINE",
    "MODEL",
    "OUTPUT",
    "RESULTS",
    "TRAINING",
    "Architecture",
    "AsJson",
    "Compile",
    "DataDir",
    "Device",
    "Dtype",
    "Fresh",
    "Methods",
    "Quiet",
    "ResultsDir",
    "Seed",
    "Threads",
    "existing",
]

MODEL = "Model and data"
TRAINING = "Training"
MACHINE = "Machine"
OUTPUT = "Results"

RESULTS = Path("results/local")
"""Where finished cells and tables lie unless told otherwise."""

Architecture = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="fc, cnn, glow, toy or multimodal.",
        autocompletion=completion.architectures,
        rich_help_panel=MODEL,
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Comma-separated; all if not given.",
        autocompletion=completion.comma_separated(completion.methods),
        rich_help_panel=MODEL,
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="float32, float64, or float32 with the products of training in tf32 (CUDA) or bf16.",
        autocompletion=completion.dtypes,
        rich_help_panel=MODEL,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile", help="Put the loss through torch.compile; the first step is slow.", rich_help_panel=TRAINING
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="cpu, cuda or cuda:N.", autocompletion=completion.devices, rich_help_panel=MACHINE
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", help="Threads of torch; all cores if not given.", rich_help_panel=MACHINE),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Of initialisation, noise and order.", rich_help_panel=MACHINE)]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        envvar="HARNESS_DATA_DIR",
        help="Has mnist/ and cifar-10-batches-bin/.",
        rich_help_panel=MACHINE,
    ),
]
ResultsDir = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER",
        envvar="HARNESS_RESULTS_DIR",
        help="Where finished cells and tables lie.",
        rich_help_panel=OUTPUT,
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure anew what is already there.", rich_help_panel=OUTPUT)]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print rows of the result schema, one JSON object a line, and nothing else.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No plan and no progress: results and errors alone.", rich_help_panel=OUTPUT),
]


def existing(folder: Path | None) -> Path | None:
    """Return the data folder that was asked for.

    Raises:
        InputError: It does not exist.
    """
    if folder is not None and not folder.is_dir():
        raise InputError(f"the data folder {folder} does not exist; make it, or leave --data-dir out")
    return folder
