"""Command lines: whatever is asked for ends with a status, never with a traceback or a hang. Nothing is measured."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from harness import cells, checking, cli, datasets, estimate
from harness.estimate import plan
from harness.paper.configurations import RECIPES
from harness.paper.experiments import EXPERIMENTS
from harness.registry import registry

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


_METHODS = st.lists(_one_of(*registry().methods), min_size=1, max_size=3).map(",".join)
_COMMON = {
    "--device": _one_of("cpu", "cuda", "cuda:7", "cpu:1", "meta", "cuda:99999999999999999999", "cpu:-1"),
    "--threads": _NUMBERS,
    "--seed": _NUMBERS,
    "--data-dir": _PATHS,
    "--json": None,
}
_KEPT = _COMMON | {"--results-dir": _PATHS, "--fresh": None, "--no-fresh": None}
_DTYPES = _one_of("float32", "float64", "tf32", "bf16")
_ARCHITECTURES = _one_of("fc", "cnn", "glow", "toy", "multimodal")
OPTIONS: dict[str, dict[str, st.SearchStrategy[str] | None]] = {
    "list": _COMMON,
    "runtime": _KEPT
    | {
        "--architecture": _ARCHITECTURES,
        "--dims": _LISTS,
        "--layers": _LISTS,
        "--batch": _NUMBERS,
        "--methods": _METHODS,
        "--dtype": _DTYPES,
        "--compile": None,
        "--repeats": _NUMBERS,
    },
    "train": _KEPT
    | {
        "--method": _one_of(*registry().methods),
        "--architecture": _ARCHITECTURES,
        "--dataset": _one_of(*datasets.names(), "data.npy", "occupied", "folder/data.npy"),
        "--recipe": _one_of(*RECIPES),
        "--epochs": _NUMBERS,
        "--layers": _NUMBERS,
        "--learning-rate": _NUMBERS,
        "--optimizer": _one_of("adam", "rmsprop"),
        "--noise": _NUMBERS,
        "--batch": _NUMBERS,
        "--dtype": _DTYPES,
        "--compile": None,
        "--patience": _NUMBERS,
        "--max-seconds": _NUMBERS,
        "--draws": _NUMBERS,
        "--no-ema": None,
        "--without-map": None,
        "--checkpoint": _PATHS,
    },
    "reproduce": _KEPT
    | {
        "": _one_of(*(experiment.name for experiment in EXPERIMENTS)),
        "--profile": _one_of("quick", "paper"),
        "--methods": _METHODS,
        "--seeds": _NUMBERS,
        "--epochs": _NUMBERS,
    },
    "tables": _COMMON | {"--results-dir": _PATHS, "--asv-dir": _PATHS},
    "check": {"": _one_of(*registry().methods, "data.npy", "folder", "occupied.py"), "--json": None},
    "new-adapter": {"": _WORDS | _one_of("my_flow", "class", "__init__"), "--folder": _PATHS},
}


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with some of its options, now and then one that it does not have."""
    command = draw(st.sampled_from(sorted(OPTIONS)))
    words = [command]
    if "--methods" in OPTIONS[command]:  # all of them take a second each
        words += ["--methods", draw(_METHODS)]
    for option in draw(st.lists(st.sampled_from(sorted(OPTIONS[command])), max_size=4)):
        values = OPTIONS[command][option]
        words += [option] if option else []
        words += [draw(values)] if values is not None else []
    return words + (draw(st.lists(_WORDS, max_size=2)) if draw(st.integers(0, 9)) == 0 else [])


_refusal = cache(cells.refusal)


@pytest.fixture
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the work away, and build no model twice."""
    monkeypatch.setattr(cells, "refusal", _refusal)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cells, "run_cells", lambda cells, *_: [])
    monkeypatch.setattr(estimate, "plan", lambda cells, store, fresh: plan(cells[:0], store, fresh))
    monkeypatch.setattr(checking, "findings", lambda *_: iter([]))


@given(words=command_lines())
@example(words=["runtime", "--threads", str(2**70)])
@example(words=["runtime", "--layers", str(10**9)])
@example(words=["runtime", "--dims", str(10**30)])
@example(words=["train", "--checkpoint", "\udcff"])
@example(words=["train", "--dataset", "\udcff"])
def test_every_command_line_ends_with_a_status(
    words: list[str],
    nothing_is_measured: None,
    within_time: Callable[..., Any],
    empty_folder: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if words[0].startswith(("--install", "--show")):
        return  # they write the user's shell's settings
    with empty_folder() as folder:
        (folder / "occupied").write_text("a file")
        (folder / "occupied.py").write_text("METHODS = []")
        (folder / "folder").mkdir()
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
