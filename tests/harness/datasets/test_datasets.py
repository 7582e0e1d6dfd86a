"""Loading: splits, the data folder, checksums, downloads, and what a user is told when something is wrong.

The published files are replaced by small synthetic ones, and their addresses by a server on this machine.
"""

from __future__ import annotations

import errno
import functools
import gzip
import hashlib
import http.server
import io
import os
import socket
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pooch
import pytest
import torch

from harness import datasets
from harness.datasets import files, load, names, shape, splits, why_unavailable
from harness.datasets.dataset import Dataset
from harness.datasets.files import Archive, PublishedFile
from harness.datasets.image_sets import CIFAR10, MNIST, ImageSet
from harness.datasets.preprocessing import GaussianNoise, Identity, LogitPreprocessing, Standardize
from harness.errors import InputError

MNIST_NAMES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
CIFAR_FOLDER = "cifar-10-batches-bin"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def at(address: str, images: ImageSet) -> ImageSet:
    """The set, its archives downloaded from elsewhere."""
    return replace(images, archives=tuple(replace(a, url=f"{address}/{a.place}") for a in images.archives))


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data folder of the user's, no network: every download meets a closed port."""
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for images in (MNIST, CIFAR10):
        monkeypatch.setitem(datasets.DECLARATIONS, images.name, at(f"http://127.0.0.1:{closed_port()}", images))


def declared(place: str, content: bytes) -> PublishedFile:
    return PublishedFile(place, len(content), sha256(content))


def packed(archive: Archive, content: bytes, *contents: PublishedFile) -> Archive:
    return replace(archive, size=len(content), known_hash=sha256(content), contents=contents)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, isolated: None) -> dict[str, bytes]:
    """Synthetic published files by place in a data folder; pixel values tell which image they are in."""
    contents, archives = {}, []
    mnist, cifar10 = datasets.DECLARATIONS["mnist"], datasets.DECLARATIONS["cifar10"]
    for archive, count in zip(mnist.archives, (60, 20), strict=True):
        header = np.array([2051, count, 28, 28], ">i4").tobytes()
        plain = header + np.repeat(np.arange(count, dtype=np.uint8), 28 * 28).tobytes()
        place = archive.contents[0].place
        contents |= {place: plain, f"{place}.gz": gzip.compress(plain, mtime=0)}
        archives.append(packed(archive, contents[f"{place}.gz"], declared(place, plain)))
    mnist = replace(mnist, splits=(50, 10, 20), archives=tuple(archives))

    (archive,), files, buffer = cifar10.archives, [], io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for number, file in enumerate(archive.contents):
            # A record is a label (255 here) and three planes; plane c of record i holds 40 c + 4 number + i.
            planes = 40 * np.arange(3) + 4 * number + np.arange(4)[:, None]
            records = np.hstack([np.full((4, 1), 255), np.repeat(planes, 32 * 32, axis=1)]).astype(np.uint8)
            contents[file.place] = content = records.tobytes()
            files.append(declared(file.place, content))
            info = tarfile.TarInfo(file.place)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    contents[archive.place] = buffer.getvalue()
    cifar10 = replace(cifar10, splits=(16, 4, 4), archives=(packed(archive, buffer.getvalue(), *files),))
    for images in (mnist, cifar10):
        monkeypatch.setitem(datasets.DECLARATIONS, images.name, images)
    return contents


@pytest.fixture
def put(published: dict[str, bytes], tmp_path: Path) -> Callable[..., Path]:
    """Put the files whose place contains a given text into a data folder."""

    def put(*wanted: str, but: str = "\0") -> Path:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for place, content in published.items():
            if any(text in place for text in wanted) and but not in place:
                (folder / place).parent.mkdir(exist_ok=True)
                (folder / place).write_bytes(content)
        return folder

    return put


