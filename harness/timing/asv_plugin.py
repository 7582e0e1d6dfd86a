"""An asv plugin that lets a plain ``asv run`` start without a terminal: it notes the machine's defaults first."""

from pathlib import Path

from asv.machine import Machine, MachineCollection


def setup() -> None:
    """Write asv's machine file if there is none."""
    if not Path(MachineCollection.get_machine_file_path()).is_file():
        Machine.load(interactive=True, use_defaults=True)
