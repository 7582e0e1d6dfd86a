"""The tabular sets: small files of the published layout, read bit for bit as plain Python reads them by the recipe."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
import pickle
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from harness import datasets
from harness.datasets.dataset import Dataset, Declaration, describe
from harness.datasets.files import Archive, PublishedFile, PublishedSet
from harness.datasets.image_sets import FASHION_MNIST, MNIST
from harness.datasets.preprocessing import Identity
from harness.datasets.tabular import TABULAR
from harness.errors import InputError

Rows = list[list[float]]
Parts = tuple[Rows, Rows, Rows]
PUBLISHED = {declaration.name: declaration for declaration in TABULAR}
RANDOM = np.random.default_rng(7)


def refusal(declaration: Declaration, folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        declaration.load(folder, 0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The recipes, sample by sample and in plain Python: only NumPy's old generator is needed for its draws.


def moments(column: list[float], less: int) -> tuple[float, float]:
    mean = math.fsum(column) / len(column)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in column) / (len(column) - less))


def standardised(rows: Rows, by: Rows, less: int) -> Rows:
    known = [moments([row[number] for row in by], less) for number in range(len(by[0]))]
    return [[(value - mean) / std for value, (mean, std) in zip(row, known, strict=True)] for row in rows]


def tenth(rows: Rows) -> tuple[Rows, Rows]:
    last = int(0.1 * len(rows))
    return rows[:-last], rows[-last:]


def by_all_but_test(rows: Rows) -> Parts:
    rest, test = tenth(rows)
    training, validation = tenth(rest)
    return standardised(training, rest, 0), standardised(validation, rest, 0), standardised(test, rest, 0)


def plain_power(rows: Rows) -> Parts:
    generator = np.random.RandomState(42)
    order = list(range(len(rows)))
    generator.shuffle(order)
    kept = [[rows[number][column] for column in (0, 2, 4, 5, 6, 7)] for number in order]
    voltage = [generator.random_sample() for _ in kept]
    gap = [generator.random_sample() for _ in kept]
    meters = [[generator.random_sample() for _ in range(3)] for _ in kept]
    noisy = [
        [row[0] + 0.001 * g, row[1] + 0.01 * v, row[2] + m[0], row[3] + m[1], row[4] + m[2], row[5]]
        for row, v, g, m in zip(kept, voltage, gap, meters, strict=True)
    ]
    return by_all_but_test(noisy)


def correlation(a: list[float], b: list[float]) -> float:
    (mean_a, std_a), (mean_b, std_b) = moments(a, 0), moments(b, 0)
    return math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True)) / len(a) / std_a / std_b


def plain_gas(text: str) -> Parts:
    rows = [[float(word) for word in line.split()] for line in text.splitlines()[1:]]
    order = np.random.RandomState(42).permutation(len(rows)).tolist()
    rows = [rows[number][3:] for number in order[: len(rows) // 4]]
    columns = [list(column) for column in zip(*rows, strict=True)]

    def first_repeated() -> int | None:
        for number, column in enumerate(columns):
            if sum(correlation(column, other) > 0.98 for other in columns) > 1:
                return number
        return None

    while (number := first_repeated()) is not None:
        del columns[number]
    rows = [list(row) for row in zip(*columns, strict=True)]
    rest, test = tenth(standardised(rows, rows, 1))
    return (*tenth(rest), test)


def plain_hepmass(training: str, test: str) -> Parts:
    def signal(text: str, width: int) -> Rows:
        lines = list(csv.reader(io.StringIO(text)))[1:]
        return [[float(word) for word in line[1 : 1 + width]] for line in lines if float(line[0]) == 1]

    width = len(training.splitlines()[0].split(",")) - 1
    rows, test_rows = signal(training, width), signal(test, width)
    test_rows, rows = standardised(test_rows, rows, 1), standardised(rows, rows, 1)
    counts = [Counter(row[number] for row in rows) for number in range(width)]
    kept = [number for number, count in enumerate(counts) if count[min(count)] <= 5]
    rows, test_rows = ([[row[number] for number in kept] for row in part] for part in (rows, test_rows))
    return (*tenth(rows), test_rows)


# Files of the published layout.


def power_rows() -> np.ndarray:
    return np.round(RANDOM.normal(5, 2, (203, 8)), 3)


def gas_text() -> str:
    """Sixteen sensors: of four groups all but the last one repeat it, and two others have a correlation of 0.9."""
    base = RANDOM.normal(size=(840, 10))
    base[:, 9] = 0.9 * base[:, 8] + math.sqrt(1 - 0.81) * base[:, 9]
    sensors = np.column_stack([base[:, [0, 1, 0, 2, 1, 3, 4, 0, 5, 6]], base[:, [4, 7, 8, 9]], base[:, [7, 7]]])
    sensors = 100 * (sensors + 0.01 * RANDOM.normal(size=sensors.shape)) + 50
    times = 0.01 * np.arange(len(sensors))[:, None]
    gases = RANDOM.integers(0, 3, (len(sensors), 2)) * 100.0
    lines = ["   ".join(f"{value:.2f}" for value in line) for line in np.hstack([times, gases, sensors])]
    return "\n".join(["Time (seconds), CO conc (ppm), Ethylene conc (ppm), sensor readings (16 channels)", *lines, ""])


def hepmass_texts() -> tuple[str, str]:
    """Six features: the first has few values, the second repeats its smallest six times, the third its largest."""

    def rows(count: int) -> np.ndarray:
        label = RANDOM.integers(0, 2, count)
        features = RANDOM.normal(size=(count, 6))
        features[:, 0] = RANDOM.integers(0, 2, count)
        features[np.flatnonzero(label)[:6], 1] = -9
        features[np.flatnonzero(label)[:30], 2] = 9
        return np.column_stack([label, features])

    names = ["# label", *(f"f{number}" for number in range(6))]
    lines = [[f"{value:.18e}" for value in row] for row in rows(150)]
    test_lines = [[f"{value:.18e}" for value in row] for row in rows(80)]
    # The published test file has a column too much; its lines may be shorter or longer than its header.
    test_lines = [[*line, *["1000.0"] * (number % 3)] for number, line in enumerate(test_lines)]
    training = "\n".join(",".join(line) for line in [names, *lines])
    return training, "\n".join(",".join(line) for line in [[*names, "mass"], *test_lines])


def written(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def hdf5(path: Path, **parts: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, part in parts.items():
            file[name] = part
    return path


def assert_is(dataset: Dataset, expected: Parts) -> None:
    assert dataset.preprocessing == Identity()
    for part, rows in zip((dataset.train, dataset.validation, dataset.test), expected, strict=True):
        assert part.dtype == torch.float32
        assert part.shape[1:] == dataset.shape
        assert torch.equal(part, torch.tensor(rows, dtype=torch.float64).float())


def test_power(tmp_path: Path) -> None:
    rows = power_rows()
    written(tmp_path / "maf/power/data.npy", npy(rows))
    power = replace(PUBLISHED["power"], splits=(165, 18, 20))
    assert power.why_unavailable(tmp_path) is None
    assert_is(power.load(tmp_path, 0), plain_power(rows.tolist()))


def test_miniboone(tmp_path: Path) -> None:
    rows = RANDOM.gamma(2, 3, (120, 43))
    written(tmp_path / "maf/miniboone/data.npy", npy(rows))
    assert_is(replace(PUBLISHED["miniboone"], splits=(98, 10, 12)).load(tmp_path, 0), by_all_but_test(rows.tolist()))


def test_hepmass(tmp_path: Path) -> None:
    texts = hepmass_texts()
    for name, text in zip(("1000_train", "1000_test"), texts, strict=True):
        written(tmp_path / f"maf/hepmass/{name}.csv", text.encode())
    expected = plain_hepmass(*texts)
    assert len(expected[0][0]) == 4, "two of six features repeat their smallest value"
    hepmass = replace(PUBLISHED["hepmass"], shape=(4,), splits=tuple(map(len, expected)))
    assert_is(hepmass.load(tmp_path, 0), expected)
    written(tmp_path / "maf/hepmass/1000_test.csv", texts[0].encode())  # it has no column too much
    assert "1000_test.csv: has other columns than 1000_train.csv" in refusal(hepmass, tmp_path)


def test_gas(tmp_path: Path) -> None:
    text = gas_text()
    written(tmp_path / "maf/gas/ethylene_CO.txt", text.encode())
    expected = plain_gas(text)
    assert tuple(map(len, expected)) == (171, 18, 21)
    assert len(expected[0][0]) == 10, "six of sixteen sensors repeat others"
    assert_is(replace(PUBLISHED["gas"], shape=(10,), splits=(171, 18, 21)).load(tmp_path, 0), expected)


def test_the_published_size_of_gas_is_a_quarter_of_the_text_file() -> None:
    assert sum(PUBLISHED["gas"].splits) == round(0.25 * 4_208_261)


def test_bsds300_is_as_it_is_in_the_file(tmp_path: Path) -> None:
    train, validation, test = (RANDOM.normal(size=(count, 63)).astype(np.float32) for count in (50, 7, 9))
    hdf5(tmp_path / "maf/BSDS300/BSDS300.hdf5", train=train, validation=validation, test=test)
    bsds300 = replace(PUBLISHED["bsds300"], splits=(50, 5, 5))  # only the first of the published numbers is sure
    assert_is(bsds300.load(tmp_path, 0), (train, validation, test))
    assert "gives 50 / 7 / 9 samples" in refusal(replace(bsds300, splits=(51, 7, 9)), tmp_path)
    assert "of shape (63,)" in refusal(replace(bsds300, shape=(64,)), tmp_path)


@pytest.mark.parametrize(("name", "columns"), [("power", 8), ("miniboone", 43)])
def test_a_column_without_a_scale_is_refused(name: str, columns: int, tmp_path: Path) -> None:
    written(tmp_path / f"maf/{name}/data.npy", npy(np.ones((30, columns))))
    assert "holds NaN or infinity" in refusal(replace(PUBLISHED[name], splits=(25, 2, 3)), tmp_path)


# What a user is told.


def test_other_sizes_are_refused_with_both_numbers(tmp_path: Path) -> None:
    path = tmp_path / "maf/power/data.npy"
    written(path, npy(power_rows()))
    assert refusal(PUBLISHED["power"], tmp_path) == (
        f"{path}: gives 165 / 18 / 20 samples to train / validate / test on, of shape (6,), where the published data "
        "have 1,659,917 / 184,435 / 204,928, of shape (6,); get the published file again"
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_not_there_says_where_to_get_it(name: str, tmp_path: Path) -> None:
    reason = PUBLISHED[name].why_unavailable(tmp_path)
    assert "\n" not in reason
    assert str(tmp_path / "maf") in reason
    if name == "gas":
        assert "download ethylene_CO.txt from https://archive.ics.uci.edu/dataset/322/" in reason
        assert refusal(PUBLISHED[name], tmp_path) == reason
    else:
        assert reason.endswith(f" is missing: harness fetch {name} --data-dir {tmp_path}")


def test_missing_h5py_disables_its_set_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    hdf5_needed = PUBLISHED["bsds300"].why_unavailable(tmp_path)
    assert hdf5_needed == "bsds300 is an HDF5 file, which needs h5py: pip install h5py"
    assert refusal(PUBLISHED["bsds300"], tmp_path) == hdf5_needed
    assert "pip install" not in PUBLISHED["power"].why_unavailable(tmp_path)


class Opened:
    """What a pickle of this calls if anything opens it."""

    def __reduce__(self) -> tuple[object, ...]:
        return sys.exit, ("the pickle was opened",)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("power", "power/data.npy"),
        ("miniboone", "miniboone/data.npy"),
        ("gas", "gas/ethylene_CO.txt"),
        ("hepmass", "hepmass/1000_train.csv"),
        ("bsds300", "BSDS300/BSDS300.hdf5"),
    ],
)
def test_a_pickle_is_never_opened(name: str, place: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Opened()], dtype=object), allow_pickle=True)
    written(tmp_path / "maf/hepmass/1000_test.csv", b"")
    for content in (pickle.dumps(Opened()), buffer.getvalue()):
        written(tmp_path / "maf" / place, content)
        message = refusal(PUBLISHED[name], tmp_path)
        assert message.startswith(f"{tmp_path / 'maf' / place}: is ")
        assert message.endswith("get the published file again")


@pytest.mark.parametrize("array", [np.ones(8), np.ones((30, 7)), np.ones((30, 8), dtype=int)])
def test_a_table_of_another_kind_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    written(tmp_path / "maf/power/data.npy", npy(array))
    assert "data.npy: is no table of 8 columns of numbers" in refusal(PUBLISHED["power"], tmp_path)


# The archive.


def tar_of(*members: tuple[str, bytes], link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            tar.addfile(info)
    return buffer.getvalue()


def with_md5_of(declaration: PublishedSet, content: bytes) -> PublishedSet:
    known_hash = f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"
    return replace(declaration, archives=(replace(declaration.archives[0], known_hash=known_hash),))


def test_the_archive_gives_the_files_of_a_set_and_no_others(tmp_path: Path) -> None:
    rows = power_rows()
    others = ("data/gas/ethylene_CO.pickle", "data/power/._data.npy", "data/miniboone/data.npy", "power.npy")
    content = tar_of(*((name, b"never looked at") for name in others), ("data/power/data.npy", npy(rows)))
    written(tmp_path / "maf/data.tar.gz", content)
    power = with_md5_of(replace(PUBLISHED["power"], splits=(165, 18, 20)), content)
    assert power.why_unavailable(tmp_path) is None
    assert power.prepare(tmp_path) == (tmp_path / "maf/power/data.npy",)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"data.tar.gz", "data.npy"}
    assert_is(power.load(tmp_path, 0), plain_power(rows.tolist()))


def test_an_archive_that_is_not_the_published_one_is_not_unpacked(tmp_path: Path) -> None:
    written(tmp_path / "maf/data.tar.gz", tar_of(("power/data.npy", npy(power_rows()))))
    assert "data.tar.gz: truncated or altered" in refusal(PUBLISHED["power"], tmp_path)
    assert "not the published file's MD5" in refusal(PUBLISHED["power"], tmp_path)
    content = tar_of(link="power/data.npy")
    written(tmp_path / "maf/data.tar.gz", content)
    assert "its data.npy is not the published file" in refusal(with_md5_of(PUBLISHED["power"], content), tmp_path)
    assert [path.name for path in (tmp_path / "maf").iterdir()] == ["data.tar.gz"]


def test_sizes_of_downloads() -> None:
    assert PUBLISHED["power"].download_bytes is None
    assert PUBLISHED["gas"].download_bytes == 0
    assert FASHION_MNIST.download_bytes == 26_421_880 + 4_422_102


# Fashion-MNIST.


def small_fashion(content: bytes, packed: bytes, inside: str) -> Archive:
    known_hash = f"md5:{hashlib.md5(packed, usedforsecurity=False).hexdigest()}"
    plain = PublishedFile("fashion-mnist/t10k-images-idx3-ubyte", len(content), inside)
    return replace(FASHION_MNIST.archives[1], size=len(packed), known_hash=known_hash, contents=(plain,))


def test_fashion_mnist_has_the_layout_of_mnist() -> None:
    for fashion, mnist in zip(FASHION_MNIST.archives, MNIST.archives, strict=True):
        assert fashion.place == f"fashion-{mnist.place}"
        assert fashion.contents[0].size == mnist.contents[0].size
        assert fashion.known_hash.startswith("md5:")
        assert len(fashion.contents[0].known_hash) == 64
    same = ("shape", "splits", "levels", "header", "label")
    assert [getattr(FASHION_MNIST, name) for name in same] == [getattr(MNIST, name) for name in same]


def test_a_packed_file_is_checked_by_md5_and_what_is_inside_by_sha256(tmp_path: Path) -> None:
    content = bytes(range(200))
    packed = gzip.compress(content, mtime=0)
    written(tmp_path / "fashion-mnist/t10k-images-idx3-ubyte.gz", packed)
    assert small_fashion(content, packed, hashlib.sha256(content).hexdigest()).read(tmp_path) == [content]
    with pytest.raises(InputError, match="does not unpack to 200 published bytes"):
        small_fashion(content, packed, hashlib.sha256(b"other").hexdigest()).read(tmp_path)
    written(tmp_path / "fashion-mnist/t10k-images-idx3-ubyte.gz", packed[:-1] + b"\1")
    with pytest.raises(InputError, match="not the published file's MD5"):
        small_fashion(content, packed, hashlib.sha256(content).hexdigest()).read(tmp_path)


# What is said at a training.


def test_sizes_and_moments_in_one_line() -> None:
    part = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    data = Dataset("mine", (2,), part.repeat(6000, 1), part, part[:1], Identity())
    assert describe(data) == (
        "mine: 12,000 / 2 / 1 samples to train / validate / test on, D = 2; training part: "
        "mean 3, std 1.871, min 1, max 6"
    )
    large = replace(data, train=1e9 + part.double())  # one pass over the squares would lose the scale
    assert "mean 1e+09, std 1.871," in describe(large)


def test_a_training_says_what_it_loaded_and_scores_the_standardised_data(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    written(Path("data/maf/power/data.npy"), npy(power_rows()))
    monkeypatch.setitem(datasets.DECLARATIONS, "power", replace(PUBLISHED["power"], splits=(165, 18, 20)))
    arguments = ("train", "--dataset", "power", "--data-dir", "data", "--method", "gaussian", "--json")
    ended = run(*arguments)
    data = datasets.load("power", Path("data"))
    assert describe(data) in ended.err
    assert describe(data) not in run(*arguments, "--quiet").err
    (nll,) = (row["value"] for row in ended.rows if row["metric"] == "nll")
    train, test = data.train.double().numpy(), data.test.double().numpy()
    fitted = multivariate_normal(train.mean(axis=0), np.cov(train, rowvar=False, ddof=0))
    assert nll == pytest.approx(-fitted.logpdf(test).mean(), rel=1e-4)


def test_fetching_what_is_fetched_by_hand(run: Callable[..., Any]) -> None:
    Path("data").mkdir()
    ended = run("fetch", "gas", "--data-dir", "data")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(
        "harness: data/maf/gas/ethylene_CO.txt is missing: download ethylene_CO.txt from https://"
    )
    written(Path("data/maf/gas/ethylene_CO.txt"), b"")
    assert run("fetch", "gas", "--data-dir", "data") == (0, "gas: nothing to fetch\n", "")
