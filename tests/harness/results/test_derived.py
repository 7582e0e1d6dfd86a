"""The columns that are made once, where rows are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from stored import stored_config

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
    settings = {
        "config": {"ema_decay": 0.999, "compile": True, "max_seconds": None},
        "preprocess": False,
        "smooth_noise": 1.25,
        "problem": {"seed": 3, "layers": 2},
    }
    origin = {"recipe": "tuned", "shortened": True, "argv": ["train", "--dataset", "my data.npy", "--layers", "8"]}
    training = {"experiment": "train", "recipe": "tuned, layers 8", "versions": json.dumps({"torch": "2.13.0"})}
    facts = _facts(make_row(**training, config=stored_config("likelihood", origin=origin, **settings)))
    settings["problem"] = {"seed": 4, "layers": 2}
    other = _facts(make_row(**training, config=stored_config("likelihood", origin=origin, **settings)))
    assert (facts["kind"], facts["EMA"], facts["MaP"], facts["compiled"]) == ("likelihood", True, False, True)
    assert (facts["smooth_noise"], facts["torch"], facts["base"]) == (1.25, "2.13.0", "tuned")
    assert facts["shortened"] is True
    assert facts["training"] == other["training"]
    assert facts["training"] is not None
    assert facts["command"] == "harness train --dataset 'my data.npy' --layers 8 --threads 2"


def test_other_data_machines_and_libraries_are_other_trainings(make_row: MakeRow) -> None:
    same = {"method": "ebflow-ssm", "problem": {"layers": 2}, "cpu": "one", "versions": {"torch": "2.13.0"}}
    others = [
        same,
        same | {"problem": {"layers": 2, "seed": 1}},
        same | {"cpu": "another"},
        same | {"versions": {"torch": "2.12.0"}},
        same | {"data": "c0ffee"},
        same | {"processes": 2},
    ]
    rows = [make_row(experiment="train", config=stored_config("likelihood", **other)) for other in others]
    assert len({_facts(row)["training"] for row in rows[:2]}) == 1
    assert len({_facts(row)["training"] for row in rows}) == len(others) - 1


def test_a_training_by_several_processes_is_started_by_torchrun(make_row: MakeRow) -> None:
    config = stored_config("likelihood", origin={"argv": ["train", "--layers", "8"]}, processes=2)
    command = _facts(make_row(experiment="train", config=config))["command"]
    assert command == "torchrun --nproc-per-node 2 -m harness.cli train --layers 8 --threads 2"


def test_a_timing_has_no_training(make_row: MakeRow) -> None:
    facts = _facts(make_row())
    assert facts["kind"] == "runtime"
    assert all(facts[name] is None for name in ("EMA", "MaP", "shortened", "training"))


def test_asv_s_rows_are_measured_again_by_asv(make_row: MakeRow) -> None:
    facts = _facts(make_row(experiment="asv", config="{}", commit="c" * 40))
    assert facts["kind"] == "asv"
    assert facts["command"] == f"asv run '{'c' * 40}^!'"


@pytest.mark.parametrize("averaged", [0.9, None])
def test_the_label_of_a_recipe_decides_nothing(make_row: MakeRow, averaged: float | None) -> None:
    label = "tuned, ema_decay None, 3 of 10 epochs"
    config = stored_config("likelihood", origin={"recipe": "paper", "shortened": False}, config={"ema_decay": averaged})
    facts = _facts(make_row(recipe=label, config=config))
    assert (facts["base"], facts["shortened"], facts["EMA"]) == ("paper", False, averaged is not None)


@pytest.mark.parametrize(
    "config",
    ["", "[]", '{"identity": []}', '{"identity": {"kind": "likelihood"}, "settings": 1, "origin": {"argv": 2}}'],
)
def test_what_another_program_wrote_there_is_no_error(make_row: MakeRow, config: str) -> None:
    facts = _facts(make_row(config=config, versions=config))
    assert facts["torch"] is None
    assert facts["command"] is None


@pytest.mark.parametrize(
    ("objective", "linear", "family"),
    [
        ("dsm", "lu", "score matching"),
        ("ml", "dense", "exact dense"),
        ("sml", "dense", "exact dense"),
        ("relative-gradient", "dense", "determinant-free dense"),
        ("ml", "luperm", "restricted matrices"),
        ("ml", "none", "other flows"),
        ("fm", "none", "regression"),
        ("regression", "none", "regression"),
        ("closed-form", "dense", "closed form"),
        ("lcss", "dense", "score matching"),
    ],
)
def test_the_family_of_a_method(make_row: MakeRow, objective: str, linear: str, family: str) -> None:
    assert _facts(make_row(objective=objective, linear=linear))["family"] == family


def test_a_declared_family_counts_more_than_the_objectives_name(make_row: MakeRow) -> None:
    row = make_row(objective="mine", config='{"family": "score matching"}')
    assert _facts(row)["family"] == "score matching"


@pytest.mark.parametrize("value", [[], {}, 3, 10**400, True, "\ud800"])
def test_a_value_of_another_type_is_none(make_row: MakeRow, value: object) -> None:
    settings = {"preprocess": value, "smooth_noise": value, "project": value}
    content = {"identity": {"kind": "likelihood", **settings}, "settings": settings, "family": value}
    content["origin"] = {"recipe": value, "shortened": value}
    frame = derived(to_frame([make_row(config=json.dumps(content), versions=json.dumps({"torch": value}))]))
    (row,) = frame.to_dicts()
    text = "\\ud800" if isinstance(value, str) else None
    assert {name: row[name] for name in ("base", "project", "torch")} == dict.fromkeys(
        ("base", "project", "torch"), text
    )
    assert (row["MaP"], row["shortened"]) == ((True, True) if value is True else (None, None))
    assert row["smooth_noise"] == (3.0 if value == 3 else None)
    assert row["family"] == (text or "exact dense")
    assert row["kind"] == "likelihood"
