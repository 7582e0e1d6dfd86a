"""From a user's own table to a trained model, log-likelihoods and samples, as typed in a shell."""

from __future__ import annotations

import errno
import hashlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import harness
from harness import load_model
from harness.methods import registry
from harness.results import Row, to_frame
from harness.results.derived import derived

Run = Callable[..., Any]

TRAIN = ("train", "--method", "ebflow-ml", "--recipe", "tuned", "--epochs", "3")


@pytest.fixture
def table() -> pl.DataFrame:
    """A table in the working folder whose columns have far other units."""
    x = np.random.default_rng(0).normal(size=(200, 2))
    frame = pl.DataFrame({"length": 1e6 * x[:, 0] + 3, "weight": 1e-3 * np.exp(x[:, 1])})
    frame.write_csv("table.csv")
    return frame


def cell(text: str, method: str, column: str) -> str:
    """One cell of the first Markdown table in a text."""
    lines = [[part.strip() for part in line.split("|")] for line in text.splitlines() if line.startswith("|")]
    return next(dict(zip(lines[0], line, strict=True))[column] for line in lines if method in line)


def test_samples_that_rounding_has_spoilt_are_told_in_one_line(run: Run) -> None:
    options = ("--method", "ebflow-lu-ml", "--dataset", "multimodal10", "--max-seconds", "0.01", "--dtype", "float32")
    run("train", "--architecture", "multimodal", *options, "--save", "model.safetensors")
    drawn = run("sample", "model.safetensors", "-n", "5", "--output", "samples.csv")
    assert drawn.status == 0
    assert drawn.err.startswith("warning: the samples of ebflow-lu-ml are spoilt by rounding in float32: from latent")
    assert drawn.err.count("\n") == 1
    assert len(pl.read_csv("samples.csv")) == 5


def test_from_a_table_to_likelihoods_and_samples(run: Run, table: pl.DataFrame) -> None:
    trained = run(*TRAIN, "--dataset", "table.csv", "--save", "model.safetensors")
    assert trained.status == 0
    assert load_model("model.safetensors").description.columns == ("length", "weight")

    other = table.select("weight", pl.lit("a name").alias("note"), "length")
    other.write_parquet("rows.parquet")
    evaluated = run("evaluate", "model.safetensors", "--dataset", "rows.parquet", "--output", "scores.csv")
    assert (evaluated.status, evaluated.err) == (0, "")
    scores = pl.read_csv("scores.csv")["log_likelihood"].to_numpy()
    np.testing.assert_allclose(scores, load_model("model.safetensors").log_prob(table.to_numpy()), rtol=1e-6)
    mean = scores.mean()
    assert float(cell(evaluated.out, "ebflow-ml", "log-likelihood nats")) == pytest.approx(mean, rel=1e-3)
    assert float(cell(evaluated.out, "ebflow-ml", "bits/dim")) == pytest.approx(-mean / np.log(4), rel=1e-3)
    assert float(cell(evaluated.out, "ebflow-ml", "low")) < mean < float(cell(evaluated.out, "ebflow-ml", "high"))
    assert cell(evaluated.out, "ebflow-ml", "N") == "200"

    printed = run("sample", "model.safetensors", "-n", "7", "--seed", "3")
    assert printed.out.splitlines()[0] == "length,weight"
    assert run("sample", "model.safetensors", "-n", "7", "--seed", "3", "--output", "new/samples.csv").out == ""
    assert Path("new/samples.csv").read_text() == printed.out
    assert run("sample", "model.safetensors", "--output", "samples.npy").status == 0
    samples = np.load("samples.npy")
    assert samples.shape == (100, 2)
    np.testing.assert_allclose(samples[:, 0].std(), 1e6, rtol=0.5)


def test_an_unscaled_column_counts_in_its_own_units(run: Run, table: pl.DataFrame) -> None:
    (table * 1000).write_csv("thousand.csv")
    values = []
    for name in ("table.csv", "thousand.csv"):
        rows = run("train", "--method", "gaussian", "--dataset", name, "--json").rows
        values += [row["value"] for row in rows if row["metric"] == "nll"]
        assert not [row for row in rows if row["metric"] == "nll_of_draw"]  # no noise, and so no draws
    assert values[1] - values[0] == pytest.approx(2 * np.log(1000), rel=1e-4)
    assert 5 < values[0] < 15


