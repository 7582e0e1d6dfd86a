"""The columns that are made once, where rows are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from harness.results import SCHEMA, Row, to_frame
from harness.results.derived import DERIVED, derived

MakeRow = Callable[..., Row]


def _facts(row: Row) -> dict[str, Any]:
    return derived(to_frame([row])).select(list(DERIVED)).row(0, named=True)


def test_a_frame_keeps_its_rows_and_gains_the_columns(make_row: MakeRow) -> None:
    rows = [make_row(), make_row(method="machine"), make_row(value=2.0)]
    frame = derived(to_frame(rows))
    assert frame.schema == pl.Schema({**SCHEMA, **DERIVED})
    assert [Row(**row) for row in frame.select(*SCHEMA).iter_rows(named=True)] == rows
    assert derived(to_frame([])).schema == pl.Schema({**SCHEMA, **DERIVED})


def test_a_training_says_how_it_was_made(make_row: MakeRow) -> None:
    config = {
        "kind": "LikelihoodCell",
        "config": {"ema_decay": 0.999, "compile": True, "max_seconds": None},
        "preprocess": False,
        "smooth_noise": 1.25,
        "problem": {"seed": 3, "layers": 2},
    }
    training = {"experiment": "train", "recipe": "tuned, layers 8", "versions": json.dumps({"torch": "2.13.0"})}
    facts = _facts(make_row(**training, config=json.dumps(config)))
    other = _facts(make_row(**training, config=json.dumps(config | {"problem": {"seed": 4, "layers": 2}})))
    assert (facts["kind"], facts["EMA"], facts["MaP"], facts["compiled"]) == ("likelihood", True, False, True)
    assert (facts["smooth_noise"], facts["torch"], facts["base"]) == (1.25, "2.13.0", "tuned")
    assert facts["training"] == other["training"]
    assert facts["training"] is not None
    assert facts["command"].startswith("train --method ebflow-ml ")
    assert facts["command"].endswith("--layers 8 --without-map --seed 0 --threads 2 --device cpu")


def test_a_timing_has_no_training(make_row: MakeRow) -> None:
    facts = _facts(make_row())
    assert facts["kind"] == "runtime"
    assert all(facts[name] is None for name in ("EMA", "MaP", "shortened", "training"))
    assert _facts(make_row(experiment="asv", config="{}"))["kind"] == "asv"


@pytest.mark.parametrize(
    ("changes", "shortened"),
    [
        ({}, False),
        ({"profile": "quick"}, True),
        ({"profile": "quick", "objective": "closed-form"}, False),
        ({"recipe": "paper, 5 of 10,000 epochs"}, True),
    ],
)
def test_a_training_that_had_less_than_its_recipe_is_shortened(
    make_row: MakeRow, changes: dict[str, str], shortened: bool
) -> None:
    row = make_row(**{"profile": "paper", "config": json.dumps({"kind": "LikelihoodCell"}), **changes})
    assert _facts(row)["shortened"] is shortened


def test_a_budget_in_seconds_shortens(make_row: MakeRow) -> None:
    config = {"kind": "LikelihoodCell", "config": {"max_seconds": 4}}
    assert _facts(make_row(config=json.dumps(config)))["shortened"] is True


@pytest.mark.parametrize("config", ["", "[]", '{"kind": []}', '{"kind": "LikelihoodCell", "config": 1, "problem": 2}'])
def test_what_another_program_wrote_there_is_no_error(make_row: MakeRow, config: str) -> None:
    assert _facts(make_row(config=config, versions=config))["torch"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {
                "config": json.dumps(
                    {"kind": "RuntimeCell", "methods": ["a-ml", "b-ml"], "repeats": 5, "config": {"compile": True}}
                )
            },
            "runtime --architecture fc --dims 256 --layers 2 --batch 100 --dtype float32 --repeats 5 "
            "--methods a-ml,b-ml --compile --seed 0 --threads 2 --device cpu",
        ),
        (
            {
                "experiment": "train",
                "dataset": "my data.npy",
                "recipe": "tuned, epochs 8, learning_rate 0.1",
                "config": json.dumps({"kind": "LikelihoodCell", "draws": 2, "preprocess": False}),
            },
            "train --method ebflow-ml --architecture fc --dataset 'my data.npy' --recipe tuned --draws 2 "
            "--epochs 8 --learning-rate 0.1 --without-map --seed 0 --threads 2 --device cpu",
        ),
        (
            {"experiment": "table2-mnist-fc", "profile": "paper", "recipe": "paper, 60 of 10,000 epochs"},
            "reproduce table2-mnist-fc --profile paper --methods ebflow-ml --seeds 1 --epochs 60 --seed 0 "
            "--threads 2 --device cpu",
        ),
    ],
)
def test_commands(changes: dict[str, Any], words: str, make_row: MakeRow) -> None:
    row = make_row(**{"config": json.dumps({"kind": "LikelihoodCell"}), **changes})
    assert _facts(row)["command"] == words
