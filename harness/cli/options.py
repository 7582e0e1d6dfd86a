"""The options that several commands share, by the panel of the help that shows them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.cli import completion
from harness.errors import InputError
from harness.methods.problem import ArchitectureName, DtypeName
from harness.paper.recipes import ProfileName
from harness.training.configuration import OptimizerName

if TYPE_CHECKING:
    from harness.cells.own_process import Limits

MODEL = "Model and data"
TRAINING = "Training"
MACHINE = "Machine"
OUTPUT = "Results"

_LARGEST = 1e9  # seconds or GiB

RESULTS = Path("results/local")
"""The results folder, unless --results-dir or HARNESS_RESULTS_DIR names another."""


def option(panel: str, metavar: str | None, text: str, *names: str, **settings: Any) -> Any:
    """Declare an option that the help shows in a panel; a flag has no metavar."""
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=panel, **settings)


ExecutorName = Literal["serial", "processes", "dask"]  # as in `harness.cells.workers`, which is slow to import

Architecture = Annotated[
    ArchitectureName, option(MODEL, "NAME", "Architecture of the flow: fc, cnn, glow, toy or multimodal.")
]
Methods = Annotated[
    str | None,
    option(
        MODEL,
        "NAME,...",
        "Names of methods, separated by commas; all methods if not given.",
        autocompletion=completion.comma_separated(completion.methods),
    ),
]
_FORMATS = "float32, float64, or float32 with the matrix products of training in tf32 (on CUDA) or bf16"
Dtype = Annotated[DtypeName, option(MODEL, "NAME", f"Number format: {_FORMATS}.")]
TrainingDtype = Annotated[
    DtypeName | None, option(MODEL, "NAME", f"Number format: {_FORMATS}; the recipe's if not given.")
]
Profile = Annotated[
    ProfileName, option(MODEL, "NAME", "Length of the experiments: quick, in minutes; or paper, as published, in days.")
]
Optimizer = Annotated[
    OptimizerName | None, option(TRAINING, "NAME", "Optimiser, rmsprop or adam; the recipe's if not given.")
]
Refresh = Annotated[
    int | None,
    option(
        TRAINING,
        "K",
        "Number of steps from one refresh of log Z to the next, for amortised maximum likelihood. If not given, its "
        "drift decides, and in timings the mean of a real training.",
        min=1,
    ),
]
Compile = Annotated[
    bool, option(TRAINING, None, "Compile the loss (torch.compile); the first step is slow.", "--compile")
]
CudaGraphs = Annotated[
    bool,
    option(
        TRAINING,
        None,
        "Record a step once and replay it, on a CUDA device; its rows are apart from those without.",
        "--cuda-graphs",
    ),
]
Device = Annotated[str, option(MACHINE, "NAME", "Device to compute on: cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, option(MACHINE, "N", "Number of torch threads; all cores if not given.")]
Executor = Annotated[
    ExecutorName,
    option(
        MACHINE,
        "NAME",
        "Executor of the cells: this process, one by one (serial); several processes, with timings after the rest "
        "(processes); or a cluster (dask).",
    ),
]
Workers = Annotated[int | None, option(MACHINE, "N", "Number of processes side by side; all cores if not given.")]
Scheduler = Annotated[str | None, option(MACHINE, "ADDRESS", "Address of a Dask scheduler, such as tcp://HOST:8786.")]
Timeout = Annotated[float | None, option(MACHINE, "SECONDS", "Longest time that a cell may take, in its own process.")]
Memory = Annotated[float | None, option(MACHINE, "GIB", "Most memory that a cell may use, in its own process.")]
Seed = Annotated[
    int, option(MACHINE, "N", "Seed of the initial weights, the noise, the order of training, and synthetic data.")
]
DataDir = Annotated[
    Path | None,
    option(MACHINE, "FOLDER", "Folder that has mnist/ and cifar-10-batches-bin/.", envvar="HARNESS_DATA_DIR"),
]
Offline = Annotated[
    bool,
    option(
        MACHINE,
        None,
        "Leave the network alone: what needs data that are not here has no number.",
        "--offline",
        envvar="HARNESS_OFFLINE",
    ),
]
ResultsDir = Annotated[
    Path,
    option(OUTPUT, "FOLDER", "Folder of results: finished cells, tables and figures.", envvar="HARNESS_RESULTS_DIR"),
]
Write = Annotated[bool, option(OUTPUT, None, "Write the files into the results folder.", "--write")]
Output = Annotated[Path | None, option(OUTPUT, "FOLDER", "Another folder to write the files into.")]
Fresh = Annotated[bool, option(OUTPUT, None, "Measure again what the results folder has already.", "--fresh")]
AsJson = Annotated[bool, option(OUTPUT, None, "Print rows of the result schema alone, as lines of JSON.", "--json")]
Quiet = Annotated[bool, option(OUTPUT, None, "Print results and errors alone, no progress.", "--quiet", "-q")]


def replayed(cuda_graphs: bool, device: str) -> bool:
    """Return whether steps are to be replayed as CUDA graphs.

    Raises:
        InputError: if the device has none.
    """
    if cuda_graphs and not device.startswith("cuda"):
        raise InputError("--cuda-graphs is for a CUDA device; add --device cuda, or leave it out")
    return cuda_graphs


def words(command: str, **options: object) -> tuple[str, ...]:
    """Return the arguments of a command: those options that are not None, a True one as a flag alone."""
    given = [command]
    for name, value in options.items():
        if value is not None:
            given += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return tuple(given)


def command(words: Sequence[str], results_dir: Path) -> str:
    """Return a command of this program that reads a results folder, as a shell takes it."""
    usual = results_dir == RESULTS and "HARNESS_RESULTS_DIR" not in os.environ
    return shlex.join(["harness", *words, *([] if usual else ["--results-dir", str(results_dir)])])


def existing(folder: Path | None) -> Path | None:
    """Return the data folder that was asked for.

    Raises:
        InputError: if the folder does not exist.
    """
    if folder is not None and not folder.is_dir():
        raise InputError(
            f"the data folder {folder} does not exist; make it, or leave --data-dir and HARNESS_DATA_DIR out"
        )
    return folder


def destination(results_dir: Path, write: bool, output: Path | None) -> Path | None:
    """Return the folder that a reading command writes into: the results folder, another one, or None for neither.

    Raises:
        InputError: if both folders were asked for.
    """
    if write and output is not None:
        raise InputError("--write and --output name two folders; give one of them")
    return results_dir if write else output


def limits(timeout: float | None, memory: float | None) -> Limits | None:
    """Return the limits of a cell, given in seconds and GiB; None where there is neither.

    Raises:
        InputError: if a limit is not above 0.
    """
    from harness.cells.own_process import Limits

    for name, limit in (("timeout", timeout), ("memory", memory)):
        if limit is not None and not 0 < limit < _LARGEST:
            raise InputError(f"--{name} must be a number above 0 and below {_LARGEST:g}, not {limit:g}")
    if timeout is None and memory is None:
        return None
    return Limits(timeout, None if memory is None else round(memory * 2**30))