def test_a_training_stands_beside_one_gaussian(run: Run, table: pl.DataFrame) -> None:
    skewed = table.with_columns(pl.col("weight") + 1e-7 * pl.col("length"))  # nearly the same twice
    skewed.write_csv("skewed.csv")
    worse = run("train", "--method", "ebflow-dsm", "--dataset", "skewed.csv", "--epochs", "1")
    assert worse.status == 0
    own, gaussian = (float(cell(worse.out, method, "NLL nats")) for method in ("ebflow-dsm", "gaussian"))
    assert own > gaussian
    assert "warning: ebflow-dsm is worse than one Gaussian on skewed.csv: its test NLL is " in worse.err
    assert "published" not in worse.out
    assert "| low |" not in worse.out
    better = run("train", "--method", "ebflow-ml", "--dataset", "table.csv", "--recipe", "tuned")
    assert float(cell(better.out, "ebflow-ml", "NLL nats")) < float(cell(better.out, "gaussian", "NLL nats"))
    assert "warning" not in better.err
    alone = run("train", "--method", "gaussian", "--dataset", "table.csv", "--json")
    assert {row["method"] for row in alone.rows} == {"gaussian"}
    # It is measured once: the cell beside a training is that of the Gaussian asked for by itself.
    beside = run(
        "train", "--method", "ebflow-ml", "--dataset", "table.csv", "--recipe", "paper", "--json", "--epochs", "1"
    )
    assert {row["cell"] for row in beside.rows if row["method"] == "gaussian"} == {row["cell"] for row in alone.rows}


def test_the_first_test_pass_is_evaluated_again(run: Run) -> None:
    rows = run("train", "--method", "gaussian", "--draws", "2", "--save", "digits", "--json").rows
    first = next(row["value"] for row in rows if row["metric"] == "nll_of_draw")
    assert run("evaluate", "digits", "--dataset", "digits", "--output", "scores.npy").status == 0
    assert np.load("scores.npy").shape == (300,)
    assert -np.load("scores.npy").mean() == pytest.approx(first, abs=1e-9)
    assert run("sample", "digits", "-n", "2", "--output", "images.npy").status == 0
    assert (np.load("images.npy").shape, np.load("images.npy").dtype) == ((2, 1, 8, 8), np.uint8)
    # Without MaP the logit is part of the model.
    assert run(*TRAIN[:3], "--epochs", "1", "--draws", "1", "--without-map", "--save", "raw").status == 0
    assert run("evaluate", "raw", "--dataset", "digits").status == 0


@pytest.fixture
def model(run: Run, table: pl.DataFrame) -> str:
    assert run("train", "--method", "gaussian", "--dataset", "table.csv", "--save", "m", "--quiet").status == 0
    np.save("wide.npy", np.ones((3, 4)))
    np.save("nan.npy", np.full((3, 2), np.nan))
    np.save("none.npy", np.ones((0, 2)))
    pl.DataFrame({"length": [1.0]}).write_csv("narrow.csv")
    return "m"


