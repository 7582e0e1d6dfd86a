"""Data files and weights: what was changed is refused in one line; what is accepted is what the file holds."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from contextlib import redirect_stderr
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
from torch import nn

from harness import datasets
from harness.datasets import cifar10, mnist
from harness.errors import InputError
from harness.training.checkpoints import TrainingCheckpoint, load_weights, save_weights


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


_ARRAY = np.random.default_rng(0).normal(size=(20, 3))
_NPY = _npy(_ARRAY)
_IDX = np.array([2051, 3, 28, 28], ">i4").tobytes() + np.arange(3 * 784).astype(np.uint8).tobytes()
_IDX_GZ = gzip.compress(_IDX, mtime=0)
_RECORDS = np.arange(2 * 3073).astype(np.uint8).tobytes()


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in cifar10._SHA256:
            member = tarfile.TarInfo(f"{cifar10._FOLDER}/{name}")
            member.size = len(_RECORDS)
            tar.addfile(member, io.BytesIO(_RECORDS))
    return buffer.getvalue()


_ARCHIVE = _archive()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files in place of the published ones, and no network."""
    for name in ("_TRAIN", "_TEST"):
        file = dataclasses.replace(getattr(mnist, name), images=3, sha256=_sha256(_IDX), sha256_gz=_sha256(_IDX_GZ))
        monkeypatch.setattr(mnist, name, file)
    monkeypatch.setattr(mnist, "_VALIDATION", 1)
    monkeypatch.setattr(cifar10, "_VALIDATION", 1)
    monkeypatch.setattr(cifar10, "_IMAGES_A_FILE", 2)
    monkeypatch.setattr(cifar10, "_SHA256", dict.fromkeys(cifar10._SHA256, _sha256(_RECORDS)))
    monkeypatch.setattr(cifar10, "_ARCHIVE_SHA256", _sha256(_ARCHIVE))
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: pytest.fail("it would have been downloaded"))


def loaded(name: str, folder: Path) -> datasets.Dataset | None:
    """Load, or None where it is refused in one line."""
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
        for name in (mnist._TRAIN.name, mnist._TEST.name):
            (folder / "mnist" / f"{name}{suffix}").write_bytes(whole)
        assert loaded("mnist", folder).train.flatten().tolist() == [*_IDX[16 : 16 + 2 * 784]]
        (folder / "mnist" / f"{mnist._TEST.name}{suffix}").write_bytes(content)
        assert (loaded("mnist", folder) is not None) == (content == whole)


@given(kind=st.sampled_from(["bin", "tar.gz"]), data=st.data())
def test_an_altered_file_of_cifar10_is_refused(
    kind: str, data: st.DataObject, small_files: None, within_time: Callable[..., Any], empty_folder: Callable[..., Any]
) -> None:
    whole = _RECORDS if kind == "bin" else _ARCHIVE
    content = data.draw(mutated_bytes(whole))
    with empty_folder() as folder, within_time():
        (folder / cifar10._FOLDER).mkdir()
        if kind == "bin":
            for name in cifar10._SHA256:
                (folder / cifar10._FOLDER / name).write_bytes(_RECORDS)
            (folder / cifar10._FOLDER / "data_batch_3.bin").write_bytes(content)
        else:
            (folder / cifar10._ARCHIVE).write_bytes(content)
        assert (loaded("cifar10", folder) is not None) == (content == whole)


class _Model:
    def __init__(self) -> None:
        self.module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


_SHAPES = (("0.weight", 12, (4, 3)), ("0.bias", 4, (4,)), ("1.weight", 8, (2, 4)), ("1.bias", 2, (2,)))


_STATE = {name: torch.arange(size).float().reshape(shape) for name, size, shape in _SHAPES}


def _written(write: Callable[[Path], object]) -> bytes:
    with TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


_WEIGHTS = _written(lambda path: save_weights(_STATE, path))
_CHECKPOINT = _written(lambda path: TrainingCheckpoint(path, {"cell": "c"}).write(_STATE, {"epoch": 3, "best": 0.1}))


@given(content=mutated_bytes(_WEIGHTS))
@example(content=_WEIGHTS)
def test_altered_weights_are_refused(
    content: bytes, within_time: Callable[..., Any], empty_folder: Callable[..., Any]
) -> None:
    model, refusal = _Model(), None
    with empty_folder(), within_time():
        Path("weights").write_bytes(content)
        try:
            load_weights(model, Path("weights"))
        except InputError as error:
            refusal = str(error)
    same = all(torch.equal(model.module.state_dict()[name], value) for name, value in _STATE.items())
    assert same == (refusal is None)
    assert refusal is None or "\n" not in refusal
    assert refusal is None or content != _WEIGHTS


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
