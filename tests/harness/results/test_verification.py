"""Rows that others send: every finding by itself, and none where there is nothing to find."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness import __version__
from harness.results import Row, Store, cell_key, to_frame
from harness.results.file import dump
from harness.results.verification import verify

Run = Callable[..., Any]
PROJECT, METHOD = f'"project": "{__version__}"', "ebflow-ml"


@pytest.fixture
def training(make_row: Callable[..., Row]) -> Callable[..., list[Row]]:
    """Two rows of a training of a seed, with the key of its configuration."""

    def make(seed: int = 0, project: str | None = __version__, **changes: Any) -> list[Row]:
        columns = {"experiment": "train", "recipe": "tuned", "dataset": "digits", "unit": "nats", "metric": "nll"}
        columns |= {"versions": json.dumps({"python": "3.11.7", "torch": "2.13.0"}), "seed": seed}
        row = make_row(**{**columns, **changes})
        where = {"threads": row.threads, "cpu": row.cpu, "gpu": row.gpu}
        identity = {"kind": "likelihood", "project": project, "method": row.method, **where, "problem": {"seed": seed}}
        problem = {"seed": row.seed, "dtype": row.dtype, "device": row.device, "shape": [row.D]}
        settings = {"experiment": row.experiment, "profile": row.profile, "problem": problem}
        config = json.dumps({"identity": identity, "settings": settings, "origin": {}})
        row = replace(row, cell=cell_key(identity), config=config)
        plain = {"reason": None, "ci_low": None, "ci_high": None, "n": 1, "status": "ok"}
        return [row, replace(row, metric="validation_nll", value=0.5, **plain)]

    return make


@pytest.fixture
def sent(training: Callable[..., list[Row]], tmp_path: Path) -> Callable[..., Path]:
    """A folder of three seeds, the first of which is changed."""

    def send(**changes: Any) -> Path:
        store = Store(tmp_path / "sent")
        for seed in range(3):
            store.write(training(seed, **(changes if seed == 0 else {})))
        return store.folder

    return send


def test_good_rows_have_no_finding(sent: Callable[..., Path], run: Run) -> None:
    folder = sent()
    assert verify(folder) == []
    ended = run("results", "verify", str(folder), str(folder))
    assert (ended.status, ended.out, ended.err) == (0, "", "0 errors and 0 notes in 2 folders\n")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"commit": "c" * 40 + "+"}, f"its commit is {'c' * 40}+; commit your changes in a clone"),
        ({"commit": None}, "its commit is None; "),
        ({"project": None}, "version None is unknown to version"),
        ({"project": "99.0.0"}, "version 99.0.0 is unknown to version"),
        ({"project": "mine"}, "version mine is unknown to version"),
        ({"versions": "{}"}, "its versions name no torch"),
        ({"versions": '{"torch": "unknown"}'}, "its versions name no torch"),
        ({"ci_low": 0.51}, "the nll of ebflow-ml, 0.5, is not inside its interval [0.51, 0.6]"),
        ({"ci_high": 0.49}, "the nll of ebflow-ml, 0.5, is not inside its interval [0.4, 0.49]"),
        ({"ci_high": None}, "the nll of ebflow-ml, 0.5, is not inside its interval [0.4, None]"),
        ({"n": None}, "the nll of ebflow-ml has an interval from n = None"),
        ({"n": 1}, "the nll of ebflow-ml has an interval from n = 1"),
        (
            {"status": "failed", "value": None, "ci_low": None, "ci_high": None, "reason": " "},
            "the nll of ebflow-ml is failed without a reason",
        ),
        ({"method": "my-flow-ml"}, "no adapter declares my-flow-ml; put its file beside cells/, or into baselines/"),
    ],
)
def test_each_error_is_one_line(changes: dict[str, Any], text: str, sent: Callable[..., Path], run: Run) -> None:
    folder = sent(**changes)
    errors = [finding for finding in verify(folder) if finding.level == "error"]
    assert len(errors) == 1, errors
    assert errors[0].text.startswith(text)
    (cell,) = {row["cell"] for row in Store(folder).frame()[0].filter(seed=0).iter_rows(named=True)}
    assert errors[0].place == f"{folder}: cell {cell}"
    ended = run("results", "verify", str(folder))
    assert ended.status == 1
    assert f"error: {errors[0].place}: {errors[0].text}" in ended.out.splitlines()
    assert {"level": "error", "place": errors[0].place, "text": errors[0].text} in run(
        "results", "verify", str(folder), "--json"
    ).rows


def test_a_mean_may_be_a_rounding_outside(sent: Callable[..., Path]) -> None:
    assert verify(sent(value=0.5, ci_low=0.5 + 1e-13, ci_high=0.5 + 1e-13)) == []


def test_the_file_of_the_adapter_declares_its_method(sent: Callable[..., Path]) -> None:
    folder = sent(method="my-flow-ml")
    (folder / "my_flow.py").write_text('raise SystemExit\nMETHODS = [Method("my-flow-ml", objective="ml")]\n')
    assert {finding.level for finding in verify(folder)} == {"note"}  # of the seeds


def test_what_is_no_error_is_a_note(sent: Callable[..., Path], run: Run) -> None:
    folder = sent(project="0.1.0", recipe="paper")
    assert [(finding.level, finding.text) for finding in verify(folder)] == [
        ("note", f"its rows of version 0.1.0 are not compared with those of version {__version__}"),
        ("note", "ebflow-ml on digits, paper: 1 of 3 seeds; train it with --seed 0, 1 and 2"),
        ("note", "ebflow-ml on digits, tuned: 2 of 3 seeds; train it with --seed 0, 1 and 2"),
    ]
    assert run("results", "verify", str(folder)).status == 0


def test_a_training_needs_a_validation(training: Callable[..., list[Row]], tmp_path: Path) -> None:
    Store(tmp_path).write(training()[:1])
    assert verify(tmp_path)[0].text == f"{METHOD} has a test NLL and no validation NLL, which chooses the recipe"


def test_damage_and_foreign_keys_are_told_and_nothing_is_moved(sent: Callable[..., Path]) -> None:
    folder = sent()
    first, second, _ = sorted(folder.glob("cells/train/*.parquet"))
    rows = pl.read_parquet(first).with_columns(config=pl.col("config").str.replace(PROJECT, '"project": "0.1.5"'))
    first.write_bytes(dump(rows))
    second.write_bytes(second.read_bytes()[:-1])
    before = sorted(folder.rglob("*"))
    errors = [finding.text for finding in verify(folder) if finding.level == "error"]
    assert len(errors) == 2
    damaged, foreign = sorted(errors, key=lambda text: "its configuration is that of cell" in text)
    assert foreign.startswith(f"{first}: not a readable cell (its configuration is that of cell ")
    assert damaged.startswith(f"{second}: not a readable cell (")
    assert sorted(folder.rglob("*")) == before


def test_a_folder_without_rows_is_an_error(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    (tmp_path / "cells/train").mkdir(parents=True)
    (tmp_path / "cells/train.parquet").write_bytes(dump(to_frame([make_row(experiment="other")])))
    errors = verify(tmp_path)
    assert [finding.level for finding in errors] == ["error", "error"]
    assert errors[-1].text == "no row can be read; give a folder that a run has written"
