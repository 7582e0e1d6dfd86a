"""The one command-line program: list, runtime, train, reproduce, tables; and for authors, check and new-adapter.

Heavy modules are imported inside the commands, so that help is quick.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from harness import authors
from harness.errors import InputError, printable, unknown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import polars as pl

    from harness.cells import Cell
    from harness.execution import Crew
    from harness.isolation import Limits
    from harness.results import Row, Store

__all__ = ["app", "main"]

app = typer.Typer(
    name="harness",
    help="Compare how normalizing flows are trained: score matching beside maximum likelihood, under one protocol.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(authors.app)

Device = Annotated[str, typer.Option(help="Where to run: cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, typer.Option(help="Threads of torch; all cores if not given.")]
Dtype = Annotated[
    str, typer.Option(help="float32, float64, or float32 with the products of training in tf32 (CUDA) or bf16.")
]
Compile = Annotated[bool, typer.Option("--compile", help="Put the loss through torch.compile; the first step is slow.")]
Seed = Annotated[int, typer.Option(help="Seed of initialisation, noise and order.")]
DataDir = Annotated[
    Path | None, typer.Option(envvar="HARNESS_DATA_DIR", help="Folder with mnist/ and cifar-10-batches-bin/.")
]
ResultsDir = Annotated[Path, typer.Option(envvar="HARNESS_RESULTS_DIR", help="Where finished cells and tables lie.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print rows of the result schema, one JSON object a line, and nothing else.")
]
Fresh = Annotated[bool, typer.Option(help="Measure anew what is already there.")]

_RESULTS = Path("results/local")


@app.command("list")
def list_methods(
    device: Device = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show the methods, datasets and experiments, and why one is unavailable."""
    from harness import datasets, listing
    from harness.environment import prepare

    prepare(device, threads)
    folder = _existing(data_dir)
    rows = listing.availability(device, seed)
    if as_json:
        _print_json(rows)
        return
    from harness.paper.configurations import RECIPES
    from harness.paper.experiments import EXPERIMENTS

    _print_table("Methods", listing.methods_table())
    for note in listing.notes():
        print(f"\n{note}", end="")
    print()
    _print_table(
        "Datasets", listing.datasets_table({name: datasets.why_unavailable(name, folder) for name in datasets.names()})
    )
    _print_table("Recipes (harness train --recipe NAME)", listing.recipes_table(RECIPES))
    _print_table("Experiments (harness reproduce NAME)", listing.experiments_table(EXPERIMENTS))


