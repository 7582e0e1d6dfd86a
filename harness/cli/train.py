"""`harness train`: one method on one dataset."""

from __future__ import annotations

import csv
import dataclasses
import io
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from harness.cli import completion, options
from harness.cli.options import MODEL, OUTPUT, RESULTS, TRAINING, option
from harness.errors import InputError, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.cells import LikelihoodCell
    from harness.datasets.dataset import Dataset
    from harness.methods import Method
    from harness.paper.plans import Context
    from harness.results import Row, Store


_FEW_COLUMNS = 3  # are named in the label of a recipe
_LARGEST_COVARIANCE = 1e11  # samples times D^2 of a Gaussian that is fitted unasked; CIFAR-10 has more


def train(
    method: Annotated[
        str, option(MODEL, "NAME", "Name of a method (harness list).", autocompletion=completion.methods)
    ] = "ebflow-dsm",
    architecture: options.Architecture = "fc",
    dataset: Annotated[
        str,
        option(
            MODEL,
            "NAME|FILE",
            "Name of a dataset (harness list), or a .csv, .parquet, .feather or .npy file, one row a sample.",
            autocompletion=completion.datasets,
        ),
    ] = "digits",
    columns: Annotated[
        str | None,
        option(
            MODEL,
            "NAME,...",
            "Columns of a file, by name, or by number from 0 where it has no names; all of numbers if not given.",
        ),
    ] = None,
    standardize: Annotated[
        bool,
        option(
            MODEL,
            None,
            "Standardise the columns of a file, or take them as they are.",
            "--standardize/--no-standardize",
        ),
    ] = True,
    dequantize: Annotated[
        bool,
        option(
            MODEL,
            None,
            "Add uniform noise of one step to columns of a file that hold rounded values, or take them as they are.",
            "--dequantize/--no-dequantize",
        ),
    ] = True,
    layers: Annotated[int | None, option(MODEL, "L", "Number of linear layers; the recipe's if not given.")] = None,
    dtype: options.TrainingDtype = None,
    recipe: Annotated[
        str,
        option(
            TRAINING,
            "NAME",
            "Name of a training configuration (harness list), which the other options change.",
            autocompletion=completion.recipes,
        ),
    ] = "paper",
    epochs: Annotated[
        int | None, option(TRAINING, "N", "Number of passes over the training set; the recipe's if not given.")
    ] = None,
    batch: Annotated[int | None, option(TRAINING, "B", "Batch size; the recipe's if not given.")] = None,
    learning_rate: Annotated[
        float | None, option(TRAINING, "RATE", "Learning rate; the recipe's if not given.")
    ] = None,
    optimizer: options.Optimizer = None,
    noise: Annotated[
        float | None,
        option(TRAINING, "SCALE", "Noise scale, DSM's sigma or FDSSM's epsilon; the recipe's if not given."),
    ] = None,
    refresh: options.Refresh = None,
    patience: Annotated[
        int | None, option(TRAINING, "N", "Number of validations without improvement that ends the training.")
    ] = None,
    max_seconds: Annotated[float | None, option(TRAINING, "SECONDS", "Time after which the training ends.")] = None,
    ema: Annotated[
        bool, option(TRAINING, None, "Evaluate averaged weights, or the weights of the last step.", "--ema/--no-ema")
    ] = True,
    map_: Annotated[
        bool, option(TRAINING, None, "Preprocess the data before matching, or inside the model.", "--map/--without-map")
    ] = True,
    compile_: options.Compile = False,
    cuda_graphs: options.CudaGraphs = False,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    timeout: options.Timeout = None,
    memory: options.Memory = None,
    seed: options.Seed = 0,
    data_dir: options.DataDir = None,
    draws: Annotated[
        int, option(OUTPUT, "K", "Number of test passes, each with fresh noise; a file needs one.", min=1)
    ] = 10,
    save: Annotated[
        Path | None,
        option(OUTPUT, "FILE", "File to keep the trained model in (safetensors), for harness evaluate and sample."),
    ] = None,
    results_dir: options.ResultsDir = RESULTS,
    fresh: options.Fresh = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Train one method on one dataset and measure its test NLL, by the paper's recipe unless told otherwise.

    One Gaussian, fitted to the same data, stands beside it, but for images as large as CIFAR-10's. The columns of a
    file are standardised first; the NLL stays in the units of the data.

    Examples:
      harness train --method ebflow-dsm --dataset mnist --epochs 30
      harness train --dataset mnist --recipe tuned --save model.safetensors
      harness train --method ebflow-aml --dataset my.csv --recipe tuned --save model.safetensors
      harness train --architecture toy --dataset swirl --max-seconds 60
      torchrun --nproc-per-node 2 -m harness.cli train --threads 1   # two processes share every batch
    """
    from harness import datasets
    from harness.cells.likelihood import SAVED
    from harness.cells.sweep import follow
    from harness.cli.running import run_and_show
    from harness.cli.screen import say
    from harness.methods.process_settings import prepare
    from harness.paper.plans import Context, configured_cell, overridden
    from harness.results import Store
    from harness.training.processes import process_group, processes

    limits = options.limits(timeout, memory)
    prepare(device, threads)
    chosen = _available(method, architecture)
    if refresh is not None and not chosen.periods:
        raise InputError(f"{method} does the same work at every step; leave --refresh out")
    context = Context("custom", device, data_dir=data_dir)
    cell = configured_cell("train", context, chosen, dataset, architecture, recipe=recipe, seed=seed, draws=draws)
    table = _table(dataset, columns, standardize, dequantize, dtype or cell.problem.dtype)
    data = datasets.load(dataset, options.existing(data_dir), seed=seed, columns=table.get("columns", ()))
    if table and not (dequantize and datasets.dequantized(data) is not data):
        draws = 1  # its rows get no noise, so that all passes are the same
    changed_config = _given(epochs=epochs, learning_rate=learning_rate, optimizer=optimizer, patience=patience)
    changed_config |= _given(max_seconds=max_seconds, compile=compile_ or None)
    changed_config |= _given(cuda_graphs=options.replayed(cuda_graphs, device) or None)
    changed_problem = _given(dtype=dtype, layers=layers, batch=batch, noise=noise, refresh=refresh)
    argv = options.words(
        "train",
        method=method,
        architecture=architecture,
        dataset=dataset,
        **_table_words(table),
        recipe=recipe,
        **changed_config,
        **changed_problem,
        no_ema=None if ema else True,
        without_map=None if map_ else True,
        draws=draws,
        seed=seed,
        device=device,
    )
    changed_config |= {} if ema else {"ema_decay": None}
    cell = overridden(cell, changed_config, changed_problem)
    label = _label(recipe, changed_config | changed_problem | _changed_table(table))
    problem = cell.problem.replace(shape=datasets.shape(dataset, table.get("columns", ())))
    told: dict[str, Any] = {"origin": dataclasses.replace(cell.origin, argv=argv), "draws": draws, "preprocess": map_}
    cell = dataclasses.replace(cell, problem=problem, recipe=label, download=True, save=save, **told, **table)
    _check(cell, data)
    store = Store(results_dir)
    with process_group(device) as rank:
        if limits is not None and processes() > 1:
            raise InputError("a training in several processes has no limits; leave --timeout and --memory out")
        if rank == 0:
            _introduce(cell, data, store, quiet)
            beside = _gaussian_beside(cell, context)
            rows = run_and_show([cell], store, fresh=fresh, as_json=as_json, quiet=quiet, limits=limits, beside=beside)
            say(*_worse_than_gaussian(cell, rows))
            if any(row.metric == SAVED for row in rows):  # which says why there is no file
                sys.exit(1)
        else:
            follow(cell, store, fresh)


def _gaussian_beside(cell: LikelihoodCell, context: Context) -> list[LikelihoodCell]:
    """Return the cell of one Gaussian on the data of a cell; none beside the Gaussian itself, or where it has none."""
    from harness import datasets
    from harness.methods.registry import registry
    from harness.paper.plans import configured_cell, overridden

    gaussian, problem = registry().methods.get("gaussian"), cell.problem
    if gaussian is None or cell.method == gaussian.name or problem.architecture not in gaussian.architectures:
        return []
    if datasets.splits(cell.dataset, cell.data_dir)[0] * problem.dimension**2 > _LARGEST_COVARIANCE:
        return []
    same: dict[str, Any] = {"architecture": problem.architecture, "dataset": cell.dataset, "recipe": cell.origin.recipe}
    same |= {"seed": problem.seed, "draws": cell.draws}
    beside = overridden(configured_cell("train", context, gaussian, **same), {}, {"dtype": problem.dtype})
    beside = dataclasses.replace(beside, problem=beside.problem.replace(shape=problem.shape))
    fields = ("standardize", "columns", "dequantize") if datasets.is_file(cell.dataset) else ()
    table = {name: getattr(cell, name) for name in fields}
    same |= _table_words(table)
    argv = options.words("train", method=gaussian.name, dtype=problem.dtype, device=problem.device, **same)
    origin = dataclasses.replace(beside.origin, argv=argv)
    label = _label(cell.origin.recipe, _changed_table(table))
    return [dataclasses.replace(beside, recipe=label, download=True, origin=origin, **table)]


def _worse_than_gaussian(cell: LikelihoodCell, rows: Sequence[Row]) -> list[str]:
    """Return a warning if a cell's test NLL is above that of one Gaussian; nothing where one of them has none."""
    values = {row.method: row.value for row in rows if row.metric == "nll" and row.value is not None}
    own, gaussian = values.get(cell.method), values.get("gaussian")
    if own is None or gaussian is None or own <= gaussian:
        return []
    tuned = "" if cell.origin.recipe.startswith("tuned") else "--recipe tuned, or "
    return [
        f"warning: {cell.method} is worse than one Gaussian on {cell.dataset}: its test NLL is {own:,.4g} nats, the "
        f"Gaussian's {gaussian:,.4g}; try {tuned}more --epochs"
    ]


def _label(recipe: str, changed: Mapping[str, Any]) -> str:
    """Return what tables call a recipe of which some fields were changed; the number format has its own column."""
    words = {"ema_decay": "no EMA", "compile": "compiled", "cuda_graphs": "CUDA graphs"}
    words |= {"standardize": "not standardised", "dequantize": "not dequantised"}
    return ", ".join(
        [recipe, *(words.get(name, f"{name} {value}") for name, value in changed.items() if name != "dtype")]
    )


def _table_words(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that say how a user's own table is read, where they are not as usual."""
    words: dict[str, Any] = {f"no_{name}": True for name, value in table.items() if value is False}
    return words | _given(columns=_joined(table.get("columns", ())) or None)


def _joined(names: Sequence[str]) -> str:
    """Return names of columns as --columns takes them: separated by commas, and quoted where that is needed."""
    line = io.StringIO()
    spaced = any(name != name.strip() for name in names)
    csv.writer(line, lineterminator="", quoting=csv.QUOTE_ALL if spaced else csv.QUOTE_MINIMAL).writerow(names)
    return line.getvalue()


def _changed_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a label says of the fields that tell how a user's own table is read, where they are not as usual."""
    changed: dict[str, Any] = {name: value for name, value in table.items() if value is False}
    if chosen := table.get("columns"):
        changed["columns"] = "+".join(chosen) if len(chosen) <= _FEW_COLUMNS else f"{len(chosen)} chosen"
    return changed


def _available(name: str, architecture: str) -> Method:
    """Return the method of a name, which is available here and has the architecture."""
    from harness.methods.registry import registry, why_unavailable

    method = registry().find(name)
    if reason := why_unavailable(method):
        raise InputError(f"{name} is unavailable: {reason}")
    if architecture not in method.architectures:
        raise InputError(f"{name} has no {architecture} architecture, only {', '.join(method.architectures)}")
    return method


def _table(name: str, columns: str | None, standardize: bool, dequantize: bool, dtype: str) -> dict[str, Any]:
    """Return the fields of a cell that say how a user's own table is read, and print what its check says of it.

    The fields are none if the name is that of a dataset of the benchmark.

    Raises:
        InputError: if the table has no density that can be trained, or columns of another dataset are asked for.
    """
    from harness import datasets
    from harness.cli.screen import say
    from harness.datasets.array_file import declare
    from harness.datasets.table_checks import check_table

    if not datasets.is_file(name):
        if columns is not None:
            raise InputError(f"{name} has no columns to choose; --columns is for the path of a file")
        return {}
    chosen = tuple(next(csv.reader([columns], skipinitialspace=True))) if columns else ()
    if '"' not in (columns or ""):  # in quotes spaces belong to a name
        chosen = tuple(name.strip() for name in chosen)
    declared = declare(Path(name), chosen)
    array, names, left_out = datasets.read_rows(declared.path, chosen, finite=False)
    if left_out:
        say(f"{declared.name}: columns that hold no numbers are left out: {listed(left_out)}")
    problems, notes, sound = check_table(
        array, names, declared.splits[0], standardize=standardize, dequantize=dequantize, float32=dtype != "float64"
    )
    say(*(f"{declared.name}: {line}" for line in notes))
    if problems:
        *first, last = (f"{declared.name}: {line}" for line in problems)
        say(*first)
        if 0 < len(sound) < array.shape[1]:
            rest = _joined([names[number] if names else str(number) for number in sound])
            last = f"{last}; the columns without such a problem: --columns {shlex.quote(rest)}"
        raise InputError(last)
    return {"columns": chosen, "standardize": standardize, "dequantize": dequantize}


def _check(cell: LikelihoodCell, data: Dataset) -> None:
    """Find out before the training what would end it, and make the folder that its model is written to."""
    from harness import datasets
    from harness.cli.screen import say
    from harness.training.scoring import without_map

    if datasets.is_file(cell.dataset) and len(data.train) < (batch := cell.problem.batch):
        say(f"{data.name}: a step takes all {len(data.train)} training rows, fewer than the batch size {batch}")
    if cell.standardize:
        datasets.standardized(data)
    if not cell.preprocess:
        without_map(data, cell.problem)
    if cell.save is None:
        return
    try:
        cell.save.parent.mkdir(parents=True, exist_ok=True)
        if cell.save.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.TemporaryFile(dir=cell.save.parent):  # a training whose model could not be kept is not started
            pass
    except OSError as error:
        place, reason = cell.save, error.strerror
        raise InputError(f"the model file {place} cannot be written ({reason}); choose another file") from error


def _introduce(cell: LikelihoodCell, data: Dataset, store: Store, quiet: bool) -> None:
    """Say what was loaded, unless a cell or its results folder is refused first."""
    from harness.cli.screen import say
    from harness.datasets import describe

    cell.check()
    store.prepare()
    if not quiet:
        say(describe(data))


def _given(**options: object) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}
