"""The program: what it prints and keeps; every mistake of the user's is one line, status 2, nothing written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import datasets, load_model
from harness.cells import LikelihoodCell, RuntimeCell
from harness.cli import listing
from harness.cli import program as cli
from harness.errors import InputError
from harness.methods import Method, Problem, registry
from harness.paper import experiments
from harness.paper.experiments import EXPERIMENTS, Experiment
from harness.paper.recipes import RECIPES
from harness.results import SCHEMA, Row, Store
from harness.training.configuration import TrainingConfig

Run = Callable[..., Any]

TIMING = ("runtime", "--dims", "4,8", "--repeats", "3", "--batch", "5", "--methods", "ebflow-ml,ebflow-dsm")
TRAINING = ("train", "--method", "nflows-lu-ml", "--epochs", "1", "--draws", "2")


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def cells_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("cells/*/*.parquet"))


@pytest.fixture
def tiny_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    """One experiment of a timing and a training, both of a moment."""

    class Plan:
        def shortened(self) -> str:
            return "almost everything"

        def cells(self, name: str, context: experiments.Context) -> list[Any]:
            config = TrainingConfig(epochs=1, evaluate_every=1)
            problem = Problem(shape=(1, 8, 8), seed=context.seed)
            return [
                RuntimeCell(
                    experiment=name,
                    profile=context.profile,
                    methods=("ebflow-dsm",),
                    problem=Problem(shape=(4,), seed=context.seed),
                    repeats=2,
                ),
                LikelihoodCell(
                    experiment=name,
                    profile=context.profile,
                    method="gaussian",
                    problem=problem.replace(layers=1),
                    dataset="digits",
                    config=config,
                    draws=2,
                ),
            ]

    tiny = Experiment("tiny", "a moment", Plan(), "all else")
    monkeypatch.setattr(experiments, "EXPERIMENTS", (tiny,))


def test_list_shows_methods_datasets_and_experiments(run: Run, with_methods: Run, fake_method: Run) -> None:
    with_methods(fake_method("gone-ml", requires=("no_such_library",)))
    ended = run("list")
    assert ended.status == 0
    assert ended.err == ""
    for name in (*registry.registry().methods, *datasets.names(), *(e.name for e in EXPERIMENTS)):
        assert f"| {name} " in ended.out
    assert "no_such_library is not installed: pip install no_such_library" in ended.out
    assert "mnist/train-images-idx3-ubyte is missing" in ended.out
    assert written(Path.cwd()) == []


def test_list_as_rows(run: Run, with_methods: Run, fake_method: Run) -> None:
    with_methods(fake_method("gone-ml", requires=("no_such_library",)))
    ended = run("list", "--json")
    assert ended.err == ""
    assert all(list(row) == list(SCHEMA) for row in ended.rows)
    kinds = ("method", "dataset", "recipe", "experiment")
    by_kind = {kind: [row for row in ended.rows if json.loads(row["config"])["kind"] == kind] for kind in kinds}
    assert sum(map(len, by_kind.values())) == len(ended.rows)
    assert [row["dataset"] for row in by_kind["dataset"]] == list(datasets.names())
    assert [row["recipe"] for row in by_kind["recipe"]] == list(RECIPES)
    assert [row["experiment"] for row in by_kind["experiment"]] == [experiment.name for experiment in EXPERIMENTS]
    published = {"mnist", "fashion-mnist", "cifar10", "power", "gas", "hepmass", "miniboone", "bsds300"}
    assert {row["dataset"] for row in ended.rows if row["status"] == "unavailable"} == {"", *published}
    rows = {row["method"]: row for row in by_kind["method"]}
    assert rows.keys() == registry.registry().methods.keys()
    assert rows["ebflow-dsm"]["value"] == 1.0
    gone = rows["gone-ml"]
    assert (gone["status"], gone["value"]) == ("unavailable", None)
    assert gone["reason"] == "no_such_library is not installed: pip install no_such_library"


def test_runtime_measures_shows_and_resumes(run: Run) -> None:
    ended = run(*TIMING)
    assert ended.status == 0
    assert "## runtime (custom): median milliseconds an iteration" in ended.out
    assert "## runtime (custom): log-log slopes" in ended.out
    assert "| ebflow-dsm " in ended.out
    assert "runtime: fc, D = 8, L = 2" in ended.err
    results = Path("results/local")
    first = {path: path.read_bytes() for path in cells_in(results)}
    assert len(first) == 2
    assert "tables/runtime-custom-timings.md" in written(results)
    assert "figures/runtime-custom-fc-L2-seconds-over-D.svg" in written(results)

    again = run(*TIMING)
    assert "runtime: fc, D = 8, L = 2: already there" in again.err
    assert {path: path.read_bytes() for path in cells_in(results)} == first
    assert again.out == ended.out

    anew = run(*TIMING, "--fresh")
    assert "already there" not in anew.err
    assert list(first) == cells_in(results)
    assert {path: path.read_bytes() for path in cells_in(results)} != first


def test_timings_are_compared_across_settings_on_request(run: Run) -> None:
    once = ("runtime", "--dims", "4,8", "--layers", "1", "--methods", "ebflow-dsm", "--repeats", "2")
    for batch in ("5", "6"):
        run(*once, "--batch", batch)
    assert "| ebflow-dsm (B = 6) |" in run("tables", "--across", "B").out
    assert "(B = 6)" not in run("tables").out
    refused = run("tables", "--across", "machine")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("harness: unknown setting to compare across 'machine'")


def test_runtime_as_rows(run: Run, tmp_path: Path) -> None:
    ended = run(*TIMING, "--layers", "1,3", "--dtype", "float64", "--json", "--results-dir", str(tmp_path / "r"))
    assert ended.status == 0
    assert all(list(row) == list(SCHEMA) for row in ended.rows)
    timed = [row for row in ended.rows if row["metric"] == "seconds_per_iteration"]
    points = [(row["method"], row["D"], row["L"], row["B"], row["n"], row["dtype"]) for row in timed]
    assert points == [
        (method, size, depth, 5, 3, "float64")
        for size in (4, 8)
        for depth in (1, 3)
        for method in ("ebflow-ml", "ebflow-dsm")
    ]
    assert {row["status"] for row in ended.rows} == {"ok"}
    # Rows alone: the cells are kept, tables are for `harness tables`.
    assert {name.split("/")[0] for name in written(tmp_path / "r")} == {"cells"}
    assert written(Path.cwd()) == []
    # What is printed is what is kept, and is printed again from there.
    assert run("tables", "--json", "--results-dir", str(tmp_path / "r")).rows != []
    assert (
        run(*TIMING, "--layers", "1,3", "--dtype", "float64", "--json", "--results-dir", str(tmp_path / "r")).out
        == ended.out
    )


def test_runtime_of_everything_available(run: Run, with_methods: Run, fake_method: Run) -> None:
    with_methods(fake_method("gone-ml", requires=("no_such_library",)))
    ended = run("runtime", "--architecture", "cnn", "--dims", "16", "--layers", "3", "--repeats", "1", "--json")
    timed = [row["method"] for row in ended.rows if row["metric"] == "seconds_per_iteration"]
    assert timed == [m.name for m in registry.registry().available("cnn")]
    assert {(row["shape"], row["D"]) for row in ended.rows} == {("1x4x4", 16)}
    named = run("runtime", "--dims", "4", "--methods", "gone-ml,ebflow-ml", "--repeats", "1", "--json")
    statuses = [(row["method"], row["status"]) for row in named.rows if row["metric"] == "seconds_per_iteration"]
    assert statuses == [("gone-ml", "unavailable"), ("ebflow-ml", "ok")]
    assert named.status == 0


def test_train_scores_and_keeps_the_model(run: Run) -> None:
    ended = run(*TRAINING, "--save", "kept/model.safetensors", "--seed", "2")
    assert ended.status == 0
    assert "## train (custom): test negative log-likelihood" in ended.out
    assert "| nflows-lu-ml " in ended.out
    assert Path("kept/model.safetensors").is_file()
    assert load_model("kept/model.safetensors").description.method == "nflows-lu-ml"
    # Asked for again, the model is written again, though the cell is there.
    Path("kept/model.safetensors").unlink()
    assert run(*TRAINING, "--save", "kept/model.safetensors", "--seed", "2").status == 0
    assert Path("kept/model.safetensors").is_file()


def test_processes_that_share_a_training_have_no_limits(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.training.processes.processes", lambda: 2)
    ended = run(*TRAINING, "--timeout", "60")
    assert ended.status == 2
    assert ended.err == "harness: a training in several processes has no limits; leave --timeout and --memory out\n"


def test_train_as_rows_with_every_option(run: Run) -> None:
    options = {
        "--layers": "3",
        "--learning-rate": "0.002",
        "--optimizer": "adam",
        "--noise": "0.25",
        "--batch": "200",
        "--patience": "4",
        "--max-seconds": "60",
        "--seed": "7",
    }
    flat = [part for option in options.items() for part in option]
    ended = run("train", "--epochs", "2", "--draws", "3", "--no-ema", "--without-map", *flat, "--json")
    assert ended.status == 1  # without MaP the noise of DSM leaves the domain of the logit
    (first,) = [row for row in ended.rows if row["method"] == "ebflow-dsm"]
    assert first["status"] == "diverged"
    assert {row["status"] for row in ended.rows if row["method"] == "gaussian"} == {"ok"}
    assert all(list(row) == list(SCHEMA) for row in ended.rows)
    config = json.loads(first["config"])
    assert (first["method"], first["dataset"], first["L"], first["B"], first["seed"]) == (
        *("ebflow-dsm", "digits", 3, 200, 7),
    )
    identity = config["identity"]
    training = identity["config"]
    assert (training["epochs"], training["learning_rate"], training["optimizer"]) == (2, 0.002, "adam")
    assert (training["patience"], training["max_seconds"], training["ema_decay"]) == (4, 60.0, None)
    assert (identity["problem"]["noise"], identity["draws"], identity["preprocess"]) == (0.25, 3, False)
    assert config["origin"]["recipe"] == "paper"
    assert config["origin"]["shortened"] is True
    assert config["origin"]["overrides"] == {
        **{"epochs": 2, "learning_rate": 0.002, "optimizer": "adam", "patience": 4, "max_seconds": 60.0},
        **{"ema_decay": None, "layers": 3, "batch": 200, "noise": 0.25},
    }
    again = config["origin"]["argv"]
    assert "--no-ema" in again
    assert "--without-map" in again
    assert {row["cell"] for row in run(*again, "--json", "--results-dir", "again").rows} == {
        row["cell"] for row in ended.rows
    }


def test_train_on_the_user_s_own_data(run: Run) -> None:
    generator = np.random.default_rng(0)
    np.save("mine.npy", generator.normal(size=(200, 3)) @ generator.normal(size=(3, 3)) + 5)
    ended = run("train", "--method", "gaussian", "--dataset", "mine.npy", "--json")
    assert {row["metric"] for row in ended.rows} == {"nll", "bits_per_dim", "validation_nll"}
    assert {(row["dataset"], row["D"]) for row in ended.rows} == {(datasets.label("mine.npy"), 3)}


def test_a_training_that_diverges_is_status_1(run: Run) -> None:
    ended = run("train", "--method", "ebflow-ml", "--dataset", "digits", "--epochs", "2", "--learning-rate", "1e30")
    assert ended.status == 1
    assert "diverged: the loss is not finite at step" in ended.out


def test_a_training_that_fails_is_status_1(run: Run, with_methods: Run, fake_method: Run, fake_model: Run) -> None:
    class Failing(fake_model):
        def training_loss(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
            raise ValueError("the covariance is singular")

    with_methods(fake_method("wild-ml", Failing))
    ended = run("train", "--method", "wild-ml", "--epochs", "1")
    assert ended.status == 1
    assert "failed: ValueError: the covariance is singular" in ended.out


def test_a_training_that_diverges_is_a_row(run: Run, with_methods: Run, fake_method: Run, fake_model: Run) -> None:
    class Diverging(fake_model):
        def training_loss(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
            return super().training_loss(x, generator) * float("nan")

    with_methods(fake_method("wild-ml", Diverging))
    row, *beside = run("train", "--method", "wild-ml", "--epochs", "1", "--json").rows
    assert {row["method"] for row in beside} == {"gaussian"}
    assert (row["status"], row["reason"]) == ("diverged", "the loss is not finite at step 1")


def test_reproduce_one_experiment(
    run: Run, tiny_experiment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = tmp_path / "r" / "cells" / "old" / "foreign.parquet"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("{}")
    ended = run("reproduce", "tiny", "--seed", "4", "--results-dir", str(tmp_path / "r"))
    assert ended.status == 0
    assert ended.err.splitlines()[-1].startswith(f"{foreign}: not a readable cell (")
    assert foreign.read_text() == "{}"
    # One screen; the tables and the page are written.
    lines = ended.out.splitlines()
    assert len(lines) <= 60
    assert "|" not in ended.out
    assert lines[0] == f"The paper's claims, judged by the 2 cells in {tmp_path / 'r'}"
    assert lines[-1] == f"page: {tmp_path / 'r' / 'report.html'}"
    assert "<!doctype html>" in (tmp_path / "r" / "report.html").read_text().lower()
    shown = run("tables", "--results-dir", str(tmp_path / "r")).out
    assert "## tiny (quick): median milliseconds an iteration" in shown
    assert "## tiny (quick): test negative log-likelihood" in shown
    assert "Differs from the publication: almost everything; all else." in shown
    assert len(cells_in(tmp_path / "r")) == 3
    # The environment names the folder as well as the option does.
    monkeypatch.setenv("HARNESS_RESULTS_DIR", str(tmp_path / "r"))
    rows = run("reproduce", "--seed", "4", "--json").rows
    assert all(list(row) == list(SCHEMA) for row in rows)
    assert {row["seed"] for row in rows} == {4}
    assert {row["experiment"] for row in rows} == {"tiny"}
    assert run("tables").out.count("## tiny (quick)") >= 2


def test_a_reproduction_stops_after_its_minutes_and_goes_on(run: Run) -> None:
    words = ("reproduce", "digits-fc", "--profile", "paper", "--epochs", "100000", "--seeds", "1", "--quiet")
    steps = []
    for _ in range(2):
        ended = run(*words, "--methods", "ebflow-dsm,gaussian", "--minutes", "0.1")
        assert (ended.status, ended.out) == (0, "")
        told = re.fullmatch(
            r"0\.1 minutes are over: the running training is saved at step (\d+), after \d+ of 100000 epochs; "
            r"finished cells are in results/local, and the same command goes on from there\n",
            ended.err,
        )
        assert told
        steps.append(int(told[1]))
    assert 0 < steps[0] < steps[1]
    ended = run(*words, "--methods", "gaussian", "--minutes", "5")  # which ends before
    assert ended.status == 0
    assert "minutes are over" not in ended.err


def test_a_plan_as_rows(run: Run, tiny_experiment: None) -> None:
    ended = run("reproduce", "--plan", "--json")
    assert ended.err == ""
    (row,) = ended.rows
    assert (row["experiment"], row["cells"], row["to do"]) == ("tiny", 2, 2)
    assert "| tiny " in run("reproduce", "--plan").out
    assert written(Path.cwd()) == []


def test_methods_that_do_not_take_a_size_are_left_out_unless_named(run: Run) -> None:
    once = ("runtime", "--dims", "1", "--repeats", "1", "--json")
    ended = run(*once)
    assert ended.status == 0
    assert "left out: nflows-nsf-ml: a coupling needs samples of at least two components" in ended.err
    timed = {row["method"] for row in ended.rows if row["metric"] == "seconds_per_iteration"}
    assert "ebflow-dsm" in timed
    assert "nflows-nsf-ml" not in timed
    one_line(run(*once, "--methods", "ebflow-dsm,nflows-nsf-ml"), "nflows-nsf-ml: a coupling needs samples of at")


def test_ctrl_c_keeps_what_is_finished(run: Run, tiny_experiment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: LikelihoodCell, *others: Any) -> list[Row]:
        raise KeyboardInterrupt

    monkeypatch.setattr(LikelihoodCell, "measure", interrupted)
    ended = run("reproduce", "tiny")
    assert ended.status == 130
    assert ended.err.splitlines()[-1] == (
        "stopped: finished cells are in results/local, and the same command goes on from there"
    )
    assert len(cells_in(Path("results/local"))) == 1


def test_tables_of_what_is_there(run: Run, make_row: Callable[..., Row], tmp_path: Path) -> None:
    store = Store(Path("results/local"))
    for size in (16, 64):
        store.write([make_row(D=size, cell=f"{size:016}")])
    damaged = store.write([make_row(cell="bad")])
    damaged.write_text("[{]")
    ended = run("tables", "--write")
    assert ended.status == 0
    assert "| ebflow-ml " in ended.out
    assert ended.err.splitlines()[0].startswith("results/local/cells/runtime/bad.parquet: not a readable cell (")
    assert ended.err.splitlines()[1].startswith("written: 3 files in results/local/tables")
    assert damaged.read_text() == "[{]"
    as_rows = run("tables", "--json")
    assert [row["D"] for row in as_rows.rows] == [16, 64]
    assert all(list(row) == list(SCHEMA) for row in as_rows.rows)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in written(folder)}


def test_what_only_reads_leaves_the_folder_as_it_is(
    run: Run, make_cell_row: Callable[..., Row], tmp_path: Path
) -> None:
    """Tables and figures that were written before, by an older version, stay as they are."""
    folder = tmp_path / "reference"
    for size in (16, 64):
        Store(folder).write([make_cell_row(size, D=size)])
    for name in ("tables/runtime-custom-runtime.md", "figures/a.svg", "report.html"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("of an older version")
    before = contents(folder)
    read = ("--results-dir", str(folder))
    for command in (("tables",), ("tables", "--json"), ("results", "show"), ("results", "verify")):
        assert run(*command, *read).status == 0
        assert written(Path.cwd()) == []
    assert run("figures", *read).status == run("report", *read).status == 2
    assert written(Path.cwd()) == []
    for command in (("tables", "--output", "out"), ("figures", "--output", "out"), ("report", "--output", "page.html")):
        assert run(*command, *read).status == 0
    assert contents(folder) == before
    made = set(written(Path.cwd()))
    beside = {"page.html", "page.csv", "page.parquet"}
    assert {"out/tables/runtime-custom-runtime.md", *beside} <= made
    assert {path.split("/")[1] for path in made - beside} == {"tables", "figures"}
    assert run("figures", "--write", *read).status == run("tables", "--write", "--json", *read).status == 0
    assert contents(folder) == {
        **before,
        **{name[4:]: (Path.cwd() / name).read_bytes() for name in made if name.endswith(".md")},
        **{name: content for name, content in contents(folder).items() if name.startswith("figures/")},
    }


CNN = ("--architecture", "cnn")
FLOWS = "'fc', 'cnn', 'glow', 'toy', 'multimodal'"
BAD_INPUT = {
    ("reproduce", "--epochs", "5"): "--epochs is for --profile paper; the quick profile has lengths of its own",
    # Names, with near matches.
    ("runtime", "--methods", "ebflow-dms"): "unknown method 'ebflow-dms': did you mean ebflow-dsm",
    ("train", "--method", "nflow-lu-ml"): "unknown method 'nflow-lu-ml': did you mean nflows-lu-ml",
    ("train", "--dataset", "mn\nist\x1b[2J"): r"unknown dataset 'mn\nist\x1b[2J': did you mean mnist?",
    ("train", "--dataset", "mnst"): "unknown dataset 'mnst': did you mean mnist?",
    ("train", "--optimizer", "sgd"): "invalid value for '--optimizer': 'sgd' is not one of 'adam', 'rmsprop'.",
    ("train", "--architecture", "cn"): f"invalid value for '--architecture': 'cn' is not one of {FLOWS}.",
    ("runtime", "--architecture", "cn"): f"invalid value for '--architecture': 'cn' is not one of {FLOWS}.",
    ("runtime", "--dtype", "float16"): "invalid value for '--dtype': 'float16' is not one of 'float32',",
    ("reproduce", "tabel1-2d"): "unknown experiment 'tabel1-2d': did you mean table1-2d",
    ("reproduce", "--profile", "papre"): "invalid value for '--profile': 'papre' is not one of 'quick', 'paper'.",
    # Sizes.
    ("runtime", "--dims", "0"): "the dimension D must be at least 1",
    ("runtime", "--dims", "64,-1"): "the dimension D must be at least 1",
    ("runtime", "--layers", "0"): "layers (L) must be at least 1, not 0",
    ("runtime", "--batch", "-5"): "batch (B) must be at least 1, not -5",
    ("runtime", "--dims", str(2**70)): f"the dimension D must be at most 2147483647, not {2**70}",
    ("runtime", "--layers", "1001"): "layers (L) must be at most 1000, not 1001",
    ("train", "--batch", str(2**31)): "batch (B) must be at most 2147483647, not 2147483648",
    ("runtime", "--threads", str(2**70)): f"threads must be at most 1024, not {2**70}",
    ("runtime", "--repeats", "0"): "invalid value for '--repeats': Input should be greater than or equal to 1 (try: ",
    ("runtime", "--dims", "64,many"): "--dims takes whole numbers separated by commas, not '64,many'",
    ("runtime", "--layers", "2;3"): "--layers takes whole numbers separated by commas, not '2;3'",
    ("train", "--layers", "-2"): "layers (L) must be at least 1, not -2",
    ("train", "--batch", "0"): "batch (B) must be at least 1, not 0",
    ("train", "--epochs", "0"): "epochs must be a number above 0, not 0",
    ("train", "--draws", "0"): "invalid value for '--draws': Input should be greater than or equal to 1 (try: ",
    ("train", "--learning-rate", "nan"): "learning_rate must be a number above 0, not nan",
    ("train", "--noise", "-1"): "the noise scale must be a number above 0, not -1.0",
    ("train", "--method", "ebflow-ml", "--refresh", "5"): "ebflow-ml does the same work at every step; leave --refresh",
    ("train", "--refresh", "0"): "invalid value for '--refresh': Input should be greater than or equal to 1 (try: ",
    ("train", "--timeout", "0"): "--timeout must be a number above 0 and below 1e+09, not 0",
    ("train", "--memory", "1e300"): "--memory must be a number above 0 and below 1e+09, not 1e+300",
    ("train", "--max-seconds", "0"): "max_seconds must be a number above 0 if it is given, not 0.0",
    # Shapes.
    ("runtime", *CNN, "--dims", "36"): "cnn is timed on n x n images with n a multiple of 4, and 36 is no such D",
    ("runtime", *CNN, "--dims", "-16"): "cnn is timed on n x n images with n a multiple of 4, and -16 is no such D",
    ("runtime", *CNN, "--dims", "0"): "the dimension D must be at least 1",
    ("runtime", *CNN, "--dims", "16", "--layers", "2"): "ebflow-ml: the cnn spreads its layers over three resolutions",
    ("runtime", "--architecture", "glow", "--dims", "36"): "glow is timed on n x n images with n a multiple of 4",
    ("runtime", "--architecture", "glow", "--dims", "16", "--layers", "3"): "ebflow-ml: glow spreads its layers",
    (
        "runtime",
        "--architecture",
        "toy",
        "--dims",
        "2,1",
        "--methods",
        "ebflow-ml",
    ): "ebflow-ml: the toy flow takes vectors of at least two",
    ("train", *CNN, "--dataset", "sine"): "ebflow-dsm: a convolution takes images of shape (C, H, W)",
    ("train", "--architecture", "toy"): "ebflow-dsm: the toy flow takes vectors of at least two components",
    # What a method or the data cannot do.
    ("train", *CNN, "--method", "nflows-lu-ml"): "nflows-lu-ml has no cnn architecture, only fc",
    ("runtime", *CNN, "--methods", "nflows-lu-ml", "--dims", "16"): "nflows-lu-ml has no cnn architecture, only fc",
    ("runtime", "--methods", "gaussian"): "gaussian is fitted in closed form and has no iteration to time",
    ("runtime", "--methods", " , "): "no method named; `harness list` shows them",
    ("train", "--method", "gaussian", "--without-map"): "gaussian cannot start from raw pixels",
    ("train", "--dataset", "sine", "--without-map"): "sine has no logit preprocessing to do without",
    # Where.
    ("train", "--dataset", "mnist", "--data-dir", "nowhere"): "the data folder nowhere does not exist; make it",
    ("train", "--data-dir", "nowhere"): "the data folder nowhere does not exist; make it",
    ("list", "--data-dir", "nowhere"): "the data folder nowhere does not exist; make it",
    ("reproduce", "--data-dir", "nowhere"): "the data folder nowhere does not exist; make it",
    ("tables",): "no results in results/local or results/local/asv yet: run `harness reproduce` or `asv run` first",
    ("tables", "--json"): "no results in results/local or results/local/asv yet",
    ("tables", "--write", "--output", "x"): "--write and --output name two folders; give one of them",
    ("figures", "--write"): "no results in results/local yet: run `harness reproduce` first",
    ("figures",): "figures have to be written somewhere; give --write for the results folder, or --output FOLDER",
    ("figures", "--results-dir", "x", "--write", "--output", "y"): "--write and --output name two folders",
    ("report",): "no results in results/local or results/local/asv yet: run `harness reproduce` or `asv run` first",
    ("report", "--results-dir", "x"): "a report on x is not written into that folder unasked; give --output FILE",
    # What has no effect there is no option.
    ("runtime", "--data-dir", "x"): "no such option: --data-dir",
    ("tables", "--data-dir", "x"): "no such option: --data-dir",
    ("tables", "--threads", "1"): "no such option: --threads",
    ("list", "--seed", "1"): "no such option: --seed",
    ("reproduce", "--minutes", "0"): "--minutes must be a number above 0 and below 1e+06, not 0",
    ("reproduce", "--minutes", "9", "--executor", "processes"): "--minutes is for cells that run one by one; leave",
    ("reproduce", "--cuda-graphs"): "--cuda-graphs is for a CUDA device; add --device cuda, or leave it out",
    ("train", "--cuda-graphs"): "--cuda-graphs is for a CUDA device; add --device cuda, or leave it out",
    ("runtime", "--cuda-graphs"): "--cuda-graphs is for a CUDA device; add --device cuda, or leave it out",
    ("reproduce", "--device", "cuda", "--minutes", "9"): "CUDA was asked for, but torch finds none here; use --device",
    ("train", "--device", "cuda"): "CUDA was asked for, but torch finds none here; use --device cpu",
    ("runtime", "--device", "cuda:3"): "CUDA was asked for, but torch finds none here; use --device cpu",
    ("train", "--device", "tpu"): "'tpu' is no device; use cpu, cuda or cuda:N",
    ("reproduce", "--device", "meta"): "device 'meta' is not supported; use cpu, cuda or cuda:N",
    ("train", "--threads", "0"): "threads must be at least 1, not 0",
    ("train", "--dataset", "absent.npy"): "absent.npy: no such file; give the path of an existing .npy file",
}


def one_line(ended: Any, message: str) -> None:
    assert ended.status == 2
    assert ended.out == ""
    assert ended.err.startswith(f"harness: {message}")
    assert ended.err.count("\n") == 1
    assert ended.err.endswith("\n")


@pytest.mark.parametrize("arguments", list(BAD_INPUT), ids=" ".join)
def test_bad_input_is_one_line(arguments: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    one_line(run(*arguments), BAD_INPUT[arguments])
    assert written(Path.cwd()) == []


def spoilt(values: np.ndarray, row: int, value: float) -> np.ndarray:
    values = values.copy()
    values[row, 0] = value
    return values


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            spoilt(np.random.default_rng(0).normal(size=(20, 2)), 3, np.nan),
            "data.npy: columns with missing values (null, NaN or infinity): 0 (1 of 20, the first, nan, in row 3 ",
        ),
        (
            spoilt(np.random.default_rng(0).normal(size=(20, 2)), 4, np.inf),
            "data.npy: columns with missing values (null, NaN or infinity): 0 (1 of 20, the first, inf, in row 4 ",
        ),
        (np.ones((20, 2), bool), "data.npy: holds bool of shape (20, 2); save a 2-D array of numbers"),
        (np.ones((3, 2)), "data.npy: has shape (3, 2); save 10 rows or more"),
        (None, "data.npy: not a whole .npy file of numbers"),
    ],
)
def test_bad_data_are_one_line(content: np.ndarray | None, message: str, run: Run) -> None:
    np.save("data.npy", np.ones((20, 2)) if content is None else content)
    if content is None:
        Path("data.npy").write_bytes(Path("data.npy").read_bytes()[:-7])
    one_line(run("train", "--method", "gaussian", "--dataset", "data.npy"), message)
    assert written(Path.cwd()) == ["data.npy"]


@pytest.mark.parametrize("content", [b"", b"\0" * 5000])
def test_damaged_files_are_one_line(content: bytes, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "data" / "mnist" / "t10k-images-idx3-ubyte"
    file.parent.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", file.name):
        file.with_name(name).write_bytes(content)
    ended = run("train", "--dataset", "mnist", "--data-dir", str(tmp_path / "data"))
    one_line(ended, f"{file.with_name('train-images-idx3-ubyte')}")
    assert written(Path.cwd()) == []
    # A sweep goes on without it, and says so in its row.
    listed = run("list", "--data-dir", str(tmp_path / "data"))
    assert listed.status == 0
    assert str(file.parent) in listed.out


def test_no_network_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist = datasets.DECLARATIONS["mnist"]
    nowhere = tuple(replace(a, url=f"http://127.0.0.1:9/{Path(a.place).name}") for a in mnist.archives)
    monkeypatch.setitem(datasets.DECLARATIONS, "mnist", replace(mnist, archives=nowhere))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "data").mkdir()
    ended = run("train", "--dataset", "mnist", "--data-dir", str(tmp_path / "data"))
    one_line(ended, "could not download http://127.0.0.1:9/train-images-idx3-ubyte.gz (")
    assert "connect to the network" in ended.err
    assert written(Path.cwd()) == []


def test_a_data_folder_of_the_environment_that_does_not_exist(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA_DIR", "nowhere")
    one_line(run("list"), "the data folder nowhere does not exist")


def test_an_unavailable_method_cannot_be_trained(run: Run, with_methods: Run, fake_method: Run) -> None:
    with_methods(fake_method("gone-ml", requires=("no_such_library",)))
    reason = "no_such_library is not installed: pip install no_such_library"
    one_line(run("train", "--method", "gone-ml"), f"gone-ml is unavailable: {reason}")


def test_a_mistake_in_one_problem_of_many_is_found_before_the_first_is_timed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(RuntimeCell, "measure")
    one_line(run("runtime", *CNN, "--dims", "16", "--layers", "3,4"), "ebflow-ml: the cnn spreads its layers")
    assert written(Path.cwd()) == []


def test_the_installed_program(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("harness")
    done = subprocess.run([program, "train", "--dataset", "mnst"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("harness: unknown dataset 'mnst': did you mean mnist?")
    assert done.stderr.count("\n") == 1
    help_text = subprocess.run(
        [sys.executable, "-m", "harness.cli", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("list", "runtime", "train", "reproduce", "tables"):
        assert f" {command} " in help_text.stdout


def test_a_reader_that_goes_away_is_no_mistake(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(**options: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(cli, "app", closed)
    ended = run("list")
    assert (ended.status, ended.err) == (1, "")


def test_errors_that_are_nobody_s_input_are_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(listing, "methods_table", broken)
    with pytest.raises(ZeroDivisionError):
        run("list")
    assert issubclass(InputError, ValueError)
    assert isinstance(registry.registry().find("gaussian"), Method)


def test_a_results_folder_that_cannot_be_is_found_out_before_the_work(run: Run, monkeypatch: Any) -> None:
    Path("occupied").write_text("a file")
    monkeypatch.setattr(LikelihoodCell, "measure", lambda *_: pytest.fail("worked for nothing"))
    ended = run(*TRAINING, "--results-dir", "occupied/below")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        "harness: the results folder occupied/below cannot be written (Not a directory); choose another --results-dir\n"
    )
    assert written(Path.cwd()) == ["occupied"]


def test_layers_are_the_paper_s_unless_told(run: Run) -> None:
    rows = run(
        "runtime", "--architecture", "cnn", "--dims", "16", "--methods", "ebflow-dsm", "--repeats", "1", "--json"
    ).rows
    assert {row["L"] for row in rows} == {6}


def test_a_model_file_that_cannot_be_written_is_refused_before_the_training(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, why in [(tmp_path / "file" / "weights", "File exists|Not a directory"), (tmp_path, "it is a folder")]:
        ended = run("train", "--epochs", "1", "--save", str(path))
        assert ended.status == 2
        assert re.fullmatch(
            f"harness: the model file {path} cannot be written \\(({why})\\); choose another file\n", ended.err
        )


def test_a_dataset_may_lie_anywhere_and_be_called_anything(run: Run) -> None:
    folder = Path("a [")
    folder.mkdir()
    rows = np.random.default_rng(0).normal(size=(200, 3))
    for name in ("red] $x.npy", "../up.npy"):
        np.save(folder / name, rows)
    for name in ("a [/red] $x.npy", "a [/../up.npy"):
        ended = run("train", "--method", "ebflow-ml", "--dataset", name, "--epochs", "30")
        assert ended.status == 0
    figures = {path.name for path in Path("results/local/figures").iterdir()}
    digits = datasets.label("a [/../up.npy").rpartition("@")[2]  # the contents are equal, the names are not
    assert f"train-custom-a %5B%2F..%2Fup.npy%40{digits}-fc-nll.svg" in figures
    assert f"train-custom-a %5B%2Fred%5D %24x.npy%40{digits}-fc-nll.svg" in figures
    assert all(path.is_relative_to("results") or path.suffix == ".npy" for path in Path().rglob("*") if path.is_file())


def test_a_file_of_data_that_has_changed_is_trained_on_anew(run: Run) -> None:
    command = ("train", "--method", "gaussian", "--dataset", "data.npy", "--json")
    values = []
    for scale in (1.0, 1.0, 3.0):
        np.save("data.npy", scale * np.random.default_rng(0).normal(size=(200, 3)))
        values.append(next(row["value"] for row in run(*command).rows if row["metric"] == "nll"))
    assert values[0] == values[1]
    assert values[2] > values[0] + 1


def test_a_dataset_s_name_must_be_text(run: Run) -> None:
    np.save("\udcff.npy", np.ones((20, 2)))
    one_line(run("train", "--dataset", "\udcff.npy"), r"\udcff.npy: results cannot carry this name; rename the file")


def test_a_name_too_long_is_one_line(run: Run) -> None:
    one_line(
        run("list", "--data-dir", 300 * "x"), f"{300 * 'x'}: File name too long; make room or choose another place"
    )
