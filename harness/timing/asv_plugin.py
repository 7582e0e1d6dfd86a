"""An asv plugin that lets a plain ``asv run`` start without a terminal: it notes the machine's defaults first."""

import io
import sys
from contextlib import redirect_stdout
from pathlib import Path

from asv.machine import Machine, MachineCollection


def setup() -> None:
    """Write asv's machine file if there is none; where it cannot be written, say so, for only ``asv run`` needs it."""
    place = Path(MachineCollection.get_machine_file_path())
    try:
        if not place.is_file():
            with redirect_stdout(io.StringIO()):  # the questions, to which the defaults are the answers
                Machine.load(interactive=True, use_defaults=True)
    except OSError as error:
        hint = "asv run needs it: set HOME to a folder that can be written"
        print(f"{place} cannot be written ({error.strerror}); {hint}", file=sys.stderr)
