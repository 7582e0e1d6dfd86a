"""`harness check` and `harness new-adapter`: for authors of methods."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import completion
from harness.errors import InputError


def check(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE.py",
            help="Name of a method, or a file that declares methods.",
            autocompletion=completion.methods,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print findings alone, one JSON object a line.")] = False,
) -> None:
    """Check that a method keeps the contract; for each broken promise, show by how much and the usual cause.

    Examples:
      harness check nflows-lu-ml
      harness check my_flow.py --json
    """
    from harness.conformance.runner import findings
    from harness.methods.registry import load_file, registry

    if Path(what).is_dir():
        raise InputError(f"{what or 'an empty name'} is a folder; give a method, or a .py file that declares some")
    file = Path(what) if what.endswith(".py") else None
    methods = [registry().find(what)] if file is None else list(load_file(file).methods.values())
    if not methods:
        raise InputError(f"{what} declares no method; fill its list METHODS")
    broken = 0
    for method in methods:
        statuses: Counter[str] = Counter()
        for finding in findings(method.name, file):
            statuses[finding.status] += 1
            if as_json:
                print(json.dumps(dataclasses.asdict(finding)), flush=True)
            elif finding.status != "passed":
                print(f"{finding.status:>12}  {finding.check}: {finding.text}", flush=True)
        broken += statuses["broken"]
        if not as_json:
            verdict = "does not keep the contract" if statuses["broken"] else "keeps the contract"
            print(
                f"{method.name} {verdict}: {statuses['passed']} checks passed, "
                f"{statuses['inapplicable']} not applicable, {statuses['broken']} broken"
            )
    if broken:
        sys.exit(1)


def new_adapter(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new module: letters, digits and _.")],
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the new module; in baselines/ it is found at once.")
    ] = Path(),
) -> None:
    """Write a commented method that works as it is, for you to change.

    Examples:
      harness new-adapter my_flow --folder baselines
    """
    from harness.conformance.template import method_name, write_adapter

    path, method = write_adapter(name, folder), method_name(name)
    print(
        f"written: {path}\n"
        f"harness check {shlex.quote(str(path))}\n"
        "and once it lies in baselines/, or your package names it under an entry point:\n"
        "harness list\n"
        f"harness runtime --dims 16,64 --methods {method},ebflow-dsm\n"
        f"harness train --method {method} --dataset digits --epochs 5"
    )
