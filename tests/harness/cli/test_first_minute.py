"""The first minute: a demonstration on embedded data, and the data that a fresh machine lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness import datasets
from harness.cli import demo, reproduce
from harness.errors import InputError
from harness.methods.registry import registry
from harness.results import NOISY, Row, Store

Run = Callable[..., Any]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demonstration of a moment."""
    monkeypatch.setattr(demo, "_DIMENSIONS", (4, 6))
    monkeypatch.setattr(demo, "_REPEATS", 2)
    monkeypatch.setattr(demo, "_EPOCHS", 2)


def test_the_demo_shows_a_table_two_sentences_and_a_picture(run: Run, small: None) -> None:
    ended = run("demo")
    assert ended.status == 0
    assert all(f"| {method} " in ended.out for method in demo.METHODS)
    assert ended.out.count("| ebflow-") == 3
    assert len(ended.out.splitlines()) < 20
    step, score = [line for line in ended.out.splitlines() if re.match("At D|The test NLL", line)]
    assert re.fullmatch(
        r"At D = 6 a step takes .* ms by exact maximum likelihood(, by [a-z ]+ [\d.]+ times \w+( long)?){3}\.", step
    )
    assert re.fullmatch(
        r"The test NLL after 2 epochs on the digits, lowest first, is (\d+\.\d by [^;]+(; |\.)){5}", score
    )
    (picture,) = re.findall("^picture: (.*)$", ended.out, re.MULTILINE)
    assert Path(picture).read_text().startswith("<svg")
    assert "demo: ebflow-dsm on digits" in ended.err
    # Its cells are ordinary ones: a second demo measures nothing, and other commands show them.
    again = run("demo")
    assert again.out == ended.out
    assert again.err.count("already there") == 7
    assert "## demo (custom): test negative log-likelihood" in run("tables").out


def test_the_demo_as_rows(run: Run, small: None) -> None:
    rows = run("demo", "--json", "--seed", "3", "--results-dir", "kept").rows
    assert {row["threads"] for row in rows} == {1}
    assert {(row["experiment"], row["seed"], row["status"]) for row in rows} == {("demo", 3, "ok")}
    assert {path.name for path in Path("kept").iterdir()} == {"cells"}
    commands = Store(Path("kept")).frame()[0]["command"].unique()
    assert all(command.startswith("harness demo --seed 3") for command in commands)


def test_the_demo_is_of_embedded_data_and_of_methods_that_need_no_other_library() -> None:
    cells = demo.cells(0)
    assert {cell.data for cell in cells} == {"normal", "digits"}
    assert max(cell.problem.dimension for cell in cells) == 784
    assert {library for name in demo.METHODS for library in registry().find(name).requires} == set()


def test_the_sentences_say_what_the_table_says() -> None:
    steps, scores = [60.0, 20.0, 30.0, 75.0, None], [99.0, 98.0, None, 100.0, 104.0]
    compared = pl.DataFrame(
        {"method": list(demo.METHODS), "what it is": list(demo.METHODS.values()), demo._STEP: steps, demo._NLL: scores}
    )
    assert list(demo.sentences(compared)) == [
        "At D = 784 a step takes 60 ms by exact maximum likelihood, by amortised maximum likelihood 3.0 times less, by "
        "relative gradient 2.0 times less, by denoising score matching 1.2 times as long.",
        "The test NLL after 40 epochs on the digits, lowest first, is 98.0 by amortised maximum likelihood; 99.0 by "
        "exact maximum likelihood; 100.0 by denoising score matching; 104.0 by one Gaussian in closed form.",
    ]


def test_the_demo_says_what_went_wrong(
    make_row: Callable[..., Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        make_row(D=784, value=0.06, reason=NOISY),
        make_row(D=784, method="ebflow-dsm", value=None, status="failed", reason="no room"),
    ]
    demo.show(rows, Store(tmp_path), quiet=True)
    out = capsys.readouterr().out
    assert "| no room " in out
    assert "The machine was busy: " in out
    assert "The test NLL" not in out
    assert "picture" not in out  # of one point


def test_fetch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Any] = []
    monkeypatch.setattr(datasets, "fetch", lambda name, folder: fetched.append((name, folder)))
    Path("data").mkdir()
    ended = run("fetch", "digits", "mnist", "cifar10", "--data-dir", "data")
    assert ended.status == 0
    assert ended.out == "digits: nothing to fetch\nmnist: in data\ncifar10: in data\n"
    assert ended.err == "fetching mnist (12 MB)\nfetching cifar10 (170 MB)\n"
    assert fetched == [("mnist", Path("data")), ("cifar10", Path("data"))]
    monkeypatch.setattr(datasets, "why_unavailable", lambda *_: None)
    assert run("fetch", "mnist", "--data-dir", "data") == (0, "mnist: in data\n", "")
    assert len(fetched) == 2
    wrong = run("fetch", "mnist", "cifar")
    assert (wrong.status, wrong.out, wrong.err) == (2, "", "harness: unknown dataset 'cifar': did you mean cifar10?\n")


def test_the_sizes_of_downloads_are_in_the_help(run: Run) -> None:
    assert "mnist (12 MB), fashion-mnist (31 MB), cifar10 (170 MB)" in " ".join(
        run("fetch", "--help").out.replace("│", "").split()
    )


GAUSSIAN = ("reproduce", "table2-mnist-fc", "--methods", "gaussian")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the quick profile asks for from a network that is not there."""
    monkeypatch.delenv("HARNESS_OFFLINE")
    asked: list[Any] = []

    def fetch(*arguments: Any) -> None:
        asked.append(arguments)
        raise InputError("mnist cannot be fetched: no server answers within 5 s")

    monkeypatch.setattr(datasets, "fetch", fetch)
    return asked


def test_the_quick_profile_fetches_mnist_and_goes_on_without_it(run: Run, asked: list[Any]) -> None:
    ended = run(*GAUSSIAN)
    assert asked == [("mnist", None, reproduce._PATIENCE)]
    assert ended.err.startswith(
        "fetching mnist (12 MB, checked by SHA-256); --offline does without\n"
        "mnist cannot be fetched: no server answers within 5 s; going on without mnist\n"
    )
    assert ended.status == 1
    told = " ".join(ended.out.split())
    assert "1 cell (gaussian): " in told
    assert "mnist/train-images-idx3-ubyte is missing: harness fetch mnist" in told


@pytest.mark.parametrize(
    "arguments",
    [
        (*GAUSSIAN, "--offline"),
        (*GAUSSIAN, "--plan"),
        (*GAUSSIAN, "--profile", "paper", "--offline"),
        ("reproduce", "digits-fc", "--methods", "gaussian"),
    ],
    ids=" ".join,
)
def test_nothing_is_fetched_that_is_not_to_be(
    arguments: tuple[str, ...], run: Run, asked: list[Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr("harness.datasets.files.download", lambda *arguments: asked.append(arguments))
    ended = run(*arguments)
    assert asked == []
    assert "fetching" not in ended.err


def test_a_plan_says_which_data_it_knows_no_time_for(run: Run) -> None:
    assert run(*GAUSSIAN, "--plan").err == (
        "the plan has no time for what needs mnist: the data are not here (harness fetch)\n"
    )
    assert run("reproduce", "digits-fc", "--methods", "gaussian", "--plan").err == ""


def test_data_that_are_there_are_not_fetched(run: Run, asked: list[Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(datasets, "why_unavailable", lambda *_: None)
    assert "fetching" not in run(*GAUSSIAN, "--plan").err
    reproduce._fetch(None, quiet=False)
    assert asked == []
