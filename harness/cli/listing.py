"""`harness list`: what there is to measure with."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import AsJson, DataDir, Device, Seed, Threads, existing


def list_names(
    imports: Annotated[
        bool,
        typer.Option(
            "--imports",
            help="Import the library of every method: tells too which one breaks, and what it does to the process.",
        ),
    ] = False,
    device: Device = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the methods, datasets, recipes and experiments, and why one is unavailable.

    Libraries are looked for, and not imported unless asked.

    Examples:
      harness list
      harness list --imports
      harness list --json | jq 'select(.status == "unavailable")'
    """
    from harness.cli import listed as listing
    from harness.cli import screen
    from harness.methods.process_settings import check

    check(device, threads)
    folder = existing(data_dir)
    if as_json:
        screen.print_json(listing.rows(device, threads, seed, folder, imports))
        return
    methods = listing.methods_table(imports)
    experiments = listing.experiments_table()
    if screen.in_terminal():
        methods, experiments = listing.shortened(methods), experiments.drop("quick profile")
    screen.show_table("Methods", methods)
    for note in listing.notes(imports):
        print(f"\n{note}", end="")
    print()
    screen.show_table("Datasets", listing.datasets_table(folder))
    screen.show_table("Recipes (harness train --recipe NAME)", listing.recipes_table())
    screen.show_table("Experiments (harness reproduce NAME)", experiments)
