"""`harness train`: one method on one dataset."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli import completion
from harness.cli.options import (
    MODEL,
    OUTPUT,
    RESULTS,
    TRAINING,
    Architecture,
    AsJson,
    Compile,
    DataDir,
    Device,
    Dtype,
    Fresh,
    Memory,
    Quiet,
    ResultsDir,
    Seed,
    Threads,
    Timeout,
    existing,
    limits,
    words,
)
from harness.errors import InputError


def train(
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="A method (harness list).", autocompletion=completion.methods, rich_help_panel=MODEL
        ),
    ] = "ebflow-dsm",
    architecture: Architecture = "fc",
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE.npy",
            help="A dataset (harness list), or an array of (N, D) floats.",
            autocompletion=completion.datasets,
            rich_help_panel=MODEL,
        ),
    ] = "digits",
    layers: Annotated[
        int | None, typer.Option(metavar="L", help="Linear layers; the recipe's if not given.", rich_help_panel=MODEL)
    ] = None,
    dtype: Dtype = "float32",
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Configuration that all other options change: paper, tuned, ... (harness list).",
            autocompletion=completion.recipes,
            rich_help_panel=TRAINING,
        ),
    ] = "paper",
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Passes over the training set; the recipe's.", rich_help_panel=TRAINING),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="B", help="Batch size; the recipe's.", rich_help_panel=TRAINING)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="RATE", help="The recipe's.", rich_help_panel=TRAINING)
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(metavar="NAME", help="rmsprop or adam; the recipe's.", rich_help_panel=TRAINING)
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(metavar="SCALE", help="DSM's sigma, FDSSM's epsilon; the recipe's.", rich_help_panel=TRAINING),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(metavar="N", help="Stop after so many validations without improvement.", rich_help_panel=TRAINING),
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Budget of training time.", rich_help_panel=TRAINING)
    ] = None,
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="Evaluate averaged weights.", rich_help_panel=TRAINING)
    ] = True,
    map_: Annotated[
        bool,
        typer.Option(
            "--map/--without-map", help="Preprocess before matching, or inside the model.", rich_help_panel=TRAINING
        ),
    ] = True,
    compile_: Compile = False,
    device: Device = "cpu",
    threads: Threads = None,
    timeout: Timeout = None,
    memory: Memory = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    draws: Annotated[
        int, typer.Option(metavar="K", help="Test passes with fresh dequantisation noise.", rich_help_panel=OUTPUT)
    ] = 10,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the best weights here (safetensors).", rich_help_panel=OUTPUT),
    ] = None,
    results_dir: ResultsDir = RESULTS,
    fresh: Fresh = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train one method on one dataset to a test NLL, by the paper's recipe unless told otherwise.

    Examples:
      harness train --method ebflow-dsm --dataset mnist --epochs 30
      harness train --dataset mnist --recipe tuned --checkpoint best.safetensors
      harness train --method gaussian --dataset my.npy
      harness train --architecture toy --dataset swirl --max-seconds 60
      torchrun --nproc-per-node 2 -m harness.cli train --threads 1   # two processes share every batch
    """
    from harness import datasets
    from harness.cells.sweep import follow
    from harness.cli.running import run_and_show
    from harness.methods.process_settings import prepare
    from harness.methods.registry import registry, why_unavailable
    from harness.paper.plans import Context, configured_cell, overridden
    from harness.results import Store
    from harness.training.processes import process_group, processes
    from harness.training.scoring import without_map

    limited = limits(timeout, memory)
    prepare(device, threads)
    found = registry().find(method)
    if reason := why_unavailable(found):
        raise InputError(f"{method} is unavailable: {reason}")
    if draws < 1:
        raise InputError(f"the number of test draws must be at least 1, not {draws}")
    if architecture not in found.architectures:
        raise InputError(f"{method} has no {architecture} architecture, only {', '.join(found.architectures)}")
    data = datasets.load(dataset, existing(data_dir))
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
    context = Context("custom", device, data_dir=data_dir)
    cell = configured_cell("train", context, found, dataset, architecture, recipe=recipe, seed=seed, draws=draws)
    cell = overridden(cell, changes, {"dtype": dtype, **changed_problem})
    argv = words(
        "train",
        method=method,
        architecture=architecture,
        dataset=dataset,
        recipe=recipe,
        layers=layers,
        dtype=dtype,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        optimizer=optimizer,
        noise=noise,
        patience=patience,
        max_seconds=max_seconds,
        no_ema=None if ema else True,
        without_map=None if map_ else True,
        compile=compile_ or None,
        draws=draws,
        seed=seed,
        device=device,
    )
    cell = dataclasses.replace(
        cell,
        recipe=", ".join([recipe, *told]),
        preprocess=map_,
        download=True,
        checkpoint=checkpoint,
        origin=dataclasses.replace(cell.origin, argv=argv),
    )
    if checkpoint is not None:
        _make_folder_of(checkpoint)
    if not map_:
        without_map(data, cell.problem)  # only to hear now what it has against these data
    store = Store(results_dir)
    with process_group(device) as rank:
        if limited is not None and processes() > 1:
            raise InputError("a training in several processes has no limits; leave --timeout and --memory out")
        if rank == 0:
            run_and_show([cell], store, fresh=fresh, as_json=as_json, quiet=quiet, limits=limited)
        else:
            follow(cell, store, fresh)


def _make_folder_of(path: Path) -> None:
    """Make the folder of a file that is written much later, and hear now what is against it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
    except OSError as error:
        raise InputError(f"the checkpoint {path} cannot be written ({error.strerror}); choose another file") from error


def _given(**options: object) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
