"""The tabular sets of density estimation, by the steps of Masked Autoregressive Flow (MAF, arXiv 1705.07057).

POWER, HEPMASS, MINIBOONE and BSDS300 lie in the authors' archive (DOI 10.5281/zenodo.1161203), GAS in a text file of
UCI. The published log-likelihoods are of the standardised data, without the log-determinant of the standardisation. So
the samples here are standardised already, and their preprocessing is the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.datasets.array_file import require_finite
from harness.datasets.dataset import Dataset, Declaration
from harness.datasets.files import Archive, PublishedFile, PublishedSet, data_folder
from harness.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_GAS_PAGE = "https://archive.ics.uci.edu/dataset/322/gas+sensor+array+under+dynamic+gas+mixtures"
_CORRELATED = 0.98
_MOST_REPEATS = 5


class Power(PublishedSet):
    """POWER: a household's consumption, with the noise of its meters; moments of training and validation samples."""

    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        import numpy as np

        (path,) = self.prepare(data_dir)
        table = _table(path, columns=8)
        generator = np.random.RandomState(42)
        generator.shuffle(table)
        table = np.delete(table, [1, 3], axis=1)  # reactive power and current
        noise = np.zeros(table.shape)  # the last column, the time, has none; the voltage's is drawn first
        noise[:, 1] = 0.01 * generator.rand(len(table))
        noise[:, 0] = 0.001 * generator.rand(len(table))
        noise[:, 2:5] = generator.rand(len(table), 3)
        table = table + noise
        return _dataset(self, _split(_standardized(table, table[: _without_tenth(len(table))], 0)), path)


class Miniboone(PublishedSet):
    """MINIBOONE, in the order of the file; moments of training and validation samples."""

    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        (path,) = self.prepare(data_dir)
        table = _table(path, columns=43)
        return _dataset(self, _split(_standardized(table, table[: _without_tenth(len(table))], 0)), path)


class Hepmass(PublishedSet):
    """HEPMASS: the signal (label 1) in the files of mass 1000, without the features whose smallest value recurs.

    A line's fields beyond the header's are left out. The moments are of training and validation samples, with N - 1.
    """

    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        import numpy as np
        import polars as pl

        def signal(path: Path) -> pl.DataFrame:
            frame = pl.read_csv(path, truncate_ragged_lines=True, infer_schema_length=None).cast(pl.Float64)
            frame = frame.filter(frame.to_series(0) == 1).drop(frame.columns[0])
            if frame.height < 2:
                raise ValueError("fewer than two lines have the label 1")
            return frame

        path, test_path = self.prepare(data_dir)
        training = _read(path, lambda: signal(path))
        test = _read(test_path, lambda: signal(test_path))
        test = test.drop(test.columns[-1:])  # a column that the training file does not have
        if test.columns != training.columns:
            raise InputError(f"{test_path}: has other columns than {path.name}; get the published files again")
        table, test = (frame.to_numpy(order="c") for frame in (training, test))
        test, table = _standardized(test, table, 1), _standardized(table, table, 1)
        kept = (table == table.min(axis=0)).sum(axis=0) <= _MOST_REPEATS
        return _dataset(self, [*np.split(table[:, kept], [_without_tenth(len(table))]), test[:, kept]], path)


class Bsds300(PublishedSet):
    """BSDS300: patches of 8 x 8 grey pixels less their mean, without the last pixel, as they are in the file."""

    def why_unavailable(self, data_dir: Path | None) -> str | None:
        return self._library_missing() or super().why_unavailable(data_dir)

    def prepare(self, data_dir: Path | None) -> tuple[Path, ...]:
        if reason := self._library_missing():
            raise InputError(reason)
        return super().prepare(data_dir)

    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        (path,) = self.prepare(data_dir)

        def parts() -> list[np.ndarray]:
            import h5py

            with h5py.File(path, "r") as file:
                return [file[part][:] for part in ("train", "validation", "test")]

        # Only the number of training samples is known for certain: the others are as the file has them.
        return _dataset(self, _read(path, parts), path, certain=1)

    def _library_missing(self) -> str | None:
        return None if find_spec("h5py") else f"{self.name} is an HDF5 file, which needs h5py: pip install h5py"


class Gas(Declaration):
    """GAS: 16 gas sensors, from UCI's ethylene_CO.txt: a quarter of its rows, less sensors that others repeat.

    The published samples are in a pickle of pandas, which nothing here opens. Its columns Time, Meth and Eth are the
    first three of the text file: the time, and the concentrations of carbon monoxide (despite the name) and ethylene.
    By its size it holds a quarter of the 4,208,261 rows; the authors' code has a remark that draws a random quarter,
    without a seed. Here the quarter and its order are drawn from the seed 42. So the sizes are the published ones, but
    the samples are others of the same distribution. The moments are of all samples, with N - 1.
    """

    place = "maf/gas/ethylene_CO.txt"

    def why_unavailable(self, data_dir: Path | None) -> str | None:
        path = data_folder(data_dir) / self.place
        if path.is_file():
            return None
        return f"{path} is missing: download {path.name} from {_GAS_PAGE}, and put it there"

    def prepare(self, data_dir: Path | None) -> tuple[Path, ...]:
        if reason := self.why_unavailable(data_dir):
            raise InputError(reason)
        return (data_folder(data_dir) / self.place,)

    def load(self, data_dir: Path | None, seed: int) -> Dataset:
        import numpy as np

        (path,) = self.prepare(data_dir)
        table = _table(path, columns=19)
        order = np.random.RandomState(42).permutation(len(table))
        table = table[order[: round(0.25 * len(table))], 3:]
        with np.errstate(invalid="ignore"):  # a sensor of one value correlates with none, and is refused below
            alike = np.corrcoef(table, rowvar=False) > _CORRELATED
        kept = list(range(table.shape[1]))
        while repeated := [column for column in kept if alike[column, kept].sum() > 1]:
            kept.remove(repeated[0])
        table = table[:, kept]
        return _dataset(self, _split(_standardized(table, table, 1)), path)


