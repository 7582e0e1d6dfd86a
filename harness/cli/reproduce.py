"""`harness reproduce`: the published tables and figures."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import completion
from harness.cli.options import (
    MODEL,
    OUTPUT,
    RESULTS,
    AsJson,
    DataDir,
    Device,
    Executor,
    Fresh,
    Memory,
    Methods,
    Quiet,
    ResultsDir,
    Scheduler,
    Seed,
    Threads,
    Timeout,
    Workers,
    existing,
    limits,
)
from harness.errors import InputError


def reproduce(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[EXPERIMENT]...",
            help="Names (harness list); all if none is given.",
            autocompletion=completion.experiments,
        ),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="quick: minutes, shortened; paper: the published protocol, days.",
            autocompletion=completion.profiles,
            rich_help_panel=MODEL,
        ),
    ] = "quick",
    methods: Methods = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="How many seeds; 1 in the quick profile, 3 in the paper's.", rich_help_panel=MODEL
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Budget of every training in the paper profile; the rows say so.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    only_plan: Annotated[
        bool,
        typer.Option("--plan", help="Print what there is to do, and for how long, and stop.", rich_help_panel=OUTPUT),
    ] = False,
    device: Device = "cpu",
    threads: Threads = None,
    executor: Executor = "serial",
    workers: Workers = None,
    scheduler: Scheduler = None,
    timeout: Timeout = None,
    memory: Memory = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    results_dir: ResultsDir = RESULTS,
    fresh: Fresh = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Answer the paper's tables and figures, published numbers beside measured ones.

    Examples:
      harness reproduce
      harness reproduce table2-mnist-fc --data-dir data
      harness reproduce table2-mnist-fc --profile paper --epochs 60
      harness reproduce --profile paper --plan
      harness reproduce --executor processes --timeout 3600
    """
    from harness.cells.plan import costs, plan
    from harness.cells.workers import hire
    from harness.cli import screen
    from harness.cli.running import run_and_show
    from harness.methods.process_settings import prepare
    from harness.methods.registry import registry
    from harness.paper.experiments import Context, select
    from harness.results import Store

    chosen = select(experiments or [], profile)
    limited = limits(timeout, memory)
    with hire(executor, workers, threads, scheduler) as crew:
        prepare(device, crew.threads)
        names = tuple(method.name for method in registry().select(methods)) if methods else ()
        context = Context(profile, device, seed, seeds, names, epochs, existing(data_dir))
        cells = [cell for experiment in chosen for cell in experiment.cells(context)]
        if not cells:
            raise InputError(f"none of these experiments has {methods}; see `harness list`, or leave --methods out")
        store = Store(results_dir)
        if only_plan:
            screen.show_table(screen.PLAN, plan(cells, costs(cells, store, fresh)))
            return
        run_and_show(cells, store, fresh=fresh, as_json=as_json, quiet=quiet, planned=True, crew=crew, limits=limited)
