"""The plugin beside a stand-in for asv, which the tests lack: a machine file that cannot be written stops nothing."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The plugin, where asv asks its questions on standard output and then writes its file into a folder."""
    place = tmp_path / "home" / ".asv-machine.json"

    class Machine:
        @staticmethod
        def load(interactive: bool, use_defaults: bool) -> None:
            print("1. machine: a unique name")
            place.write_text("{}")

    class MachineCollection:
        @staticmethod
        def get_machine_file_path() -> str:
            return str(place)

    stand_in = ModuleType("asv.machine")
    stand_in.Machine, stand_in.MachineCollection = Machine, MachineCollection
    monkeypatch.setitem(sys.modules, "asv", ModuleType("asv"))
    monkeypatch.setitem(sys.modules, "asv.machine", stand_in)
    monkeypatch.delitem(sys.modules, "harness.timing.asv_plugin", raising=False)
    return importlib.import_module("harness.timing.asv_plugin")


def test_the_machine_is_noted_once(plugin: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home").mkdir()
    plugin.setup()
    place = tmp_path / "home" / ".asv-machine.json"
    assert place.read_text() == "{}"
    place.write_text("of the user")
    plugin.setup()
    assert place.read_text() == "of the user"
    assert capsys.readouterr() == ("", "")


def test_a_home_that_cannot_be_written(plugin: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin.setup()
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"{tmp_path}/home/.asv-machine.json cannot be written (No such file or directory); "
        "asv run needs it: set HOME to a folder that can be written\n"
    )