def _read(path: Path, read: Callable[[], Any]) -> Any:
    """Return what a reader makes of a file.

    Raises:
        InputError: if it makes nothing of it.
    """
    try:
        return read()
    except Exception as error:  # the parsers let many kinds through
        raise InputError(
            f"{path}: is damaged or no {path.suffix} file ({type(error).__name__}); get the published file again"
        ) from error


def _table(path: Path, columns: int) -> np.ndarray:
    """Read the table of a `.npy` or a text file; it must have so many columns of floating-point numbers."""
    import numpy as np

    def read() -> np.ndarray:
        if path.suffix == ".txt":
            return np.loadtxt(path, skiprows=1, ndmin=2)
        return np.array(np.lib.format.open_memmap(path, mode="r"))  # unlike numpy.load, it has no way to a pickle

    table: np.ndarray = _read(path, read)
    if table.shape[1:] != (columns,) or table.dtype.kind != "f":
        raise InputError(f"{path}: is no table of {columns} columns of numbers; get the published file again")
    return table


def _without_tenth(count: int) -> int:
    """Return how many samples are left without the last tenth, which is rounded down."""
    return count - int(0.1 * count)


def _split(table: np.ndarray) -> list[np.ndarray]:
    """Cut off the last tenth of the samples to test on, and of the rest the last tenth to validate on."""
    import numpy as np

    rest = _without_tenth(len(table))
    return np.split(table, [_without_tenth(rest), rest])


def _standardized(table: np.ndarray, reference: np.ndarray, correction: int) -> np.ndarray:
    """Standardise by the moments of a reference, with N less the correction; what has no scale becomes NaN."""
    import numpy as np

    with np.errstate(all="ignore"):
        scale = reference.std(axis=0, ddof=correction)
        return (table - reference.mean(axis=0)) / np.where(scale > 0, scale, np.nan)


def _dataset(declaration: Declaration, parts: Sequence[np.ndarray], path: Path, certain: int = 3) -> Dataset:
    """Return the dataset of training, validation and test samples, (N, D) each, in float32 at most.

    The first `certain` of the three must have as many samples as declared, and all finite numbers alone.
    """
    import numpy as np
    import torch

    from harness.datasets.preprocessing import Identity

    sizes, (dimension,) = tuple(map(len, parts)), declaration.shape
    if sizes[:certain] != declaration.splits[:certain] or any(part.shape[1:] != (dimension,) for part in parts):
        read, published = (" / ".join(map("{:,}".format, numbers)) for numbers in (sizes, declaration.splits[:certain]))
        raise InputError(
            f"{path}: gives {read} samples to train / validate / test on, of shape {parts[0].shape[1:]}, where the "
            f"published data have {published}, of shape {declaration.shape}; get the published file again"
        )
    with np.errstate(over="ignore"):
        parts = [np.ascontiguousarray(part, dtype=np.float32) for part in parts]
    for part in parts:
        require_finite(part, f"{path}: ")
    train, validation, test = map(torch.from_numpy, parts)
    return Dataset(declaration.name, declaration.shape, train, validation, test, Identity())


def _archive(*places: str) -> tuple[Archive]:
    """Declare files in MAF's archive, of which the MD5 is known, but neither its size nor the hashes of the files."""
    contents = tuple(PublishedFile(f"maf/{place}", None, "") for place in places)
    url = "https://zenodo.org/record/1161203/files/data.tar.gz"
    return (Archive("maf/data.tar.gz", None, "md5:9b9c9b0375315ad270eba4ce80c093ab", url, contents),)


TABULAR = (
    Power("power", (6,), (1_659_917, 184_435, 204_928), archives=_archive("power/data.npy")),
    Gas("gas", (8,), (852_174, 94_685, 105_206)),
    Hepmass(
        "hepmass",
        (21,),
        (315_123, 35_013, 174_987),
        archives=_archive("hepmass/1000_train.csv", "hepmass/1000_test.csv"),
    ),
    Miniboone("miniboone", (43,), (29_556, 3_284, 3_648), archives=_archive("miniboone/data.npy")),
    Bsds300("bsds300", (63,), (1_000_000, 50_000, 250_000), archives=_archive("BSDS300/BSDS300.hdf5")),
)