REFUSED = {
    ("evaluate", "absent", "--dataset", "digits"): "absent is no model that `harness train --save` wrote (No such file",
    ("evaluate", "table.csv", "--dataset", "digits"): "table.csv is no model that `harness train --save` wrote (it has",
    ("evaluate", "m", "--dataset", "digits"): "digits: the model takes samples of shape (N, 2), not (300, 1, 8, 8)",
    ("evaluate", "m", "--dataset", "wide.npy"): "wide.npy: the model takes samples of shape (N, 2), not (3, 4)",
    ("evaluate", "m", "--dataset", "nan.npy"): "nan.npy: row 0 (counting from 0) holds NaN or infinity, as do 3 of 3",
    ("evaluate", "m", "--dataset", "none.npy"): "none.npy: ",
    ("evaluate", "m", "--dataset", "narrow.csv"): "narrow.csv: has no column 'weight', only length; the colu",
    ("evaluate", "m", "--dataset", "table.csv", "--output", "s.txt"): "s.txt: results are written as .npy or .csv",
    ("evaluate", "m"): "missing option '--dataset'.",
    ("sample", "m", "--output", "s"): "s: results are written as .npy or .csv; choose one of these endings",
    ("sample", "m", "--output", "folder.npy"): "folder.npy: it is a folder; choose another file",
    ("sample", "m", "-n", "0"): "invalid value for '--number' / '-n'",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_mistakes_are_one_line(arguments: tuple[str, ...], run: Run, model: str) -> None:
    Path("folder.npy").mkdir()
    ended = run(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"harness: {REFUSED[arguments]}")
    assert ended.err.count("\n") == 1


def test_a_method_that_has_gone_is_one_line(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry.registry().methods, "gaussian")
    ended = run("sample", model)
    assert (ended.status, ended.err) == (
        2,
        "harness: m: its method gaussian is not installed here; install its package\n",
    )


def test_a_constant_column_is_named_before_the_training(run: Run, table: pl.DataFrame) -> None:
    table.with_columns(site=pl.lit(7)).write_csv("table.csv")
    ended = run(*TRAIN, "--dataset", "table.csv")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(
        "harness: table.csv: columns with one value in all rows, and so no density: 'site' (7); lea"
    )


def test_rows_without_a_finite_likelihood_are_named(run: Run, model: str) -> None:
    far = np.random.default_rng(0).normal((50, 1.7), (5, 0.1), (20, 2))
    far[3, 0] = 1e200
    np.save("far.npy", far)
    ended = run("evaluate", model, "--dataset", "far.npy")
    assert ended.status == 0
    assert "far.npy: 1 of 20 rows have no finite log-likelihood, the first in row 3 from 0 (" in ended.err


def test_a_file_of_another_kind_is_told(run: Run) -> None:
    np.savez("x.npz", x=np.ones((20, 2)))
    ended = run("train", "--dataset", "x.npz")
    told = "harness: x.npz: a file of this kind is not read; write it as .npy, .csv, .parquet, .feather, .arrow\n"
    assert ended == (2, "", told)


@pytest.mark.parametrize("name", ["plain", "a,b", " spaced ", "it's", "$HOME `x`"])
def test_columns_are_named_as_a_shell_takes_them(name: str, run: Run) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    pl.DataFrame({name: x[:, 0], "other": x[:, 1], "site": 7}).write_csv("names.csv")
    refused = run("train", "--method", "gaussian", "--dataset", "names.csv")
    assert refused.status == 2
    hint = shlex.split(refused.err.rpartition("problem: ")[2])
    ended = run("train", "--method", "gaussian", "--dataset", "names.csv", *hint, "--json", "-q")
    assert ended.status == 0
    row = next(row for row in ended.rows if row["metric"] == "nll")
    assert json.loads(row["config"])["settings"]["columns"] == [name, "other"]
    # The command that makes the row again reads the same columns.
    again = shlex.split(derived(to_frame([Row(**row)]))["command"].item())
    assert again.pop(0) == "harness"
    assert run(*again, "--json").rows[0]["cell"] == row["cell"]


def test_two_files_of_one_name_are_two_data_sets(run: Run) -> None:
    seen = {}
    for seed in (0, 1):
        table = np.random.default_rng(seed).normal(size=(40, 2))
        np.save("x.npy", table)
        for columns in ((), ("--columns", "0"), ("--columns", "1")):
            rows = run("train", "--method", "gaussian", "--dataset", "x.npy", *columns, "--json", "-q").rows
            seen[seed, columns] = {row["dataset"] for row in rows if row["metric"] == "nll"}
    names = [name for (name,) in seen.values()]
    assert len(set(names)) == 6
    assert names[3] == f"x.npy@{hashlib.sha256(Path('x.npy').read_bytes()).hexdigest()[:8]}"
    shown = run("results", "show", "--dataset", "x.npy", "--metric", "nll")
    assert "6 rows of 6 cells" in shown.out
    assert all(name in shown.out for name in names)
    assert "1 rows of 1 cells" in run("results", "show", "--dataset", names[2], "--metric", "nll").out


def test_the_split_of_a_table_is_the_same_for_every_seed(run: Run, table: pl.DataFrame) -> None:
    values = set()
    for seed in ("0", "7"):
        rows = run("train", "--method", "gaussian", "--dataset", "table.csv", "--seed", seed, "--json", "-q").rows
        values.add(next(row["value"] for row in rows if row["metric"] == "nll"))
    assert len(values) == 1  # a closed form has nothing else that a seed changes
    array = table.to_numpy()
    assert len({harness.fit(array, "gaussian", seed=seed).log_prob(array)[0] for seed in (0, 7)}) == 1


def test_the_number_format_is_the_recipe_s_and_a_metric_fails_alone(run: Run) -> None:
    rows = run("train", "--dataset", "multimodal10", "--method", "gaussian", "--json", "-q").rows
    told = {row["metric"]: row for row in rows}
    assert {row["dtype"] for row in rows} == {"float64"}
    assert told["kl"]["value"] > 0
    ended = run("train", "--dataset", "multimodal10", "--method", "gaussian", "--dtype", "float32", "--save", "m", "-q")
    assert ended.status == 0
    assert "warning: gaussian on multimodal10: kl failed: its kl is -inf" in ended.err
    assert harness.load_model("m").description.problem.dtype == "float32"
    nll = next(row for row in run("results", "show", "--metric", "nll", "--json").rows if row["dtype"] == "float32")
    assert nll["status"] == "ok"
    assert nll["value"] == pytest.approx(told["nll"]["value"], rel=1e-5)


def test_a_training_without_a_score_is_a_failure_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("a driver")

    monkeypatch.setattr("harness.cells.likelihood.nll_of_test_set", fail)
    ended = run("train", "--method", "ebflow-ml", "--epochs", "1", "--draws", "1")
    assert ended.status == 1
    assert "failed: RuntimeError: a driver" in ended.err
    kept = run("results", "show", "--method", "ebflow-ml", "--metric", "validation_nll", "--json").rows
    assert [row["status"] for row in kept] == ["ok"]


def test_a_model_that_is_not_saved_is_status_1_with_its_results_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("harness.cells.likelihood.write_model", full)
    ended = run("train", "--method", "gaussian", "--draws", "1", "--save", "m", "-q")
    assert ended.status == 1
    assert "saved_model failed: OSError: [Errno 28] No space left on device" in ended.err
    assert run("results", "show", "--metric", "nll", "--json").rows[0]["status"] == "ok"
