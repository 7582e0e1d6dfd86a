"""Drawing prints nothing of its own: of no cache that cannot be written, and of no letter without a glyph."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from harness.report.figures import drawings, sheet
from harness.results import Row, Store, to_frame
from harness.results.derived import derived


def test_matplotlib_s_chatter_does_not_pass_quiet(make_cell_row: Callable[..., Row], tmp_path: Path) -> None:
    store = Store(tmp_path / "a b" / "'q\"#%{x}é")
    for number, size in enumerate((16, 64)):
        store.write([make_cell_row(number, D=size, shape=str(size))])
    occupied = tmp_path / "occupied"
    occupied.write_text("")
    environment = {**os.environ, "MPLCONFIGDIR": str(occupied / "below"), "MPLBACKEND": "of-another-program"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(occupied)}
    command = ["figures", "--write", "--quiet", "--results-dir", str(store.folder)]
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *command], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.suffix for path in (store.folder / "figures").iterdir()] == [".svg"]


def test_letters_without_a_glyph_stay_text(make_row: Callable[..., Row], tmp_path: Path) -> None:
    rows = derived(to_frame([make_row(method="\U0002a7b0", cpu="😀", D=D, cell=f"{D:016x}") for D in (16, 64)]))
    (drawn,) = drawings(rows, Store(tmp_path))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        text = sheet.to_svg(drawn)
    assert [str(one.message) for one in caught] == []
    assert "\U0002a7b0, slope" in text
    assert "😀" in text
