"""From a user's mixed table to a trained model, as typed in a shell: what is said of it, and its NLL."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from harness import load_model
from harness.datasets import read_rows
from harness.datasets.preprocessing import Standardize

Run = Callable[..., Any]

N = 600


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """A table of all kinds of columns, `mine.csv` in the working folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 5))
    frame = pl.DataFrame(
        {
            "name": [f"person {n}" for n in range(N)],
            "member": rng.random(N) < 0.3,
            "height": 1.7 + 0.1 * x[:, 0],
            "age": rng.integers(18, 90, N),
            "income": np.where(rng.random(N) < 0.05, np.nan, 30_000 * np.exp(x[:, 1])),
            "site": np.full(N, 7),
            "inches": (1.7 + 0.1 * x[:, 0]) * 39.37,
            "seen": 1.7e9 + 20 * x[:, 2],
            "price": np.round(20 * np.exp(0.4 * x[:, 3]), 1),
        }
    ).with_columns(day=pl.lit("2026-11-28").str.to_date())
    frame.with_columns(pl.col("income").fill_nan(None)).write_csv("mine.csv")
    return frame


def test_a_mixed_table_says_which_columns_can_be_used(run: Run, mixed: pl.DataFrame) -> None:
    ended = run("train", "--method", "gaussian", "--dataset", "mine.csv")
    missing = mixed["income"].to_numpy()
    first, lost = np.flatnonzero(np.isnan(missing))[0], np.isnan(missing).sum()
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.splitlines() == [
        "mine.csv: columns that hold no numbers are left out: 'name' (String), 'member' (Boolean), 'day' (String)",
        "mine.csv: columns of whole or rounded numbers, which have no density: 'age' (width 1), 'price' (width 0.1); "
        "uniform noise of that width is added, and --no-dequantize leaves it out",
        f"mine.csv: columns with missing values (null, NaN or infinity): 'income' ({lost} of 600, the first, nan, in "
        f"row {first} from 0); drop these rows, fill them, or leave the columns out",
        "mine.csv: columns with one value in all rows, and so no density: 'site' (7); leave them out",
        "harness: mine.csv: columns that other columns determine, so that there is no density: 'inches' (from "
        "'height'); leave them out; the columns without such a problem: --columns height,age,seen,price",
    ]

    named = run(
        "train",
        "--method",
        "gaussian",
        "--dataset",
        "mine.csv",
        "--columns",
        "height,age,seen,price",
        "--save",
        "m",
        "--json",
    )
    assert named.status == 0
    model = load_model("m")
    assert model.description.columns == ("height", "age", "seen", "price")
    assert model.description.preprocessing.width == (0, 1, 0, 0.1)
    assert len({row["value"] for row in named.rows if row["metric"] == "nll_of_draw"}) == 10, "noise is fresh"

    evaluated = run("evaluate", "m", "--dataset", "mine.csv", "--output", "scores.npy")
    assert (evaluated.status, evaluated.err) == (0, "")
    np.save("rows.npy", mixed.select("height", "age", "seen", "price").to_numpy())
    assert run("evaluate", "m", "--dataset", "rows.npy", "--output", "same.npy").status == 0
    np.testing.assert_array_equal(np.load("scores.npy"), np.load("same.npy"))
    assert run("sample", "m", "-n", "50", "--output", "samples.csv").status == 0
    samples = pl.read_csv("samples.csv")
    assert samples.columns == ["height", "age", "seen", "price"]
    assert (samples["age"] == samples["age"].round()).all()
    np.testing.assert_allclose(samples["price"], samples["price"].round(1), rtol=1e-12)
    assert 10 < samples["seen"].std() < 30, "float32 would round to steps of 128 s"