@pytest.fixture
def server(put: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server of the archives, which are in the folder it gives."""
    root = put("images-idx3-ubyte.gz", "tar.gz").rename(tmp_path / "served")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=root)) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{serving.server_port}"
        for name in ("mnist", "cifar10"):
            monkeypatch.setitem(datasets.DECLARATIONS, name, at(address, datasets.DECLARATIONS[name]))
        yield root
        serving.shutdown()
        thread.join()


def refusal(*args: object, **kwargs: object) -> str:
    with pytest.raises(InputError) as caught:
        load(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_is_mnist(dataset: Dataset) -> None:
    assert (dataset.name, dataset.shape, dataset.dimension) == ("mnist", (1, 28, 28), 784)
    for split, values in ((dataset.train, range(50)), (dataset.validation, range(50, 60)), (dataset.test, range(20))):
        expected = torch.tensor(list(values), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 28, 28)
        assert split.dtype == torch.uint8
        assert torch.equal(split, expected)
    assert dataset.preprocessing == LogitPreprocessing(256, 1e-6, 0.5)
    assert dataset.density is None


def assert_is_cifar10(dataset: Dataset) -> None:
    assert (dataset.name, dataset.shape, dataset.dimension) == ("cifar10", (3, 32, 32), 3072)
    for split, first in ((dataset.train, 0), (dataset.validation, 16), (dataset.test, 20)):
        expected = first + torch.arange(len(split))[:, None] + 40 * torch.arange(3)
        assert split.dtype == torch.uint8
        assert torch.equal(split.long(), expected[:, :, None, None].expand(-1, 3, 32, 32))
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [16, 4, 4]
    assert dataset.preprocessing == LogitPreprocessing(256, 1e-6, 0.5)


def test_names() -> None:
    small = ("sine", "swirl", "checkerboard", "power", "gas", "multimodal10", "hepmass", "miniboone")
    assert names() == (*small, "patches", "bsds300", "digits", "mnist", "fashion-mnist", "cifar10")


def test_importing_brings_in_no_library_that_only_some_sets_need() -> None:
    heavy = {"torch", "numpy", "sklearn", "pooch", "scipy", "requests"}
    code = f"import sys, harness.datasets; print(*{heavy} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize("name", ["sine", "swirl", "checkerboard"])
def test_two_dimensional_sets(name: str) -> None:
    dataset = load(name, seed=3)
    assert why_unavailable(name) is None
    assert (dataset.name, dataset.shape, dataset.dimension) == (name, (2,), 2)
    assert [s.shape for s in (dataset.train, dataset.validation, dataset.test)] == [(50_000, 2)] + 2 * [(10_000, 2)]
    assert dataset.train.dtype == torch.float64
    assert dataset.preprocessing == GaussianNoise(0.375)
    assert torch.equal(dataset.train, load(name, seed=3).train)
    assert not torch.equal(dataset.train, load(name, seed=4).train)
    assert dataset.density.log_prob(dataset.preprocessing(dataset.test[:5])[0]).isfinite().all()


def test_the_multimodal_set() -> None:
    dataset = load("multimodal10", seed=3)
    assert why_unavailable("multimodal10") is None
    assert (dataset.name, dataset.shape, dataset.dimension) == ("multimodal10", (10,), 10)
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [split.shape for split in splits] == [(50_000, 10), (10_000, 10), (10_000, 10)]
    assert dataset.train.dtype == torch.float64
    assert dataset.preprocessing == Identity()
    assert torch.equal(dataset.train, load("multimodal10", seed=3).train)
    assert not torch.equal(dataset.train, load("multimodal10", seed=4).train)
    assert dataset.density.log_prob(dataset.test).isfinite().all()


def test_digits() -> None:
    dataset = load("digits")
    assert why_unavailable("digits") is None
    assert (dataset.name, dataset.shape, dataset.dimension) == ("digits", (1, 8, 8), 64)
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [1200, 297, 300]
    assert dataset.train.dtype == torch.uint8
    assert dataset.train.max() == 16
    assert dataset.preprocessing == LogitPreprocessing(17, 1e-6, 0.5)
    assert torch.equal(dataset.train, load("digits", seed=5).train), "the shuffle does not follow the seed"
    # Shuffled: the splits have the same mean within 5 standard errors of 300 images.
    means = [split.double().mean((1, 2, 3)) for split in splits]
    assert abs(means[0].mean() - means[2].mean()) < 5 * means[2].std() / 300**0.5


@pytest.mark.parametrize("kind", ["", ".gz"])
def test_mnist_from_plain_and_from_packed_files(put: Callable[..., Path], kind: str) -> None:
    folder = put(f"images-idx3-ubyte{kind}", but="\0" if kind else ".gz")
    assert why_unavailable("mnist", folder) is None
    assert_is_mnist(load("mnist", folder))


def test_cifar10_from_its_files(put: Callable[..., Path]) -> None:
    folder = put(".bin")
    assert why_unavailable("cifar10", folder) is None
    assert_is_cifar10(load("cifar10", folder))


def test_cifar10_from_its_archive_fills_in_the_missing_files(put: Callable[..., Path]) -> None:
    folder = put("tar.gz", "data_batch_2.bin")
    assert why_unavailable("cifar10", folder) is None
    assert_is_cifar10(load("cifar10", folder))
    assert {path.name for path in folder.iterdir()} == {"cifar-10-binary.tar.gz", CIFAR_FOLDER}
    (folder / "cifar-10-binary.tar.gz").unlink()
    assert_is_cifar10(load("cifar10", folder))


def test_data_folder_is_the_argument_then_the_variable_then_a_cache(
    put: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put("idx3-ubyte")
    assert str(tmp_path / "cache" / "ebflow-bench" / "mnist") in why_unavailable("mnist")
    monkeypatch.setenv("HARNESS_DATA_DIR", str(folder))
    assert_is_mnist(load("mnist"))
    monkeypatch.setenv("HARNESS_DATA_DIR", "/no/such/folder")
    assert_is_mnist(load("mnist", folder))
    assert refusal("mnist").endswith("/no/such/folder does not exist: create it, or correct HARNESS_DATA_DIR")
    assert refusal("mnist", tmp_path / "none").endswith("none does not exist: create it, or correct --data-dir")
    assert why_unavailable("cifar10", tmp_path / "none") == refusal("cifar10", tmp_path / "none")


@pytest.mark.parametrize(("name", "check"), [("mnist", assert_is_mnist), ("cifar10", assert_is_cifar10)])
def test_missing_files_are_downloaded_once_and_quietly(
    name: str,
    check: Callable[[Dataset], None],
    server: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert f"missing: harness fetch {name}" in why_unavailable(name)
    check(load(name))
    assert capfd.readouterr().out == ""
    assert why_unavailable(name) is None
    monkeypatch.setattr(pooch, "create", lambda *args, **kwargs: pytest.fail("downloaded again"))
    check(load(name))


@pytest.mark.parametrize(
    ("name", "file"), [("mnist", "mnist/train-images-idx3-ubyte.gz"), ("cifar10", "cifar-10-binary.tar.gz")]
)
def test_a_download_that_is_not_the_published_file_is_refused_and_not_kept(
    name: str, file: str, server: Path, tmp_path: Path
) -> None:
    (server / file).write_bytes(b"something else")
    message = refusal(name)
    assert f"{Path(file).name} (its SHA-256 is not the published file's): connect to the network" in message
    assert not list((tmp_path / "cache").rglob("*.gz"))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_no_network(name: str, published: dict[str, bytes]) -> None:
    message = refusal(name)
    assert message.startswith("could not download http://127.0.0.1:")
    assert "(ConnectionError)" in message
    assert "--data-dir or HARNESS_DATA_DIR" in message


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("notaproxy://", "(InvalidProxyURL): "),
        ("notaproxy://host:1", "Proxy URL had unsupported scheme notaproxy"),
        ("http://[", "'[' is not a valid host or port"),
        ("socks5://host:1", "(InvalidSchema): "),
        ("http://127.0.0.1:1", "(ProxyError): ConnectionRefusedError: "),
    ],
)
def test_an_error_of_the_network_is_none_of_the_content(
    proxy: str, reason: str, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    message = refusal("mnist")
    assert reason in message
    assert "SHA-256" not in message
    with pytest.raises(InputError, match=r"^mnist cannot be fetched: no server answers within 5 s$"):
        datasets.fetch("mnist", within=5)


def test_a_bundle_of_certificates_that_is_missing(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives = [replace(one, url="https://127.0.0.1:1/x.gz") for one in datasets.DECLARATIONS["mnist"].archives]
    images = replace(datasets.DECLARATIONS["mnist"], archives=tuple(archives))
    monkeypatch.setitem(datasets.DECLARATIONS, "mnist", images)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle")
    assert "(OSError): OSError: Could not find a suitable TLS CA certificate bundle" in refusal("mnist")


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only file system")]
)
def test_a_disk_that_takes_no_file_is_not_the_network(
    number: int, reason: str, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "_stream", full)
    message = refusal("mnist")
    assert f"cannot be written ({reason}" in message
    assert "network" not in message


@pytest.mark.parametrize(("name", "check"), [("mnist", assert_is_mnist), ("cifar10", assert_is_cifar10)])
def test_fetched_data_are_there_without_a_word(
    name: str, check: Callable[[Dataset], None], server: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").mkdir()
    datasets.fetch(name, tmp_path / "kept", within=60)
    assert capfd.readouterr() == ("", "")
    assert why_unavailable(name, tmp_path / "kept") is None
    check(load(name, tmp_path / "kept"))
    archives = datasets.DECLARATIONS[name].archives
    assert datasets.DECLARATIONS[name].download_bytes == sum((server / one.place).stat().st_size for one in archives)


def test_what_is_not_fetched_names_the_command_for_its_folder(put: Callable[..., Path], tmp_path: Path) -> None:
    folder = put("tar.gz")
    assert why_unavailable("mnist", folder).endswith(f" is missing: harness fetch mnist --data-dir {folder}")
    datasets.fetch("digits")


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_a_server_that_does_not_answer_is_given_up(silent: bool, tmp_path: Path, monkeypatch: Any) -> None:
    with socket.socket() as listening:  # it takes connections and says nothing
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        if silent:
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            monkeypatch.setitem(datasets.DECLARATIONS, "mnist", at(address, datasets.DECLARATIONS["mnist"]))
        with pytest.raises(InputError, match=r"^mnist cannot be fetched: no server answers within 0\.2 s$"):
            datasets.fetch("mnist", within=0.2)
    assert not (tmp_path / "cache").exists()


def test_a_file_missing_on_the_server(server: Path) -> None:
    (server / "mnist" / "t10k-images-idx3-ubyte.gz").unlink()
    assert "t10k-images-idx3-ubyte.gz (HTTPError): HTTPError: 404 Client Error" in refusal("mnist")


@pytest.mark.parametrize(
    ("name", "wanted", "broken"),
    [
        ("mnist", "idx3-ubyte", "mnist/t10k-images-idx3-ubyte"),
        ("mnist", "ubyte.gz", "mnist/train-images-idx3-ubyte.gz"),
        ("cifar10", ".bin", f"{CIFAR_FOLDER}/data_batch_3.bin"),
        ("cifar10", "tar.gz", "cifar-10-binary.tar.gz"),
    ],
)
def test_damaged_files_are_named_and_never_parsed(
    put: Callable[..., Path], name: str, wanted: str, broken: str
) -> None:
    path = put(wanted) / broken
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole[:-1] + b"\xff\xff", whole[:100] + b"\x01" + whole[101:]):
        path.write_bytes(content)
        message = refusal(name, tmp := path.parents[broken.count("/")])
        assert message.startswith(f"{path}: truncated or altered ({len(content):,} bytes")
        assert "delete it" in message
        # Whether data are there is told by sizes: nothing is read.
        assert why_unavailable(name, tmp) == (message if len(content) != len(whole) else None)


def test_a_folder_in_the_place_of_a_file(put: Callable[..., Path]) -> None:
    folder = put("t10k")
    (folder / "mnist" / MNIST_NAMES[0]).mkdir()
    assert "train-images-idx3-ubyte: is a folder, a pipe or a device" in refusal("mnist", folder)


def test_a_place_that_cannot_be_written(put: Callable[..., Path], server: Path) -> None:
    folder = put("t10k-images-idx3-ubyte", "tar.gz", but="mnist/train")
    (folder / "mnist").rename(folder / "aside")
    (folder / "mnist").write_text("a file where a folder belongs")
    assert f"{folder / 'mnist'} cannot be written (FileExistsError): make it writable" in refusal("mnist", folder)
    (folder / CIFAR_FOLDER).write_text("a file where a folder belongs")
    assert f"{folder} cannot be written (FileExistsError)" in refusal("cifar10", folder)


def test_a_folder_without_permission(
    server: Path, monkeypatch: pytest.MonkeyPatch, published: dict[str, bytes]
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError

    monkeypatch.setattr(pooch.Pooch, "fetch", refuse)
    assert "cannot be written (PermissionError)" in refusal("mnist")


@pytest.mark.parametrize(("name", "near"), [("mnits", "mnist"), ("checkerbord", "checkerboard"), ("Sine", "sine")])
def test_unknown_names_suggest_near_ones(name: str, near: str) -> None:
    message = refusal(name)
    assert f"unknown dataset '{name}'" in message
    assert near in message
    assert ".npy" in message
    assert why_unavailable(name) == message


@pytest.mark.parametrize("dtype", ["<f8", "<f4", ">f4", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_file(tmp_path: Path, dtype: str, order: str) -> None:
    path = tmp_path / "mine.npy"
    rows = np.asarray(np.arange(25)[:, None] + np.array([0, 0.5, 0.25]), dtype=dtype, order=order)
    np.save(path, rows)
    dataset = load(str(path), seed=1)
    assert why_unavailable(str(path)) is None
    assert (dataset.name, dataset.shape, dataset.dimension) == ("mine.npy", (3,), 3)
    assert dataset.preprocessing == Identity()
    assert dataset.density is None
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [21, 2, 2]
    together = torch.cat(splits)
    assert together.dtype == torch.float64
    assert torch.equal(together[together[:, 0].argsort()], torch.from_numpy(rows.astype("f8")))
    assert not torch.equal(together, torch.from_numpy(rows.astype("f8"))), "shuffled"
    assert torch.equal(together, torch.cat([(d := load(str(path), seed=1)).train, d.validation, d.test]))
    assert torch.equal(dataset.train, load(str(path), seed=2).train), "the split does not follow the seed"


def with_bad_rows() -> np.ndarray:
    array = np.zeros((50, 2))
    array[7, 1], array[40, 0] = np.inf, np.nan
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(20), "holds float64 of shape (20,); save a 2-D array of numbers"),
        (np.zeros((20, 2, 2)), "holds float64 of shape (20, 2, 2); save a 2-D"),
        (np.zeros((20, 2), bool), "holds bool of shape (20, 2); save a 2-D array of numbers"),
        (np.zeros((20, 2), complex), "holds complex128"),
        (np.zeros((9, 2)), "has shape (9, 2); save 10 rows or more"),
        (np.zeros((0, 2)), "not a whole .npy file|has shape (0, 2)"),
        (np.zeros((20, 0)), "not a whole .npy file|has shape (20, 0)"),
        (np.full((20, 2), None), "not a whole .npy file of numbers (ValueError)"),
        (with_bad_rows(), "row 7 (counting from 0) holds NaN or infinity, as do 2 of 50 rows in all"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else f"{value.dtype}-{value.shape}",
)
def test_npy_arrays_of_the_wrong_kind(tmp_path: Path, array: np.ndarray, message: str) -> None:
    path = tmp_path / "mine.npy"
    np.save(path, array, allow_pickle=True)
    told = refusal(str(path))
    assert told.startswith(f"{path}: ")
    assert any(text in told for text in message.split("|"))
    # Whether data are there is told by the header: NaN is found when they are read.
    assert why_unavailable(str(path)) == (None if "NaN" in message else told)


def test_npy_files_that_are_missing_or_not_npy(tmp_path: Path) -> None:
    path = tmp_path / "mine.npy"
    assert refusal(str(path)) == f"{path}: no such file; give the path of an existing .npy file"
    np.save(path, np.zeros((20, 2)))
    whole = path.read_bytes()
    huge = whole.replace(b"(20, 2)", b"(9**9,)").replace(b"'<f8'", b"'<f9'")
    for content in (b"", b"hello", whole[:60], whole[:-1], huge, whole[:20] + b"\n(((" + whole[24:], b"PK\x03\x04"):
        path.write_bytes(content)
        assert "not a whole .npy file of numbers" in refusal(str(path))


@pytest.mark.parametrize("name", ["sine", "swirl", "checkerboard", "multimodal10", "digits", "mnist", "cifar10"])
def test_sizes_are_declared_as_they_are(name: str, put: Callable[..., Path]) -> None:
    folder = put("idx3-ubyte", ".bin")
    declaration, dataset = datasets.DECLARATIONS[name], load(name, folder)
    assert declaration.splits == (len(dataset.train), len(dataset.validation), len(dataset.test))
    assert shape(name) == dataset.shape == dataset.train.shape[1:] == dataset.test.shape[1:]
    assert splits(name, folder)[0] == len(dataset.train)
    assert declaration.levels == getattr(dataset.preprocessing, "levels", 0)


def test_sizes_of_a_npy_file_come_from_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.npy"
    np.save(path, np.arange(58.0).reshape(29, 2))
    dataset = load(str(path))
    monkeypatch.setattr(np, "array", lambda *args, **kwargs: pytest.fail("the data were read"))
    assert shape(str(path)) == dataset.shape == (2,)
    assert splits(str(path))[0] == len(dataset.train) == 25
    assert splits(str(tmp_path / "absent.npy"))[0] == 0


TABLE = pl.DataFrame({"a": [float(n) for n in range(30)], "b": [n * n for n in range(30)]})


def test_a_csv_and_a_parquet_file_are_the_same_table(tmp_path: Path) -> None:
    TABLE.write_csv(tmp_path / "t.csv")
    TABLE.write_csv(tmp_path / "plain.csv", include_header=False)
    TABLE.write_parquet(tmp_path / "t.parquet")
    np.save(tmp_path / "t.npy", TABLE.to_numpy())
    sets = [load(str(tmp_path / name)) for name in ("t.csv", "plain.csv", "t.parquet", "t.npy")]
    assert [data.columns for data in sets] == [("a", "b"), (), ("a", "b"), ()]
    for data in sets[1:]:
        for part in ("train", "validation", "test"):
            assert torch.equal(getattr(data, part), getattr(sets[0], part))
    assert (shape(str(tmp_path / "t.csv")), splits(str(tmp_path / "t.parquet"))[0]) == ((2,), 24)
    assert datasets.fingerprint(str(tmp_path / "t.csv")) != datasets.fingerprint(str(tmp_path / "plain.csv"))
    # A file that has changed is read again.
    TABLE.head(20).write_csv(tmp_path / "t.csv")
    assert splits(str(tmp_path / "t.csv"))[0] == 16


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (TABLE.select(c=pl.lit("x"), d=pl.col("a") > 3), "has no column of numbers, only 'c' (String), 'd' (Boolean)"),
        (TABLE.with_columns(c=pl.when(pl.col("a") > 3).then("a")), "row 0 (counting from 0) holds NaN or infinity"),
        (TABLE.head(9), "has shape (9, 2); save 10 rows or more"),
    ],
)
def test_tables_of_the_wrong_kind(frame: pl.DataFrame, message: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{suffix}"
    getattr(frame, f"write_{suffix}")(path)
    assert refusal(str(path)).startswith(f"{path}: {message}")


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b"a,b\n1,2,3\n", b"PAR1 and then nothing"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_is_no_table(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(content)
    message = refusal(str(path))
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert refusal(str(tmp_path / f"no.{suffix}")).endswith(
        f"no such file; give the path of an existing .{suffix} file"
    )


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    TABLE.select("b", pl.lit("word").alias("c"), "a").write_csv(tmp_path / "t.csv")
    rows, columns, _ = datasets.read_rows(tmp_path / "t.csv", ("a", "b"))
    assert columns == ("a", "b")
    np.testing.assert_array_equal(rows, TABLE.to_numpy())
    with pytest.raises(InputError, match=r"t.csv: has no column 'd', only b, c, a; the columns must be a, d$"):
        datasets.read_rows(tmp_path / "t.csv", ("a", "d"))


def test_a_standardised_table_has_its_scale_from_the_training_part(tmp_path: Path) -> None:
    TABLE.write_csv(tmp_path / "t.csv")
    data = load(str(tmp_path / "t.csv"))
    preprocessing = datasets.standardized(data).preprocessing
    assert isinstance(preprocessing, Standardize)
    torch.testing.assert_close(torch.tensor(preprocessing.mean, dtype=torch.float64), data.train.mean(0))
    x, _ = preprocessing(data.train, dtype=torch.float64)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.lit(1e9 / 3), "t.csv: column 'c' has one value in all rows, and so no density; leave it out"),
        (1e307 * (pl.col("a") - 15), "t.csv: column 'c' has too large numbers; leave it out or change its unit"),
    ],
)
def test_a_column_without_a_scale_is_named(column: pl.Expr, message: str, tmp_path: Path) -> None:
    TABLE.with_columns(c=column).write_csv(tmp_path / "t.csv")
    with pytest.raises(InputError) as caught:
        datasets.standardized(load(str(tmp_path / "t.csv")))
    assert str(caught.value).startswith(message)


def test_there_is_nothing_to_train_on_without_the_data(put: Callable[..., Path]) -> None:
    folder = put("train-images")
    assert splits("mnist", folder)[0] == 0
    assert shape("mnist") == (1, 28, 28)
    assert "unknown dataset" in refusal("mnits")


class Opened:
    """Counts how often the files below a folder are opened in this process."""

    def __init__(self) -> None:
        self.folder, self.times = "", Counter[str]()

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder and event == "open" and str(arguments[0]).startswith(self.folder):
            self.times[Path(str(arguments[0])).name] += 1


@pytest.fixture
def opened() -> Iterator[Opened]:
    counting = Opened()
    sys.addaudithook(counting)  # which can never be taken away again, only silenced
    yield counting
    counting.folder = ""


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mnist", "images-idx3-ubyte"), ("mnist", "ubyte.gz"), ("cifar10", ".bin"), ("cifar10", "tar.gz")],
)
def test_a_training_opens_every_file_once(
    name: str, kind: str, put: Callable[..., Path], opened: Opened, run: Callable[..., Any]
) -> None:
    folder = put(kind, but="\0" if "gz" in kind else ".gz")
    opened.folder = str(folder)
    ended = run(
        *("train", "--dataset", name, "--data-dir", str(folder), "--method", "ebflow-dsm"),
        *("--epochs", "1", "--layers", "1", "--batch", "8", "--draws", "1", "--results-dir", "results"),
    )
    assert ended.status == 0, ended.err
    expected = {file.name for file in folder.rglob("*") if file.is_file()}
    assert len(expected) >= 2
    assert {name: opened.times[name] for name in expected} == dict.fromkeys(expected, 1)


def test_asking_whether_data_are_there_opens_none(put: Callable[..., Path], opened: Opened) -> None:
    folder = put("idx3-ubyte", ".bin", "tar.gz")
    opened.folder = str(folder)
    for name in ("mnist", "cifar10"):
        assert why_unavailable(name, folder) is None
        assert splits(name, folder)[0] > 0
    assert opened.times == {}


def test_a_set_is_kept_while_its_files_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "mine.npy"
    np.save(path, np.zeros((20, 2)))
    first = load(str(path))
    assert load(str(path)) is first
    assert load(str(path), seed=1) is first  # its split is the same for every seed
    assert load("sine") is not load("sine", seed=1)
    np.save(path, np.ones((20, 2)))
    os.utime(path, ns=(0, 10**18))
    assert load(str(path)).train.mean() == 1
