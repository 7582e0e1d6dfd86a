"""The key of a cell: it is made of what differs from the defaults, so that a new option renames no stored cell."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest

from harness.cells import ImputationCell, LikelihoodCell, NormalizerCell, Origin, RuntimeCell
from harness.cells.base import APART, Cell
from harness.methods import Problem
from harness.results import Store, migrations, to_frame
from harness.training.configuration import TrainingConfig

TRAINING = LikelihoodCell(
    experiment="train",
    profile="custom",
    method="ebflow-dsm",
    problem=Problem(shape=(1, 8, 8), noise=0.3),
    dataset="digits",
    config=TrainingConfig(epochs=2, ema_decay=None),
    draws=2,
)
TIMING = RuntimeCell(
    experiment="runtime", profile="custom", methods=("ebflow-ml",), problem=Problem(shape=(8,)), repeats=3
)
IMPUTATION = ImputationCell(
    experiment="imputation",
    profile="custom",
    method="gaussian",
    problem=Problem(shape=(1, 28, 28)),
    dataset="mnist",
    config=TrainingConfig(),
)
LOG_Z = NormalizerCell(experiment="log-z", profile="quick", problem=Problem(shape=(8,), dtype="float64"))


def with_an_option(thing: Any) -> Any:
    """The same thing, of a class that has one more option, at its default."""
    added = [("a_new_option", float, field(default=0.5, kw_only=True))]
    kind = dataclasses.make_dataclass(type(thing).__name__, added, bases=(type(thing),), frozen=True)
    return kind(**{own.name: getattr(thing, own.name) for own in dataclasses.fields(thing)})


@pytest.mark.parametrize("cell", [TRAINING, TIMING, IMPUTATION, LOG_Z], ids=lambda cell: cell.kind)
def test_a_new_option_with_a_default_renames_no_cell(cell: Cell) -> None:
    assert with_an_option(cell).key() == cell.key()
    assert dataclasses.replace(cell, problem=with_an_option(cell.problem)).key() == cell.key()
    if hasattr(cell, "config"):
        assert dataclasses.replace(cell, config=with_an_option(cell.config)).key() == cell.key()
    changed = dataclasses.replace(with_an_option(cell), a_new_option=0.7)
    assert changed.key() != cell.key()
    assert changed.identity()["a_new_option"] == 0.7


def test_the_identity_holds_the_kind_and_what_differs() -> None:
    identity = TRAINING.identity()
    assert {name: identity[name] for name in ("kind", "method", "problem", "config", "draws")} == {
        "kind": "likelihood",
        "method": "ebflow-dsm",
        "problem": {"shape": (1, 8, 8), "noise": 0.3},
        "config": {"epochs": 2, "ema_decay": None},
        "draws": 2,
    }
    assert "preprocess" not in identity
    assert "recipe" not in identity


def test_how_a_cell_was_asked_for_is_a_fact_of_its_rows_and_no_part_of_its_key() -> None:
    asked = dataclasses.replace(TRAINING, recipe="paper, epochs 2", origin=Origin(("train",), "paper", {"epochs": 2}))
    assert asked.key() == TRAINING.key()
    (row,) = asked.without_result("failed", "no kernel")
    assert json.loads(row.config)["origin"] == {
        "argv": ["train"],
        "recipe": "paper",
        "overrides": {"epochs": 2},
        "shortened": None,
    }
    assert row.recipe == "paper, epochs 2"


@pytest.mark.parametrize(
    ("kind", "cell"), [("likelihood", TRAINING), ("runtime", TIMING), ("imputation", IMPUTATION), ("normalizer", LOG_Z)]
)
def test_defaults_are_those_that_stored_keys_were_made_with(kind: str, cell: Cell) -> None:
    # A changed default would give old keys to new results: make it a new option, or a new kind.
    def defaults(thing: Any) -> dict[str, Any]:
        return {
            own.name: own.default
            for own in dataclasses.fields(thing)
            if own.default is not dataclasses.MISSING and own.metadata != APART
        }

    assert migrations._VERSION_2["kinds"][kind].items() <= defaults(cell).items()
    assert migrations._VERSION_2["config"].items() <= defaults(TrainingConfig).items()
    problem = {**migrations._VERSION_2["problem"], "shape": tuple(migrations._VERSION_2["problem"]["shape"])}
    assert problem.items() <= defaults(Problem).items()


@pytest.mark.parametrize("cell", [TRAINING, TIMING, IMPUTATION, LOG_Z], ids=lambda cell: cell.kind)
def test_a_cell_of_the_version_before_moves_to_the_key_of_today(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"likelihood": "LikelihoodCell", "runtime": "RuntimeCell"}
    names |= {"imputation": "ImputationCell", "normalizer": "NormalizerCell"}
    (row,) = cell.without_result("failed", "no kernel")
    content = json.loads(row.config)
    where = {name: content["identity"][name] for name in ("project", "versions", "cpu", "gpu", "threads")}
    settings = content["settings"]
    older = {"frozen_actnorm", "refresh", "hidden", "blocks", "dropout", "bins", "tail_bound", "mixing"}
    for newer in older:  # as in cells that are older than the options
        settings["problem"].pop(newer)
    for newer in ("evaluate_steps", "cuda_graphs"):
        settings.get("config", {}).pop(newer, None)
    for newer in ("augment", "standardize", "columns", "dequantize"):
        settings.pop(newer, None)
    old = {"kind": names[cell.kind], **where, **settings}
    before = dataclasses.replace(row, config=json.dumps(old), cell="0123456789abcdef")
    migrated = migrations.name_by_differences(to_frame([before]))
    assert migrated["cell"].to_list() == [cell.key()]
    assert json.loads(migrated["config"][0])["settings"]["problem"]["frozen_actnorm"] is False
    Store(tmp_path).write([dataclasses.replace(row, config=migrated["config"][0])])
    store = Store(tmp_path)
    assert (store.verify(), store.notes) == (1, [])
