"""`harness runtime`: seconds an iteration."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import (
    MODEL,
    OUTPUT,
    RESULTS,
    Architecture,
    AsJson,
    Compile,
    DataDir,
    Device,
    Dtype,
    Fresh,
    Memory,
    Methods,
    Quiet,
    ResultsDir,
    Seed,
    Threads,
    Timeout,
    existing,
    limits,
    words,
)
from harness.errors import InputError, unknown


def runtime(
    architecture: Architecture = "fc",
    dims: Annotated[
        str,
        typer.Option(
            metavar="D,...",
            help="Dimensions; for cnn and glow, D = n * n with n a multiple of 4.",
            rich_help_panel=MODEL,
        ),
    ] = "64,256,784",
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="L,...", help="Numbers of linear layers; the paper's if not given.", rich_help_panel=MODEL
        ),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="B", help="Batch size.", rich_help_panel=MODEL)] = 100,
    methods: Methods = None,
    dtype: Dtype = "float32",
    repeats: Annotated[
        int, typer.Option(metavar="N", help="Interleaved repetitions of every method.", rich_help_panel=OUTPUT)
    ] = 15,
    compile_: Compile = False,
    device: Device = "cpu",
    threads: Threads = None,
    timeout: Timeout = None,
    memory: Memory = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    results_dir: ResultsDir = RESULTS,
    fresh: Fresh = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Time an iteration of every method as D and L grow.

    Examples:
      harness runtime --dims 256,784 --methods ebflow-dsm,ebflow-ml
      harness runtime --architecture cnn --dims 256,784 --layers 3,6
      harness runtime --dims 784 --layers 1,2,4 --repeats 25 --json
    """
    from harness.cells import Origin, RuntimeCell
    from harness.cli.running import run_and_show
    from harness.methods import ARCHITECTURES, Problem
    from harness.methods.process_settings import prepare
    from harness.methods.registry import registry
    from harness.paper.recipes import PUBLISHED_LAYERS
    from harness.results import Store
    from harness.training.configuration import TrainingConfig

    limited = limits(timeout, memory)
    prepare(device, threads)
    existing(data_dir)
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
    cells = [
        RuntimeCell(
            experiment="runtime",
            profile="custom",
            methods=names,
            problem=problem,
            repeats=repeats,
            config=config,
            origin=Origin(
                words(
                    "runtime",
                    architecture=architecture,
                    dims=problem.dimension,
                    layers=problem.layers,
                    batch=batch,
                    methods=",".join(names),
                    dtype=dtype,
                    repeats=repeats,
                    compile=compile_ or None,
                    seed=seed,
                    device=device,
                )
            ),
        )
        for problem in problems
    ]
    run_and_show(cells, Store(results_dir), fresh=fresh, as_json=as_json, quiet=quiet, limits=limited)


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
