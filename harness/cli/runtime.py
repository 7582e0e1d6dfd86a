"""`harness runtime`: seconds an iteration."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated

from harness.cli import options
from harness.cli.options import MODEL, OUTPUT, RESULTS, option
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.methods import Method, Problem


def runtime(
    architecture: options.Architecture = "fc",
    dims: Annotated[
        str, option(MODEL, "D,...", "Dimensions, separated by commas; for cnn and glow, squares of multiples of 4.")
    ] = "64,256,784",
    layers: Annotated[
        str | None,
        option(MODEL, "L,...", "Numbers of linear layers, separated by commas; the paper's number if not given."),
    ] = None,
    batch: Annotated[int, option(MODEL, "B", "Batch size.")] = 100,
    methods: options.Methods = None,
    dtype: options.Dtype = "float32",
    repeats: Annotated[int, option(OUTPUT, "N", "Number of interleaved repetitions of every method.", min=1)] = 15,
    refresh: options.Refresh = None,
    compile_: options.Compile = False,
    cuda_graphs: options.CudaGraphs = False,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    timeout: options.Timeout = None,
    memory: options.Memory = None,
    seed: options.Seed = 0,
    results_dir: options.ResultsDir = RESULTS,
    fresh: options.Fresh = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Time an iteration of every method as D and L grow.

    Examples:
      harness runtime --dims 256,784 --methods ebflow-dsm,ebflow-ml
      harness runtime --architecture cnn --dims 256,784 --layers 3,6
      harness runtime --dims 784 --layers 1,2,4 --repeats 25 --json
    """
    from harness.cells import Origin, RuntimeCell
    from harness.cli.running import run_and_show
    from harness.methods import Problem
    from harness.methods.process_settings import prepare
    from harness.methods.registry import registry
    from harness.paper.recipes import PUBLISHED_LAYERS
    from harness.results import Store
    from harness.training.configuration import TrainingConfig

    limits = options.limits(timeout, memory)
    prepare(device, threads)
    depths = [PUBLISHED_LAYERS[architecture]] if layers is None else _integers(layers, "layers")
    chosen = registry().available(architecture) if methods is None else registry().select(methods)
    for method in chosen:
        if not method.iterative:
            raise InputError(f"{method.name} is fitted in closed form and has no iteration to time; leave it out")
        if architecture not in method.architectures:
            offered = ", ".join(method.architectures)
            raise InputError(f"{method.name} has no {architecture} architecture, only {offered}; drop it")
    config = TrainingConfig(compile=compile_, cuda_graphs=options.replayed(cuda_graphs, device))
    cells = []
    for dimension, depth in itertools.product(_integers(dims, "dims"), depths):
        problem = Problem(
            architecture=architecture,
            shape=_shape(architecture, dimension),
            layers=depth,
            batch=batch,
            dtype=dtype,
            device=device,
            seed=seed,
            residual=architecture == "cnn",
            refresh=refresh,
        )
        names = tuple(method.name for method in (_able(chosen, problem) if methods is None else chosen))
        argv = options.words(
            "runtime",
            architecture=architecture,
            dims=dimension,
            layers=depth,
            batch=batch,
            methods=",".join(names),
            dtype=dtype,
            repeats=repeats,
            refresh=refresh,
            compile=compile_ or None,
            cuda_graphs=cuda_graphs or None,
            seed=seed,
            device=device,
        )
        cell = RuntimeCell(
            experiment="runtime",
            profile="custom",
            methods=names,
            problem=problem,
            repeats=repeats,
            config=config,
            origin=Origin(argv),
        )
        cells.append(cell)
    run_and_show(cells, Store(results_dir), fresh=fresh, as_json=as_json, quiet=quiet, limits=limits)


def _able(methods: list[Method], problem: Problem) -> list[Method]:
    """Return the methods that take a problem, and say why others do not; if none does, the cell's check says so."""
    from harness.cli import screen
    from harness.methods.density import refusal

    reasons = {method.name: refusal(method, problem.replace(seed=0)) for method in methods}
    able = [method for method in methods if reasons[method.name] is None]
    screen.say(*(f"left out: {reason}" for reason in reasons.values() if able and reason))
    return able or methods


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