@app.command()
def runtime(
    architecture: Annotated[str, typer.Option(help="fc, cnn, glow, toy or multimodal.")] = "fc",
    dims: Annotated[
        str, typer.Option(help="Dimensions D, comma-separated; for cnn and glow, D = n * n with n a multiple of 4.")
    ] = "64,256,784",
    layers: Annotated[
        str | None, typer.Option(help="Numbers of linear layers L, comma-separated; the paper's if not given.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Batch size B.")] = 100,
    methods: Annotated[str | None, typer.Option(help="Comma-separated; every available one if not given.")] = None,
    dtype: Dtype = "float32",
    compile_: Compile = False,
    repeats: Annotated[int, typer.Option(help="Interleaved repetitions of every method.")] = 15,
    device: Device = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    results_dir: ResultsDir = _RESULTS,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Time an iteration of every method as D and L grow.

    Example: harness runtime --architecture fc --dims 256,784 --layers 2 --methods ebflow-dsm,ebflow-ml
    """
    from harness.cells import RuntimeCell
    from harness.environment import prepare
    from harness.paper.configurations import PUBLISHED_LAYERS
    from harness.problem import ARCHITECTURES, Problem
    from harness.registry import registry
    from harness.results import Store
    from harness.training import TrainingConfig

    prepare(device, threads)
    _existing(data_dir)
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, not {repeats}")
    if architecture not in ARCHITECTURES:
        raise unknown("architecture", architecture, ARCHITECTURES)
    depths = [PUBLISHED_LAYERS[architecture]] if layers is None else _integers(layers, "layers")
    problems = [
        Problem(
            architecture=architecture,
            shape=_shape(architecture, dimension),
            layers=depth,
            batch=batch,
            dtype=dtype,
            device=device,
            seed=seed,
            residual=architecture == "cnn",
        )
        for dimension in _integers(dims, "dims")
        for depth in depths
    ]
    chosen = registry().select(methods) if methods else registry().available(architecture)
    for method in chosen:
        if not method.iterative:
            raise InputError(f"{method.name} is fitted in closed form and has no iteration to time; leave it out")
        if architecture not in method.architectures:
            raise InputError(
                f"{method.name} has no {architecture} architecture, only {', '.join(method.architectures)}; drop it"
            )
    names = tuple(method.name for method in chosen)
    config = TrainingConfig(compile=compile_)
    cells = [RuntimeCell("runtime", "custom", names, problem, repeats, config) for problem in problems]
    _run_and_show(cells, Store(results_dir), fresh, as_json)


@app.command()
def train(
    method: Annotated[str, typer.Option(help="Name of a method.")] = "ebflow-dsm",
    architecture: Annotated[str, typer.Option(help="fc, cnn, glow, toy or multimodal.")] = "fc",
    dataset: Annotated[
        str, typer.Option(help="Name of a dataset, or the path of an .npy file with (N, D) floats.")
    ] = "digits",
    recipe: Annotated[
        str, typer.Option(help="Configuration that the options below change: paper, tuned, ... (harness list).")
    ] = "paper",
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training set; the recipe's number if not given.")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Linear layers L; the recipe's number if not given.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The recipe's if not given.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="rmsprop or adam; the recipe's if not given.")] = None,
    noise: Annotated[
        float | None, typer.Option(help="DSM's sigma, FDSSM's epsilon; the recipe's if not given.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Batch size B; the recipe's if not given.")] = None,
    dtype: Dtype = "float32",
    compile_: Compile = False,
    patience: Annotated[int | None, typer.Option(help="Validations without improvement before stopping.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Budget of training time.")] = None,
    draws: Annotated[int, typer.Option(help="K, test passes with fresh dequantisation noise.")] = 10,
    ema: Annotated[bool, typer.Option(help="Evaluate averaged weights.")] = True,
    map_: Annotated[
        bool, typer.Option("--map/--without-map", help="Preprocess before matching, or inside the model.")
    ] = True,
    checkpoint: Annotated[Path | None, typer.Option(help="Keep the best weights here (safetensors).")] = None,
    device: Device = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    results_dir: ResultsDir = _RESULTS,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Train one method on one dataset to a test NLL, with the paper's configuration unless told otherwise.

    Example: harness train --method ebflow-dsm --architecture fc --dataset mnist --epochs 30
    """
    from harness import datasets
    from harness.environment import prepare
    from harness.likelihood import without_map
    from harness.paper.configurations import configured_cell
    from harness.registry import registry, why_unavailable
    from harness.results import Store

    prepare(device, threads)
    found = registry().find(method)
    if reason := why_unavailable(found):
        raise InputError(f"{method} is unavailable: {reason}")
    if draws < 1:
        raise InputError(f"the number of test draws must be at least 1, not {draws}")
    if architecture not in found.architectures:
        raise InputError(f"{method} has no {architecture} architecture, only {', '.join(found.architectures)}")
    data = datasets.load(dataset, _existing(data_dir))
    cell = configured_cell(
        "train",
        "custom",
        found,
        dataset,
        data.shape,
        architecture,
        recipe=recipe,
        device=device,
        seed=seed,
        draws=draws,
    )
    changes = _given(
        epochs=epochs,
        learning_rate=learning_rate,
        optimizer=optimizer,
        patience=patience,
        max_seconds=max_seconds,
        compile=compile_ or None,
    )
    if not ema:
        changes["ema_decay"] = None
    changed_problem = _given(layers=layers, batch=batch, noise=noise)
    told = [f"{name} {value}" for name, value in (changes | changed_problem).items()]
    cell = dataclasses.replace(
        cell,
        problem=cell.problem.replace(dtype=dtype, **changed_problem),
        config=dataclasses.replace(cell.config, **changes),
        recipe=", ".join([recipe, *told]),
        preprocess=map_,
        data_dir=data_dir,
        download=True,
        checkpoint=checkpoint,
    )
    if checkpoint is not None:
        _make_folder_of(checkpoint)
    if not map_:
        without_map(data, cell.problem)  # only to hear now what it has against these data
    _run_and_show([cell], Store(results_dir), fresh, as_json)


@app.command()
def reproduce(
    experiments: Annotated[
        list[str] | None, typer.Argument(help="Names; all if none is given (harness list shows them).")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="quick: minutes, shortened; paper: the published protocol, days.")
    ] = "quick",
    methods: Annotated[str | None, typer.Option(help="Comma-separated; all if not given.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many seeds; 1 in the quick profile, 3 in the paper's.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Budget of every training in the paper profile; the rows say so.")
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    results_dir: ResultsDir = _RESULTS,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Answer the paper's tables and figures, published numbers beside measured ones.

    Example: harness reproduce table2-mnist-fc --profile quick
    """
    from harness.environment import prepare
    from harness.paper.experiments import Context, select
    from harness.registry import registry
    from harness.results import Store

    chosen = select(experiments or [], profile)
    prepare(device, threads)
    names = tuple(method.name for method in registry().select(methods)) if methods else ()
    context = Context(profile, device, seed, seeds, names, epochs, _existing(data_dir))
    cells = [cell for experiment in chosen for cell in experiment.cells(context)]
    if not cells:
        raise InputError(f"none of these experiments has {methods}; see `harness list`, or leave --methods out")
    _run_and_show(cells, Store(results_dir), fresh, as_json, planned=True)


@app.command()
def tables(
    asv_dir: Annotated[Path, typer.Option(help="Results of `asv run`, shown too where there are any.")] = _RESULTS
    / "asv",
    across: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare timings that differ in this setting too: commit, cpu, gpu, threads, device, dtype or B. "
            "May be given more than once."
        ),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    results_dir: ResultsDir = _RESULTS,
    as_json: Json = False,
) -> None:
    """Write and show every table and figure of the results that are there."""
    from harness import publish
    from harness.environment import prepare
    from harness.results import Store

    prepare(device, threads)
    _existing(data_dir)
    store = Store(results_dir)
    rows, damaged = store.frame()
    rows, notes = publish.with_asv(rows, asv_dir)
    for line in (*damaged, *notes):
        _say(printable(line))
    if rows.is_empty():
        raise InputError(f"no results in {results_dir} or {asv_dir} yet: run `harness reproduce` or `asv run` first")
    if as_json:
        for row in rows.iter_rows(named=True):
            print(json.dumps(row))
        return
    _show(rows, rows, results_dir, across or ())


def main() -> None:
    """Run the program; a mistake of the user's is one line and exit status 2, Ctrl-C is 130."""
    try:
        app(standalone_mode=True)
    except InputError as error:
        print(f"harness: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        # A place that the system has something against: a name that is too long, a folder that may not be read.
        print(f"harness: {printable(f'{error.filename}: {error.strerror}')}; choose another place", file=sys.stderr)
        sys.exit(2)


def _run_and_show(
    cells: Sequence[Cell],
    store: Store,
    fresh: bool,
    as_json: bool,
    planned: bool = False,
    crew: Crew | None = None,
    limits: Limits | None = None,
) -> None:
    """Tell the plan if asked, run cells under a progress bar, print their tables and write those of the whole store."""
    from harness.estimate import plan
    from harness.execution import run_cells
    from harness.progress import Bars
    from harness.results import to_frame

    for cell in cells:
        cell.check()
    store.prepare()
    if planned and not as_json:
        _print_plan(plan(cells, store, fresh))
    on_rows = partial(_print_json, file=sys.stdout) if as_json else lambda rows: None
    try:
        # What a competitor prints must not lie among the rows.
        with Bars(len(cells)) as bars, redirect_stdout(sys.stderr):
            rows = run_cells(cells, store, bars.start, on_rows, fresh, on_end=bars.end, crew=crew, limits=limits)
    except KeyboardInterrupt as stop:
        running = f"{stop}; " if str(stop) else ""
        _say(f"stopped; {running}finished cells are in {store.folder}, and the same command goes on from there")
        sys.exit(getattr(stop, "status", 130))
    if not as_json:
        everything, _ = store.frame()
        _show(to_frame(rows), everything, store.folder)
    for line in store.notes:
        _say(printable(line))
    if all(row.status != "ok" for row in rows):
        sys.exit(1)


def _show(shown: pl.DataFrame, written: pl.DataFrame, folder: Path, across: Collection[str] = ()) -> None:
    from harness import publish

    for page in publish.pages(shown, across):
        print(f"\n{page.text()}", end="")
    files = publish.write(written, folder, across)
    _say(f"written: {len(files)} files in {folder / 'tables'} and {folder / 'figures'}")


def _print_json(rows: Iterable[Row], file: TextIO | None = None) -> None:
    for row in rows:
        print(json.dumps(dataclasses.asdict(row)), file=file, flush=True)


def _print_table(title: str, frame: Any) -> None:
    from harness.tables import render

    print(f"\n{title}\n\n{render(frame, 'github')}")


def _print_plan(frame: pl.DataFrame) -> None:
    from harness.tables import render

    _say(f"\nPlan, with the time of training on this machine\n\n{render(frame, 'github')}\n")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _existing(folder: Path | None) -> Path | None:
    if folder is not None and not folder.is_dir():
        raise InputError(f"the data folder {folder} does not exist; make it, or leave --data-dir out")
    return folder


def _make_folder_of(path: Path) -> None:
    """Make the folder of a file that is written much later, and hear now what is against it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
    except OSError as error:
        raise InputError(f"the checkpoint {path} cannot be written ({error.strerror}); choose another file") from error


def _integers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--{option} takes whole numbers separated by commas, not '{text}'") from None


def _shape(architecture: str, dimension: int) -> tuple[int, ...]:
    """Return the event shape of a timing: a vector, or for cnn and glow a square image of one channel."""
    if architecture not in ("cnn", "glow"):
        return (dimension,)
    side = round(max(dimension, 0) ** 0.5)
    if side * side != dimension or side % 4:
        raise InputError(
            f"{architecture} is timed on n x n images with n a multiple of 4, and {dimension} is no such D; "
            "use --dims 256,784"
        )
    return (1, side, side)


def _given(**options: object) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
