"""What the tests of stores share: eight processes that write one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.results import Row

_FILL = """
import json, random, sys
from pathlib import Path
import numpy as np
from harness.results import Row, Store

folder, seed, rows = Path(sys.argv[1]), int(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())
for row in random.Random(seed).sample(rows, len(rows)):
    Store(folder).write([Row(**row)], {"samples": np.full(1000, row["value"])})
"""


@pytest.fixture
def eight_writers(
    tmp_path_factory: pytest.TempPathFactory, make_cell_row: Callable[..., Row]
) -> Callable[[Path], list[subprocess.Popen[bytes]]]:
    """Start eight processes that each write the same 40 cells, of the values 1 to 40, into a folder."""

    def start(folder: Path) -> list[subprocess.Popen[bytes]]:
        rows = tmp_path_factory.mktemp("rows") / "rows.json"
        rows.write_text(json.dumps([dataclasses.asdict(make_cell_row(n, value=float(n))) for n in range(1, 41)]))
        commands = [[sys.executable, "-c", _FILL, str(folder), str(seed), str(rows)] for seed in range(8)]
        return [subprocess.Popen(command) for command in commands]

    return start
