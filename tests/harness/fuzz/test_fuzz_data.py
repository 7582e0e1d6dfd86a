"""Data files and weights: what was changed is refused in one line; what is accepted is what the file holds."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pooch
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import mutated_bytes

from harness import datasets
from harness.datasets.dataset import Dataset
from harness.errors import InputError
from harness.models.fitting import fit
from harness.models.trained import load_model
from harness.training.checkpoints import TrainingCheckpoint


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


_ARRAY = np.random.default_rng(0).normal(size=(20, 3))
_NPY = _npy(_ARRAY)
_IDX = np.array([2051, 3, 28, 28], ">i4").tobytes() + np.arange(3 * 784).astype(np.uint8).tobytes()
_IDX_GZ = gzip.compress(_IDX, mtime=0)
_RECORDS = np.arange(2 * 3073).astype(np.uint8).tobytes()


_MNIST, _CIFAR10 = datasets.DECLARATIONS["mnist"], datasets.DECLARATIONS["cifar10"]


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for file in _CIFAR10.archives[0].contents:
            member = tarfile.TarInfo(file.place)
            member.size = len(_RECORDS)
            tar.addfile(member, io.BytesIO(_RECORDS))
    return buffer.getvalue()


_ARCHIVE = _archive()


def _of(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "known_hash": hashlib.sha256(content).hexdigest()}


def _small(images: datasets.Declaration, splits: tuple[int, int, int], packed: bytes, plain: bytes) -> Any:
    archives = (
        replace(archive, **_of(packed), contents=tuple(replace(file, **_of(plain)) for file in archive.contents))
        for archive in images.archives
    )
    return replace(images, splits=splits, archives=tuple(archives))


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files in place of the published ones, and no network."""
    monkeypatch.setitem(datasets.DECLARATIONS, "mnist", _small(_MNIST, (2, 1, 3), _IDX_GZ, _IDX))
    monkeypatch.setitem(datasets.DECLARATIONS, "cifar10", _small(_CIFAR10, (9, 1, 2), _ARCHIVE, _RECORDS))
    monkeypatch.setattr(pooch, "create", lambda *_, **__: pytest.fail("it would have been downloaded"))


def loaded(name: str, folder: Path) -> Dataset | None:
    """Load, or None where it is refused in one line."""
    datasets._loaded.cache_clear()  # files change here faster than the clock of the file system ticks
    try:
        return datasets.load(name, folder)
    except InputError as refusal:
        error = refusal
    assert "\n" not in str(error)
    return None


@given(content=mutated_bytes(_NPY))
def test_an_array_is_what_numpy_reads_or_refused(
    content: bytes, within_time: Callable[..., Any], empty_folder: Callable[..., Any]
) -> None:
    with empty_folder(), within_time():
        Path("mine.npy").write_bytes(content)
        data = loaded("mine.npy", Path())
        if data is None:
            return
        rows = torch.cat([data.train, data.validation, data.test])
        assert rows.isfinite().all()
        expected = np.load("mine.npy", allow_pickle=False).astype(float)
        assert torch.equal(rows.sum(0).isfinite(), torch.ones(rows.shape[1], dtype=bool))
        assert np.array_equal(np.sort(rows.numpy(), axis=0), np.sort(expected, axis=0))


@given(kind=st.sampled_from(["idx", "gz"]), data=st.data())
def test_an_altered_file_of_mnist_is_refused(
    kind: str, data: st.DataObject, small_files: None, within_time: Callable[..., Any], empty_folder: Callable[..., Any]
) -> None:
    whole, suffix = (_IDX, "") if kind == "idx" else (_IDX_GZ, ".gz")
    content = data.draw(mutated_bytes(whole))
    with empty_folder() as folder, within_time():
        (folder / "mnist").mkdir()
        test = folder / f"mnist/t10k-images-idx3-ubyte{suffix}"
        for path in (test.with_name(f"train-images-idx3-ubyte{suffix}"), test):
            path.write_bytes(whole)
        assert loaded("mnist", folder).train.flatten().tolist() == [*_IDX[16 : 16 + 2 * 784]]
        test.write_bytes(content)
        assert (loaded("mnist", folder) is not None) == (content == whole)


@given(kind=st.sampled_from(["bin", "tar.gz"]), data=st.data())
def test_an_altered_file_of_cifar10_is_refused(
    kind: str, data: st.DataObject, small_files: None, within_time: Callable[..., Any], empty_folder: Callable[..., Any]
) -> None:
    whole = _RECORDS if kind == "bin" else _ARCHIVE
    content = data.draw(mutated_bytes(whole))
    with empty_folder() as folder, within_time():
        (folder / "cifar-10-batches-bin").mkdir()
        if kind == "bin":
            for file in _CIFAR10.archives[0].contents:
                (folder / file.place).write_bytes(_RECORDS)
            (folder / "cifar-10-batches-bin/data_batch_3.bin").write_bytes(content)
        else:
            (folder / "cifar-10-binary.tar.gz").write_bytes(content)
        assert (loaded("cifar10", folder) is not None) == (content == whole)


_SHAPES = (("0.weight", 12, (4, 3)), ("0.bias", 4, (4,)), ("1.weight", 8, (2, 4)), ("1.bias", 2, (2,)))


_STATE = {name: torch.arange(size).float().reshape(shape) for name, size, shape in _SHAPES}


def _written(write: Callable[[Path], object]) -> bytes:
    with TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


_FITTED = fit(np.random.default_rng(0).normal(size=(50, 2)), "gaussian")
_MODEL = _written(_FITTED.save)
_CHECKPOINT = _written(lambda path: TrainingCheckpoint(path, {"cell": "c"}).write(_STATE, {"epoch": 3, "best": 0.1}))


@given(content=mutated_bytes(_MODEL))
@example(content=_MODEL)
def test_altered_models_are_refused(
    content: bytes, within_time: Callable[..., Any], empty_folder: Callable[..., Any]
) -> None:
    x, told, loaded = np.ones((1, 2)), "", None
    with empty_folder(), within_time():
        Path("model").write_bytes(content)
        try:
            loaded = load_model("model")
        except InputError as error:
            told = str(error)
    assert "\n" not in told
    assert (loaded is None) == bool(told)
    assert loaded is None or loaded.log_prob(x) == _FITTED.log_prob(x)
    assert loaded is not None or content != _MODEL


@given(content=mutated_bytes(_CHECKPOINT))
@example(content=_CHECKPOINT)
def test_an_altered_state_of_a_training_is_set_aside(
    content: bytes, within_time: Callable[..., Any], empty_folder: Callable[..., Any]
) -> None:
    with empty_folder() as folder, within_time(), redirect_stderr(io.StringIO()):
        (folder / "file").write_bytes(content)
        found = TrainingCheckpoint(folder / "file", {"cell": "c"}).read()
        if found is None:
            assert content != _CHECKPOINT
            assert (folder / "file.aside").read_bytes() == content
            return
    tensors, numbers = found
    assert numbers == {"epoch": 3, "best": 0.1}
    assert tensors.keys() == _STATE.keys()
    assert all(torch.equal(tensors[name], value) for name, value in _STATE.items())
