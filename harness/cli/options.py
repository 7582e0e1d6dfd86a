"""The options that several commands share, by the panel of the help that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import completion
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.cells.own_process import Limits


MODEL = "Model and data"
TRAINING = "Training"
MACHINE = "Machine"
OUTPUT = "Results"

_LARGEST = 1e9  # seconds or GiB

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
    int | None, typer.Option(metavar="N", help="Threads of torch; all cores if not given.", rich_help_panel=MACHINE)
]
Executor = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="serial: one cell after another; processes: side by side, timings after the rest; dask: on a cluster.",
        autocompletion=completion.executors,
        rich_help_panel=MACHINE,
    ),
]
Workers = Annotated[
    int | None, typer.Option(metavar="N", help="How many processes; all cores if not given.", rich_help_panel=MACHINE)
]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Of Dask: tcp://HOST:8786.", rich_help_panel=MACHINE)
]
Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Limit of a cell, in a process of its own.", rich_help_panel=MACHINE),
]
Memory = Annotated[
    float | None, typer.Option(metavar="GIB", help="Limit of a cell, in a process of its own.", rich_help_panel=MACHINE)
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


def words(command: str, **options: object) -> tuple[str, ...]:
    """Return the arguments of a command: those options that are not None, a True one as a flag alone."""
    given = [command]
    for name, value in options.items():
        if value is not None:
            given += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return tuple(given)


def existing(folder: Path | None) -> Path | None:
    """Return the data folder that was asked for.

    Raises:
        InputError: It does not exist.
    """
    if folder is not None and not folder.is_dir():
        raise InputError(f"the data folder {folder} does not exist; make it, or leave --data-dir out")
    return folder


def limits(timeout: float | None, memory: float | None) -> Limits | None:
    """Return what a cell may use, in seconds and GiB; None where neither is limited.

    Raises:
        InputError: A limit is not above 0.
    """
    from harness.cells.own_process import Limits

    for option, limit in (("timeout", timeout), ("memory", memory)):
        if limit is not None and not 0 < limit < _LARGEST:
            raise InputError(f"--{option} must be a number above 0 and below {_LARGEST:g}, not {limit:g}")
    if timeout is None and memory is None:
        return None
    return Limits(timeout, None if memory is None else round(memory * 2**30))
