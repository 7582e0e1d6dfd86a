"""The program: its commands, and how errors become exit statuses."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from harness import __version__
from harness.cli.authors import check, new_adapter
from harness.cli.demo import demo
from harness.cli.fetch import fetch
from harness.cli.listing import list_names
from harness.cli.models import evaluate, sample
from harness.cli.reading import figures, leaderboard, report, tables
from harness.cli.reproduce import reproduce
from harness.cli.results import app as results
from harness.cli.runtime import runtime
from harness.cli.train import train
from harness.errors import InputError, printable
from harness.methods.process_settings import settle_waiting

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

app = typer.Typer(name="harness", no_args_is_help=True, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        print(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Compare how normalizing flows are trained: score matching beside maximum likelihood, under one protocol.

    Examples:
      harness demo
      harness list
      harness runtime --dims 256,784 --methods ebflow-dsm,ebflow-ml
      harness reproduce --profile quick
      harness train --help
    """


_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Measure": {"demo": demo, "runtime": runtime, "train": train, "reproduce": reproduce, "fetch": fetch},
    "Use a trained model": {"evaluate": evaluate, "sample": sample},
    "Look": {"list": list_names, "leaderboard": leaderboard, "tables": tables, "figures": figures, "report": report},
    "Add a competitor": {"new-adapter": new_adapter, "check": check},
}
for panel, commands in _COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)

app.add_typer(results, name="results", rich_help_panel="Look")


def main() -> None:
    """Run the program; the user's mistake is printed as one line with exit status 2, and Ctrl-C ends it with 130."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its profiler warns at every first timing
    os.environ["MPLBACKEND"] = "agg"  # no window is opened; a name that matplotlib does not know would end the program
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of its cache, which is no concern of the user's
    if sys.argv[1:2] and sys.argv[1] in _COMMANDS["Measure"]:  # no command has imported torch yet
        settle_waiting(os.environ)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before the program began
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - open to the end
    try:
        sys.exit(app(prog_name="harness", standalone_mode=False))
    except InputError as error:
        print(f"harness: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except typer.TyperException as error:
        if text := _one_line(error):  # none where help was printed for want of arguments
            print(f"harness: {printable(text)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(130)
    except BrokenPipeError:  # an OSError too
        # Nobody reads on; what is left in the buffer must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        # The system refuses a place: no room, no permission, a name that is too long.
        if error.filename is None and error.errno not in _NO_ROOM:
            raise
        place = "" if error.filename is None else f"{error.filename}: "
        print(f"harness: {printable(place)}{error.strerror}; make room or choose another place", file=sys.stderr)
        sys.exit(2)


def _one_line(error: typer.TyperException) -> str:
    """Return a mistake in the use of commands and options as one line with a hint."""
    text = " ".join(error.format_message().split()).replace("Value error, ", "")  # what pydantic puts before a message
    if near := getattr(error, "possibilities", None):
        text = f"{error.message}. Did you mean {' or '.join(near)}?"
    if not text:
        return text
    context = getattr(error, "ctx", None)
    return f"{text[0].lower()}{text[1:]} (try: {context.command_path if context else 'harness'} --help)"
