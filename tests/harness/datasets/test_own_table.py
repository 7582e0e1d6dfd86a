"""A user's own table: its columns, the noise of rounded ones, and what is said of a table without a density."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from harness import datasets
from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import GaussianNoise, Identity, LogitPreprocessing, Standardize
from harness.datasets.table_checks import _FLOAT64, _OFFSET, _OUTLIERS, check_samples, check_table, step
from harness.errors import InputError

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(200, 4))


@pytest.mark.parametrize(
    ("values", "width"),
    [
        (np.array([3.0, 5.0, 6.0, 11.0] * 5), 1.0),
        (np.arange(20.0), 1.0),
        (1_700_000_017 + 60.0 * RNG.integers(0, 1000, 50), 60.0),
        (np.round(RNG.normal(size=2000), 2), 0.01),
        (np.round(RNG.normal(size=2000), 2).astype("f4").astype(float), 0.01),
        (RNG.integers(-9, 9, 200) / 4, 0.25),
        (np.round(RNG.normal(size=50), 6), 0.0),  # no two are equal
        (RNG.normal(size=200), 0.0),
        (3e7 + RNG.normal(size=200), 0.0),
        (1e200 * RNG.normal(size=200), 0.0),
        (1e-200 * RNG.normal(size=200), 0.0),
        (1.7e9 + 128 * RNG.integers(0, 3, 90), 128.0),
        (RNG.normal(size=5)[RNG.integers(0, 5, 90)], 0.0),  # few values, on no common step
        (np.full(9, 7.0), 0.0),
    ],
)
def test_the_step_of_a_column(values: np.ndarray, width: float) -> None:
    assert step(values) == pytest.approx(width)


def test_noise_of_rounded_columns_is_fresh_and_one_step_wide() -> None:
    raw = torch.from_numpy(np.stack([NORMAL[:, 0], 5.0 * RNG.integers(0, 9, 200) + 2, RNG.integers(0, 3, 200)], 1))
    table = Dataset("t", (3,), raw[:160], raw[160:180], raw[180:], Identity())
    preprocessing = datasets.standardized(datasets.dequantized(table)).preprocessing
    assert isinstance(preprocessing, Standardize)
    assert preprocessing.width == (0, 5, 1)
    generator = torch.Generator().manual_seed(0)
    draws = [preprocessing(raw, generator, torch.float64) for _ in range(2)]
    for x, ladj in draws:
        data = preprocessing.inverse(x)
        noise = (data - raw) / torch.tensor([1.0, 5.0, 1.0])
        assert noise[:, 0].abs().max() < 1e-12
        assert -1e-12 < noise[:, 1:].min() < 0.05
        assert 0.95 < noise[:, 1:].max() < 1
        torch.testing.assert_close(ladj, torch.full_like(ladj, -sum(map(math.log, preprocessing.scale))))
        jacobian = torch.autograd.functional.jacobian(lambda v: preprocessing._transform(v)(v), data[0])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], ladj[0])
        torch.testing.assert_close(preprocessing.rounded(data), raw)
        assert x[:160].mean(0).abs().max() < 0.1
        torch.testing.assert_close(x[:160].std(0), torch.ones(3, dtype=torch.float64), atol=0.05, rtol=0)
    assert not torch.equal(draws[0][0][:, 1:], draws[1][0][:, 1:])
    plain = replaced(table, raw[:, :1])
    assert datasets.dequantized(plain) is plain


def replaced(table: Dataset, raw: torch.Tensor) -> Dataset:
    return Dataset("t", raw.shape[1:], raw, raw, raw, table.preprocessing)


def test_the_noise_of_a_table_is_checked() -> None:
    for width, origin in (((1.0,), (0.0,)), ((1.0, -1.0), (0.0, 0.0)), ((1.0, 1.0), ())):
        with pytest.raises(InputError, match=r"one width of at least 0 and one origin"):
            Standardize((0.0, 0.0), (1.0, 1.0), width, origin)


def checked(array: Any, names: tuple[str, ...] = (), rows: int = 160, **options: bool) -> Any:
    return check_table(
        np.asarray(array), names, rows, **{"standardize": True, "dequantize": True, "float32": True, **options}
    )


def test_a_good_table_has_nothing_to_be_said() -> None:
    problems, notes, sound = checked(NORMAL * [1, 1e200, 1e-200, 1] + [3e7, 0, 0, 1.7e9])
    assert (problems, notes, sound) == ([], [], [0, 1, 2, 3])


def test_every_kind_of_problem_is_one_line() -> None:
    array = np.column_stack([NORMAL, np.full(200, 7), NORMAL[:, 1], NORMAL[:, 0] - 2 * NORMAL[:, 3], NORMAL[:, 2]])
    array[[5, 9], 0], array[3, 7] = np.nan, np.inf
    problems, _, sound = checked(array, ("a", "b", "c", "d", "e", "f", "g", "h"))
    assert problems == [
        "columns with missing values (null, NaN or infinity): 'a' (2 of 200, the first, nan, in row 5 from 0), 'h' (1"
        " of 200, the first, inf, in row 3 from 0); drop these rows, fill them, or leave the columns out",
        "columns with one value in all rows, and so no density: 'e' (7); leave them out",
        "columns that other columns determine, so that there is no density: 'f' (equal to 'b'); leave them out",
    ]
    assert sound == [1, 2, 3, 6]
    array[[5, 9], 0] = NORMAL[[5, 9], 0]
    assert "5 (equal to 1), 6 (from 0, 3); leave" in checked(array)[0][-1]
    assert checked(NORMAL, rows=4)[0] == ["4 training rows for 4 columns; give more rows, or fewer columns"]


def test_a_column_that_is_nearly_another_is_its_own() -> None:
    assert checked(np.column_stack([NORMAL, NORMAL[:, 0] + 1e-3 * RNG.normal(size=200)]))[0] == []
    assert len(checked(np.column_stack([NORMAL, NORMAL[:, 0] + 1e-7 * RNG.normal(size=200)]))[0]) == 1


@pytest.mark.parametrize(
    ("column", "resolved"),
    [
        (3e7 + NORMAL[:, 0], False),
        (1e200 * NORMAL[:, 0], False),
        (1e-200 * NORMAL[:, 0], False),
        (1e3 + NORMAL[:, 0], True),
    ],
)
def test_what_float32_cannot_resolve_needs_a_standardisation(column: np.ndarray, resolved: bool) -> None:
    array = np.column_stack([NORMAL[:, 1], column])
    problems = checked(array, ("a", "b"), standardize=False)[0]
    assert [text.split(" (")[0] for text in problems] == (
        [] if resolved else ["columns that float32 cannot resolve: 'b'"]
    )
    squared = 1e-150 < np.abs(column).mean() < 1e150  # others overflow, or are zero
    alone = checked(array, ("a", "b"), standardize=False, float32=False)[0]
    assert [text.split(" (")[0] for text in alone] == ([] if squared else [f"columns {_FLOAT64}: 'b'"])
    assert checked(array)[0] == []


@pytest.mark.parametrize(
    ("column", "float32", "reason"),
    [
        (1e15 + NORMAL[:, 0], False, _OFFSET),
        (1.7e12 + 15_000 * NORMAL[:, 0], True, ""),  # milliseconds of a minute
        (1e-322 * NORMAL[:, 0], True, _OFFSET),
        (1e-310 * NORMAL[:, 0], True, ""),
        ((2**60 + np.arange(200)).astype(np.float64), True, _OFFSET),
        (np.full(200, 2.0**63), True, _OFFSET),  # which 2^63 and 2^63 + 1 are both
        (np.r_[NORMAL[1:, 0], 1e12], True, _OUTLIERS),
        (np.r_[NORMAL[1:, 0], 1e12], False, ""),
        (np.r_[NORMAL[1:, 0], 1e4], True, ""),
        (np.exp(3 * NORMAL[:, 0]), True, ""),
    ],
)
def test_what_no_standardisation_resolves_is_refused(column: np.ndarray, float32: bool, reason: str) -> None:
    problems = checked(np.column_stack([NORMAL[:, 1], column]), ("a", "b"), float32=float32)[0]
    assert [text.split(" (")[0] for text in problems] == ([f"columns {reason}: 'b'"] if reason else [])


def images() -> Dataset:
    levels = torch.full((20, 1, 2, 2), 3, dtype=torch.float64)
    return Dataset("mine", (1, 2, 2), levels, levels, levels, LogitPreprocessing(17))


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 17.0, 2.5])
def test_a_pixel_that_is_no_grey_level_is_named(part: str, value: float) -> None:
    check_samples(images(), True)  # a pixel of one level has a density, by its noise
    bad = getattr(images(), part).clone()
    bad[7, 0, 1, 0] = value
    message = f"^mine: the {part} part holds {value:g}, not a grey level, .* in sample 7 at 0, 1, 0,"
    with pytest.raises(InputError, match=message):
        check_samples(replace(images(), **{part: bad}), True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, 0].fill_(7), r"one value in all rows, and so no density: 0 \(7\)"),
        (lambda x: x[:, 2].copy_(x[:, 1]), r"other columns determine, so that there is no density: 2 \(equal to 1\)"),
        (lambda x: x[:, 1].add_(3e7), r"float32 cannot resolve: 1 \(numbers up to 3e\+07, mean deviation 0\.\d+\)"),
        (lambda x: x[4, 3].fill_(float("nan")), "the train part holds nan, not a finite number, in sample 4 at 3,"),
    ],
)
def test_columns_of_a_dataset_made_in_python_are_checked(change: Any, message: str) -> None:
    table = torch.from_numpy(NORMAL.copy())
    mine = Dataset("mine", (4,), table, table[:10].clone(), table[:10].clone(), Identity())
    check_samples(mine, True)
    change(mine.train)
    with pytest.raises(InputError, match=f"^mine: .*{message}"):
        check_samples(mine, True)
    if "nan" not in message:  # noise gives them a density
        check_samples(replace(mine, preprocessing=GaussianNoise(0.1)), True)


def test_notes_name_rounded_columns_spikes_and_copies() -> None:
    spiky = np.where(NORMAL[:, 0] < 0, 0, NORMAL[:, 0])
    share = (spiky == 0).mean()
    array = np.column_stack([NORMAL[:, 1], RNG.integers(0, 90, 200), spiky])
    noted = checked(array, ("a", "age", "rain"))[1]
    assert noted == [
        "columns of whole or rounded numbers, which have no density: 'age' (width 1); uniform noise of that width is "
        "added, and --no-dequantize leaves it out",
        f"warning: columns that repeat values, where a density has spikes: 'rain' ({share:.0%} are 0); their NLL can "
        "fall without limit, so leave them out",
    ]
    assert checked(array, dequantize=False)[1][0].startswith("warning: columns of whole or rounded numbers, which h")
    array = NORMAL.copy()
    array[100:110] = array[:10]
    assert checked(array)[1][0].startswith("warning: 10 of 200 rows repeat another row")
    assert len(checked(RNG.integers(0, 2, size=(200, 2)))[1]) == 1, "whole numbers repeat anyway"


FRAME = pl.DataFrame({"word": ["a", "b"] * 100, **{name: NORMAL[:, n] for n, name in enumerate("abcd")}})


@pytest.mark.parametrize("suffix", ["csv", "parquet", "feather", "arrow"])
def test_columns_of_numbers_are_used_or_those_that_are_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{suffix}"
    getattr(FRAME, f"write_{suffix if suffix in ('csv', 'parquet') else 'ipc'}")(path)
    every, some = datasets.load(str(path)), datasets.load(str(path), columns=("d", "a"))
    assert (every.columns, some.columns) == (("a", "b", "c", "d"), ("d", "a"))
    assert torch.equal(some.train, every.train[:, [3, 0]]), "the split is that of the rows"
    assert datasets.shape(str(path), ("d", "a")) == (2,)
    assert datasets.read_rows(path)[2] == ["'word' (String)"]
    for columns, message in (
        (("a", "word"), "column 'word' holds String, not numbers; leave it out or encode it"),
        (("a", "x"), "has no column 'x', only word, a, b, c, d; the columns must be a, x"),
        (("a", "a"), "a column is asked for twice; the columns must differ, not a, a"),
    ):
        with pytest.raises(InputError) as caught:
            datasets.load(str(path), columns=columns)
        assert str(caught.value) == f"{path}: {message}"


def test_columns_without_names_have_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", NORMAL.astype("f4"))
    pl.DataFrame(NORMAL.astype("f4").astype(float)).write_csv(tmp_path / "t.csv", include_header=False)
    for name in ("t.npy", "t.csv"):
        data = datasets.load(str(tmp_path / name), columns=("3", "1"))
        assert (data.columns, data.train.dtype) == (("3", "1"), torch.float64)
        assert torch.equal(data.train, datasets.load(str(tmp_path / name)).train[:, [3, 1]])
        rows, _, _ = datasets.read_rows(tmp_path / name, ("income", "age"))
        assert rows.shape == (200, 4), "the columns of a model, which the file does not name"
        for columns, message in (
            (("a",), "has no names of columns; give the num"),
            (("4",), "has no column '4', only 0"),
        ):
            with pytest.raises(InputError, match=message):
                datasets.load(str(tmp_path / name), columns=columns)


def test_words_for_no_number_are_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "1.5,NA\n2.5,0.5\n" * 10)
    rows, names, left_out = datasets.read_rows(tmp_path / "t.csv", finite=False)
    assert (names, left_out, np.isnan(rows).sum(0).tolist()) == (("a", "b"), [], [0, 10])
    assert datasets.load(str(tmp_path / "t.csv"), columns=("a",)).shape == (1,)
    with pytest.raises(InputError, match=r"row 0 \(counting from 0\) holds NaN"):
        datasets.load(str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("name", "start", "separator", "header"),
    [
        ("bom.csv", "\ufeff", ",", None),
        ("bom.csv", "\ufeff", ",", "a,b"),
        ("spaces.csv", "", ", ", "a, b"),
        ("semicolons.csv", "", ";", "a;b"),
        ("tabs.csv", "", "\t", None),
        ("CAPITALS.CSV", "", ",", "a,b"),
        ("quoted.csv", "", ",", '"a","b"'),
    ],
)
def test_tables_as_spreadsheets_write_them(
    name: str, start: str, separator: str, header: str | None, tmp_path: Path
) -> None:
    numbers = NORMAL[:20, :2].round(3)
    lines = [separator.join(map(str, row)) for row in numbers.tolist()]
    (tmp_path / name).write_text(start + "\n".join([*([header] if header else []), *lines]), encoding="utf-8")
    assert datasets.load(str(tmp_path / name)).shape == (2,)
    rows, names, left_out = datasets.read_rows(tmp_path / name)
    np.testing.assert_array_equal(rows, numbers)
    assert (names, left_out) == (("a", "b") if header else (), [])


def test_words_between_spaces_stay_words(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a, b, c\n" + "1.5, x, NA\n2.5, 3, 0.5\n" * 10)
    rows, names, left_out = datasets.read_rows(tmp_path / "t.csv", finite=False)
    assert (names, left_out) == (("a", "c"), ["'b' (String)"])
    assert np.isnan(rows).sum(0).tolist() == [0, 10]