def test_the_nll_of_large_offsets_is_that_of_their_density(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    """Standardised in float64, columns that float32 cannot resolve lose nothing in a float32 model."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    mean, scale = np.array([3e7, 1.7e9, 0]), np.array([1, 20, 1e200])
    np.save("t.npy", mean + scale * rng.normal(size=(4000, 3)))
    assert run("train", "--method", "gaussian", "--dataset", "t.npy", "--save", "m", "--json").status == 0
    rows = read_rows(Path("t.npy"))[0]
    z = (rows - mean) / scale
    truth = -(0.5 * z**2 + 0.5 * math.log(2 * math.pi) + np.log(scale)).sum(1)
    values = load_model("m").test_densities(torch.from_numpy(rows)).numpy()
    assert values.mean() == pytest.approx(truth.mean(), abs=0.01)  # nine numbers are fitted to 3,200 rows
    assert values.mean() - truth.mean() < 9 / 3200

    refused = run("train", "--method", "gaussian", "--dataset", "t.npy", "--no-standardize")
    assert refused.status == 2
    assert refused.err.startswith("harness: t.npy: columns that float32 cannot resolve: 0 (numbers up to 3e+07, mean d")
    assert "leave --no-standardize out, or use --dtype float64" in refused.err
    kept = run(
        "train", "--method", "gaussian", "--dataset", "t.npy", "--no-standardize", "--dtype", "float64", "--columns"
    )
    assert kept.status == 2  # an option without its value
    options = ("--no-standardize", "--dtype", "float64", "--columns", "0,1", "--save", "raw", "--json")
    assert run("train", "--method", "gaussian", "--dataset", "t.npy", *options).status == 0
    assert load_model("raw").description.preprocessing != load_model("m").description.preprocessing
    both = -(0.5 * z**2 + 0.5 * math.log(2 * math.pi) + np.log(scale))[:, :2].sum(1)
    raw = load_model("raw").test_densities(torch.from_numpy(rows[:, :2])).numpy()
    assert raw.mean() == pytest.approx(both.mean(), abs=0.01)


def test_the_nll_of_whole_numbers_bounds_that_of_their_probability(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    numbers = rng.binomial(100, 0.5, size=(4000, 2))
    np.save("t.npy", numbers)
    rows = run("train", "--method", "gaussian", "--dataset", "t.npy", "--json", "--draws", "2").rows
    nll = next(row["value"] for row in rows if row["metric"] == "nll" and row["method"] == "gaussian")
    share = np.array([math.comb(100, k) / 2.0**100 for k in range(101)])
    entropy = -2 * (share * np.log(np.maximum(share, 1e-300))).sum()
    assert entropy - 0.1 < nll < entropy + 0.1
    spiky = run("train", "--method", "gaussian", "--dataset", "t.npy", "--no-dequantize", "--quiet")
    assert spiky.status == 0
    assert (
        "t.npy: warning: columns of whole or rounded numbers, which have no density: 0 (width 1), 1 (wid" in spiky.err
    )
    assert (
        "tuned, not dequantised"
        in run(
            "train", "--method", "gaussian", "--dataset", "t.npy", "--no-dequantize", "--recipe", "tuned", "--quiet"
        ).out
    )


def test_few_rows_are_handled_or_refused(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("few.npy", np.random.default_rng(0).normal(size=(20, 16)))
    ended = run("train", "--method", "ebflow-ml", "--dataset", "few.npy")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "harness: few.npy: 16 training rows for 16 columns; give more rows, or fewer columns\n"
    options = ("--columns", "0,3,5", "--epochs", "2", "--recipe", "tuned")
    ended = run("train", "--method", "ebflow-ml", "--dataset", "few.npy", *options)
    assert ended.status == 0
    assert ended.err.startswith("few.npy: a step takes all 16 training rows, fewer than the batch size ")
    assert "columns 0+3+5" in ended.out


def test_rows_in_other_units_are_noticed(run: Run, mixed: pl.DataFrame) -> None:
    options = ("--columns", "height,seen", "--save", "m", "--quiet")
    assert run("train", "--method", "gaussian", "--dataset", "mine.csv", *options).status == 0
    mixed.with_columns(pl.col("height") * 100).write_csv("cm.csv")
    ended = run("evaluate", "m", "--dataset", "cm.csv")
    assert ended.status == 0
    assert ended.err == (
        "warning: cm.csv: most rows lie more than 10 standard deviations of the training data from their mean in "
        "columns 'height'; compare the units\n"
    )


def test_columns_are_those_of_a_file(run: Run, mixed: pl.DataFrame) -> None:
    ended = run("train", "--dataset", "digits", "--columns", "a")
    assert ended.err == "harness: digits has no columns to choose; --columns is for the path of a file\n"
    ended = run("train", "--dataset", "mine.csv", "--columns", "age, name")
    assert ended.err == "harness: mine.csv: column 'name' holds String, not numbers; leave it out or encode it\n"


def test_the_noise_comes_back_from_a_file(run: Run, mixed: pl.DataFrame) -> None:
    mixed.select("age", "height").write_parquet("t.parquet")
    assert run("train", "--method", "gaussian", "--dataset", "t.parquet", "--save", "m", "--quiet").status == 0
    preprocessing = load_model("m").description.preprocessing
    assert isinstance(preprocessing, Standardize)
    assert (preprocessing.width, preprocessing.origin[0]) == ((1, 0), 18)
