"""Command lines: whatever is asked for ends with a status, never with a traceback or a hang. Nothing is measured."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import typer
from hypothesis import example, given
from hypothesis import strategies as st

from harness import datasets
from harness.cells import base, imputation, likelihood, normalizer
from harness.cells.estimate import Costs, Pace
from harness.cli import program as cli
from harness.cli import running
from harness.conformance import runner as checking
from harness.methods.registry import registry
from harness.paper.configurations import RECIPES
from harness.paper.experiments import EXPERIMENTS

# What no shell can pass on is left out, and so is what would lead out of the folder of the test.
_WORDS = st.text(st.characters(exclude_characters="\0/", codec=None), max_size=30)
_PATHS = _WORDS.filter(lambda word: word not in ("..",)) | st.sampled_from(
    ["", ".", "occupied", "occupied/below", "nowhere", "folder", "é/ü", "x" * 300, "\udcff", "[/b]", "data.npy"]
)
_NUMBERS = st.one_of(
    st.integers(-3, 12).map(str),
    st.integers(1000, 2**65).map(str),
    st.floats().map(str),
    st.sampled_from(["0", "1e400", "9" * 25, "-0", "1_0", "٣", "0x10", "", "2147483648", str(2**62), str(2**63)]),
    _WORDS,
)
_LISTS = st.lists(st.sampled_from(["2", "16", "64"]) | _NUMBERS, max_size=3).map(",".join)


def _one_of(*names: str) -> st.SearchStrategy[str]:
    return st.sampled_from(names) | _WORDS


_METHODS = st.lists(_one_of(*registry().methods), min_size=1, max_size=3).map(",".join).filter(bool)
_DATASETS = _one_of(*datasets.names(), "data.npy", "occupied", "folder/data.npy")
VALUES = {
    "--architecture": _one_of("fc", "cnn", "glow", "toy", "multimodal"),
    "--dataset": _DATASETS,
    "--device": _one_of("cpu", "cuda", "cuda:7", "cpu:1", "meta", "cuda:99999999999999999999", "cpu:-1"),
    "--dims": _LISTS,
    "--dtype": _one_of("float32", "float64", "tf32", "bf16"),
    "--layers": _LISTS,
    "--method": _one_of(*registry().methods),
    "--methods": _METHODS,
    "--optimizer": _one_of("adam", "rmsprop"),
    "--profile": _one_of("quick", "paper"),
    "--recipe": _one_of(*RECIPES),
    "experiments": _one_of(*(experiment.name for experiment in EXPERIMENTS)),
    "names": _DATASETS,
    "name": _one_of("my_flow", "class", "__init__"),
    "what": _one_of(*registry().methods, "data.npy", "folder", "occupied.py"),
}
"""What is sometimes right, by option or argument; all others take numbers, paths or words."""

_NOT_OURS = ("--help", "--install-completion", "--show-completion")


def _commands(group: Any, before: tuple[str, ...] = ()) -> dict[tuple[str, ...], list[Any]]:
    """Every command that the program has, and its parameters."""
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= _commands(command, (*before, name))
        else:
            found[*before, name] = [p for p in command.params if p.opts[0] not in _NOT_OURS]
    return found


COMMANDS = _commands(typer.main.get_command(cli.app))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with a few of its options, now and then with words that it has no place for."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    words = list(name)
    parameters = COMMANDS[name]
    if any("--methods" in parameter.opts for parameter in parameters):  # to try all of them takes seconds
        words += ["--methods", draw(_METHODS)]
    for parameter in draw(st.lists(st.sampled_from(parameters), max_size=4)):
        option = draw(st.sampled_from(parameter.opts + parameter.secondary_opts))
        words += [option] if option.startswith("-") else []
        if not getattr(parameter, "is_flag", False):
            words.append(draw(VALUES.get(option, _NUMBERS | _PATHS)))
    return words + (draw(st.lists(_WORDS, max_size=2)) if draw(st.integers(0, 9)) == 0 else [])


_refusal = cache(base.refusal)


@pytest.fixture
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the work away, and build no model twice."""
    monkeypatch.setattr(base, "refusal", _refusal)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(datasets, "fetch", lambda *_: None)
    monkeypatch.setattr(running, "run_cells", lambda *_, **options: [])
    for module in (imputation, normalizer):
        monkeypatch.setattr(module, "pace", lambda *_: Pace(1.0, 0.01))
    monkeypatch.setattr(likelihood, "training_costs", lambda *_: Costs(1.0, 0.1))
    monkeypatch.setattr(checking, "findings", lambda *_: iter([]))


@given(words=command_lines())
@example(words=["runtime", "--threads", str(2**70)])
@example(words=["runtime", "--layers", str(10**9)])
@example(words=["runtime", "--dims", str(10**30)])
@example(words=["train", "--save", "\udcff"])
@example(words=["train", "--dataset", "\udcff"])
@example(words=["fetch", "mnist", "--data-dir", "\udcff"])
@example(words=["demo", "--results-dir", "\udcff"])
@example(words=["reproduce", "log-z", "--results-dir", "\udcff"])
def test_every_command_line_ends_with_a_status(
    words: list[str],
    nothing_is_measured: None,
    within_time: Callable[..., Any],
    empty_folder: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with empty_folder() as folder:
        (folder / "occupied").write_text("a file")
        (folder / "occupied.py").write_text("METHODS = []")
        for name in ("folder", "\udcff"):
            (folder / name).mkdir()
        np.save(folder / "folder" / "data.npy", np.ones((20, 2)))
        monkeypatch.setattr(sys, "argv", ["harness", *words])
        # As Python opens them: what cannot be encoded is escaped on one, and an error on the other.
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with within_time():
            try:
                cli.main()
                status = 0
            except SystemExit as end:
                status = end.code
        for stream in (out, err):
            stream.seek(0)
        told = err.read()
        assert status in (0, 1, 2, None), words
        assert "Traceback" not in told
        if told.startswith("harness: "):
            assert status == 2
            assert told.count("\n") == 1
        assert not [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size == 0], "half-written"
        torch.set_num_threads(1)
