"""`harness reproduce`: the published tables and figures, and what they say of the paper's claims."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import completion, options
from harness.cli.options import MACHINE, MODEL, OUTPUT, RESULTS, option
from harness.errors import InputError

if TYPE_CHECKING:
    import polars as pl

_FETCHED = "mnist"
"""The data set that the quick profile fetches."""
_LONGEST = 1e6  # minutes
_PATIENCE = 5.0  # seconds without an answer, after which it goes on without


def reproduce(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[EXPERIMENT]...",
            help="Names of experiments (harness list); all experiments if none is given.",
            autocompletion=completion.experiments,
        ),
    ] = None,
    profile: options.Profile = "quick",
    methods: options.Methods = None,
    seeds: Annotated[
        int | None,
        option(
            MODEL,
            "N",
            "Number of runs of every training; 1 in the quick profile, 3 in the paper's if not given.",
            min=1,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        option(MODEL, "N", "Most epochs of a training in the paper profile; rows say if it was cut short.", min=1),
    ] = None,
    minutes: Annotated[
        float | None,
        option(
            MACHINE,
            "N",
            "Minutes after which it stops, a running training saved. What tells most is measured first, and the same "
            "command goes on.",
        ),
    ] = None,
    cuda_graphs: options.CudaGraphs = False,
    only_plan: Annotated[
        bool, option(OUTPUT, None, "Print what there is to do and how long it will take, and stop.", "--plan")
    ] = False,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    executor: options.Executor = "serial",
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    timeout: options.Timeout = None,
    memory: options.Memory = None,
    seed: options.Seed = 0,
    data_dir: options.DataDir = None,
    offline: options.Offline = False,
    results_dir: options.ResultsDir = RESULTS,
    fresh: options.Fresh = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure what the paper's tables and figures show, and say on one screen which of its claims hold.

    The tables go to files, which `harness tables` shows; the figures and one page of everything lie beside them. The
    quick profile fetches MNIST if it is missing and a network answers.

    Examples:
      harness reproduce
      harness reproduce table2-mnist-fc --data-dir data
      harness reproduce table2-mnist-fc --profile paper --epochs 60
      harness reproduce --profile paper --plan
      harness reproduce --executor processes --timeout 3600
      harness reproduce figure2a-fc table2-mnist-fc --profile paper --device cuda --minutes 10
    """
    from harness.cells.plan import costs, plan, telling_first
    from harness.cells.workers import hire
    from harness.cli import running
    from harness.methods.process_settings import prepare
    from harness.methods.registry import registry
    from harness.paper.experiments import select
    from harness.paper.plans import Context
    from harness.results import Store

    if epochs is not None and profile == "quick":
        raise InputError("--epochs is for --profile paper; the quick profile has lengths of its own")
    if minutes is not None and not 0 < minutes < _LONGEST:
        raise InputError(f"--minutes must be a number above 0 and below {_LONGEST:g}, not {minutes:g}")
    if minutes is not None and executor != "serial":
        raise InputError("--minutes is for cells that run one by one; leave --executor out")
    chosen = select(experiments or [], profile)
    limits = options.limits(timeout, memory)
    with hire(executor, workers, threads, scheduler) as crew:
        prepare(device, crew.threads)
        options.replayed(cuda_graphs, device)
        names = tuple(method.name for method in registry().select(methods)) if methods is not None else ()
        folder = options.existing(data_dir)
        context = Context(profile, device, seed, seeds, names, epochs, folder, offline, cuda_graphs)
        cells = [cell for experiment in chosen for cell in experiment.cells(context)]
        if not cells:
            raise InputError(f"none of these experiments has {methods}; see `harness list`, or leave --methods out")
        if minutes is not None:
            cells = telling_first(cells)
        store = Store(results_dir)
        if only_plan:
            _show_plan(
                plan(cells, costs(cells, store, fresh)), {cell.data for cell in cells}, context.data_dir, as_json
            )
            return
        if context.quick and not offline and any(cell.data == _FETCHED for cell in cells):
            _fetch(context.data_dir, quiet)
        running.run_and_show(
            cells,
            store,
            fresh=fresh,
            as_json=as_json,
            quiet=quiet,
            crew=crew,
            limits=limits,
            end=running.show_summary,
            minutes=minutes,
        )


def _show_plan(frame: pl.DataFrame, data: set[str], data_dir: Path | None, as_json: bool) -> None:
    """Print a plan, as a table or as lines of JSON, and say which data are missing, so that their time is not in it."""
    from harness import datasets
    from harness.cli import screen

    known = [name for name in datasets.names() if name in data]
    if absent := [name for name in known if datasets.why_unavailable(name, data_dir) is not None]:
        screen.say(f"the plan has no time for what needs {' and '.join(absent)}: the data are not here (harness fetch)")
    if as_json:
        print(frame.write_ndjson(), end="")
    else:
        screen.show_table(screen.PLAN, frame)


def _fetch(data_dir: Path | None, quiet: bool) -> None:
    """Fetch the data that the quick profile needs most, where they are missing and a network answers; say so."""
    from harness import datasets
    from harness.cli import screen
    from harness.cli.fetch import size

    if datasets.why_unavailable(_FETCHED, data_dir) is None:
        return
    if not quiet:
        screen.say(f"fetching {_FETCHED} ({size(_FETCHED)}, checked by SHA-256); --offline does without")
    try:
        datasets.fetch(_FETCHED, data_dir, _PATIENCE)
    except InputError as error:
        screen.say(f"{error}; going on without {_FETCHED}")
