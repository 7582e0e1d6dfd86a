"""Without nflows, normflows and zuko everything else works, and says what is missing and how to get it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from harness.methods.registry import registry

PEERS = ("nflows", "normflows", "zuko")

# One process for all commands: torch takes seconds to import.
SCRIPT = """
import json, sys
from contextlib import redirect_stdout
from io import StringIO

class Uninstalled:
    names = json.loads(sys.argv[1])

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


sys.meta_path.insert(0, Uninstalled())
from harness.cli.program import main

ended = []
for arguments in json.loads(sys.argv[2]):
    sys.argv = ["harness", *arguments]
    status = 0
    with redirect_stdout(StringIO()) as out:
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    ended.append([status, out.getvalue()])
print(json.dumps(ended))
"""


def needs(name: str) -> str | None:
    return next(
        (peer for peer in PEERS for library in registry().find(name).requires if library.startswith(peer)), None
    )


@pytest.fixture(scope="module")
def steppable() -> list[str]:
    return [method.name for method in registry().methods.values() if method.iterative and "fc" in method.architectures]


@pytest.fixture(scope="module")
def ended(steppable: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """Status and standard output of a list, a timing of all methods, and a training."""
    commands = [
        ["list"],
        ["runtime", "--dims", "4", "--repeats", "1", "--methods", ",".join(steppable), "--json"],
        ["train", "--method", "ebflow-dsm", "--epochs", "1", "--draws", "1", "--json"],
    ]
    folder = tmp_path_factory.mktemp("here")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, json.dumps(PEERS), json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=True)
    return json.loads(done.stdout)


def test_the_list_says_how_to_get_them(ended: list[tuple[int, str]]) -> None:
    status, out = ended[0]
    assert status == 0
    lines = (line.strip("| ").split("|") for line in out.splitlines() if line.startswith("|"))
    listed = {cells[0].strip(): cells[4].strip() for cells in lines if len(cells) > 4}
    for name in registry().methods:
        peer = needs(name)
        expected = "available" if peer is None else f"{peer} is not installed: pip install {peer}"
        assert listed[name] == expected
    assert {needs(name) for name in registry().methods} >= {"nflows", "normflows", None}


def test_a_timing_has_a_row_for_each(ended: list[tuple[int, str]], steppable: list[str]) -> None:
    status, out = ended[1]
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    found = {row["method"]: row["status"] for row in rows if row["metric"] == "seconds_per_iteration"}
    assert found == {name: "ok" if needs(name) is None else "unavailable" for name in steppable}


def test_a_training_runs(ended: list[tuple[int, str]]) -> None:
    status, out = ended[2]
    assert status == 0
    row, gaussian = (row for row in map(json.loads, out.splitlines()) if row["metric"] == "nll")
    assert gaussian["method"] == "gaussian"
    assert (row["method"], row["status"]) == ("ebflow-dsm", "ok")
