"""Packs: the same cells in few files, whatever kills the packing and whoever writes meanwhile."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.results import SCHEMA, Row, Store, file, to_frame
from harness.results import store as store_module
from harness.results.file import SCHEMA_VERSION, dump
from harness.results.seal import BLANK, KEY, seal

MakeRow = Callable[..., Row]
KILLS = int(os.environ.get("SURVIVAL_KILLS", "5"))


@pytest.fixture
def cell_of(make_cell_row: MakeRow) -> Callable[..., list[Row]]:
    """Make the two rows of a cell that is known by a number, under the key of its configuration."""

    def rows(number: int, value: float = 1.0, experiment: str = "runtime", **columns: Any) -> list[Row]:
        columns |= {"value": value, "experiment": experiment}
        return [make_cell_row(number, method=method, **columns) for method in ("ebflow-ml", "ebflow-dsm")]

    return rows


@pytest.fixture
def packed(tmp_path: Path, cell_of: Callable[..., list[Row]]) -> Store:
    """Five cells in a pack, the even ones with an array."""
    store = Store(tmp_path / "packed")
    for number in range(5):
        store.write(cell_of(number), arrays_of(number))
    assert store.pack() == 5
    return store


def arrays_of(number: int, value: float = 1.0) -> dict[str, np.ndarray]:
    """The arrays of a cell: none of every other cell."""
    return {} if number % 2 else {"samples": np.full((2, 3), value), "a/b": np.array([number], np.uint8)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def content(store: Store) -> dict[tuple[str, str], tuple[list[Row], dict[str, list[Any]]]]:
    """All that a store gives back, cell by cell; every cell is there once, and nothing is wrong."""
    frame, notes = store.frame()
    assert notes == []
    assert not frame.select("experiment", "cell", "method", "metric", "iteration").is_duplicated().any()
    cells = {}
    for experiment, cell in frame.select("experiment", "cell").unique().rows():
        rows = store.read(experiment, cell)
        own = frame.filter(pl.col("experiment") == experiment, pl.col("cell") == cell).select(*SCHEMA)
        assert own.equals(to_frame(rows))
        arrays = {name: [str(array.dtype), array.tolist()] for name, array in store.arrays(experiment, cell).items()}
        cells[experiment, cell] = rows, arrays
    return cells


def test_a_pack_is_two_files_and_holds_the_same(tmp_path: Path, cell_of: Callable[..., list[Row]]) -> None:
    single, packed = Store(tmp_path / "single"), Store(tmp_path / "packed")
    for store in (single, packed):
        for number in range(5):
            for experiment in ("runtime", "no arrays"):
                store.write(cell_of(number, experiment=experiment), {} if " " in experiment else arrays_of(number))
    assert packed.pack() == 10
    names = ["cells/no arrays.parquet", "cells/runtime.parquet", "cells/runtime.safetensors"]
    assert sorted(files(packed.folder)) == names
    assert sorted(path.name for path in (packed.folder / "cells").iterdir()) == [Path(name).name for name in names]
    assert content(packed) == content(Store(packed.folder)) == content(single)
    assert packed.frame()[0].equals(single.frame()[0])
    assert (packed.verify(), packed.notes) == (10, [])
    # Packing again changes nothing.
    before = files(packed.folder)
    assert packed.pack() == 0
    assert files(packed.folder) == before


def test_a_pack_writes_equal_arrays_once(tmp_path: Path, cell_of: Callable[..., list[Row]]) -> None:
    store, real = Store(tmp_path), np.arange(1000, dtype=np.uint8)
    for number in range(4):
        # The same bytes in another shape or of another type are another array.
        own = {"real": real, "shaped": real.reshape(4, 250), "signed": real.view(np.int8), "own": real + number}
        store.write(cell_of(number), own)
    before = content(store)
    assert store.pack() == 4
    assert content(store) == before
    path = store.pack_path("runtime").with_suffix(".safetensors")
    assert 6_000 < path.stat().st_size < 8_000  # three arrays that all cells have, and three more of one cell each
    # The cell under whose name they are written may go: the others keep them.
    first = min(cell for _, cell in before)
    number = next(number for number in range(4) if cell_of(number)[0].cell == first)
    store.write(cell_of(number, 2.0))
    assert store.pack() == 1
    assert {key: own for key, own in content(store).items() if key[1] != first} == {
        key: own for key, own in before.items() if key[1] != first
    }
    assert store.arrays("runtime", first) == {}


def test_a_single_file_counts_before_the_packed_cell(packed: Store, cell_of: Callable[..., list[Row]]) -> None:
    packed.write(cell_of(0, 2.0))
    packed.write(cell_of(1, 3.0), arrays_of(0))
    values = dict(packed.frame()[0].select("cell", "value").unique().rows())
    keys = [cell_of(number)[0].cell for number in range(5)]
    assert values == dict(zip(keys, [2.0, 3.0, 1.0, 1.0, 1.0], strict=True))
    assert packed.read("runtime", keys[0]) == cell_of(0, 2.0)
    # Measured again without arrays, a cell does not keep those of before.
    assert packed.arrays("runtime", keys[0]) == {}
    before = content(packed)
    assert packed.verify() == 5
    assert packed.pack() == 2
    assert content(packed) == before
    assert sorted(files(packed.folder)) == ["cells/runtime.parquet", "cells/runtime.safetensors"]
    for number in (1, 2, 4):
        packed.write(cell_of(number))
    packed.pack()
    assert sorted(files(packed.folder)) == ["cells/runtime.parquet"]


def test_a_damaged_single_file_gives_way_to_the_packed_cell(packed: Store, cell_of: Callable[..., list[Row]]) -> None:
    bad = packed.write(cell_of(3, 2.0))
    bad.write_bytes(b"PAR1")
    assert packed.read("runtime", bad.stem) == cell_of(3)
    assert not bad.exists()
    assert len(packed.notes) == 1


def test_a_pack_is_parsed_once_and_again_when_it_changes(
    packed: Store, cell_of: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []

    def counted(content: bytes, experiment: str) -> Any:
        parsed.append(experiment)
        return file.load_pack(content, experiment)

    monkeypatch.setattr(store_module, "load_pack", counted)
    store = Store(packed.folder)
    for _ in range(3):
        for number in range(5):
            assert store.read("runtime", cell_of(number)[0].cell) == cell_of(number)
            store.arrays("runtime", cell_of(number)[0].cell)
    assert parsed == ["runtime"]
    packed.write(cell_of(5))
    packed.pack()
    parsed.clear()
    assert store.read("runtime", cell_of(5)[0].cell) == cell_of(5)
    assert len(store.frame()[0]) == 12
    assert parsed == ["runtime"]


@pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
def test_every_flipped_byte_of_a_pack_is_found(suffix: str, packed: Store, cell_of: Callable[..., list[Row]]) -> None:
    path = packed.pack_path("runtime").with_suffix(suffix)
    whole = path.read_bytes()
    cell = cell_of(0)[0].cell
    places = range(0, len(whole), 97)
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        store = Store(packed.folder)
        if suffix == ".parquet":
            assert store.read("runtime", cell) == []
            assert store.notes[0].startswith(f"{path}: not a readable pack (")
            assert not path.exists()
        else:
            assert store.arrays("runtime", cell) == {}
            assert store.notes[0].startswith(f"{path}: no readable arrays (")
            assert store.verify() == 5
    if suffix == ".parquet":
        assert len(list((packed.folder / "damaged").iterdir())) == len(places)


def test_a_bad_cell_of_a_pack_is_named_and_the_others_are_read(
    packed: Store, cell_of: Callable[..., list[Row]], tmp_path: Path
) -> None:
    bad, good = cell_of(0)[0].cell, cell_of(1)[0].cell
    path = packed.pack_path("runtime")
    half = pl.when((pl.col("cell") == bad) & (pl.col("method") == "ebflow-ml")).then(pl.lit("great"))
    path.write_bytes(dump(packed.frame()[0].select(*SCHEMA).with_columns(status=half.otherwise("status"))))
    reason = f"cell {bad}: it holds a row whose status and value contradict each other"
    frame, notes = packed.frame()
    assert len(frame) == 8
    assert [note for note in notes if note.startswith(f"{path}: ") and reason in note] == notes != []
    assert packed.read("runtime", bad) == []
    assert packed.read("runtime", good) == cell_of(1)
    assert packed.verify() == 4
    merged = Store(tmp_path / "merged").merge(packed)
    assert (merged.taken, merged.left_out, merged.notes) == (4, 1, [f"{path}: left out: {reason}"])
    # Packing keeps it, and measured again it is whole.
    packed.write(cell_of(5))
    packed.pack()
    assert bad in pl.read_parquet(path)["cell"]
    packed.write(cell_of(0), arrays_of(0))
    packed.pack()
    assert Store(packed.folder).verify() == 6


def test_altered_cells_of_a_pack_are_found_out_by_their_key(packed: Store, cell_of: Callable[..., list[Row]]) -> None:
    bad = cell_of(0)[0].cell
    path = packed.pack_path("runtime")
    config = pl.when(pl.col("cell") == bad).then(pl.lit(cell_of(17)[0].config)).otherwise("config")
    path.write_bytes(dump(packed.frame()[0].select(*SCHEMA).with_columns(config=config)))
    assert packed.verify() == 4
    (note,) = packed.notes
    assert note.startswith(f"{path}: not readable: cell {bad}: its configuration is that of cell ")


@pytest.mark.parametrize("cell", ["../../outside", "a/b"])
def test_no_cell_of_a_pack_leads_out_of_the_folder(cell: str, packed: Store, tmp_path: Path) -> None:
    path = packed.pack_path("runtime")
    path.write_bytes(
        dump(packed.frame()[0].select(*SCHEMA).with_columns(cell=pl.lit(cell), method=pl.int_range(10).cast(pl.String)))
    )
    assert packed.frame()[0].is_empty()
    assert "its key is no file's name" in packed.notes[0]
    assert Store(tmp_path / "merged").merge(packed).left_out == 1
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def test_a_pack_of_another_experiment_is_not_read(packed: Store) -> None:
    packed.pack_path("runtime").rename(packed.pack_path("table"))
    assert packed.frame()[0].is_empty()
    assert all("it holds rows of experiment runtime, which belong elsewhere" in note for note in packed.notes)
    assert len(packed.notes) == 5


def test_a_pack_of_a_later_version_stays(packed: Store, cell_of: Callable[..., list[Row]]) -> None:
    path = packed.pack_path("runtime")
    later = seal_of_version(packed.frame()[0].select(*SCHEMA), SCHEMA_VERSION + 1)
    path.write_bytes(later)
    reason = f"it is of version {SCHEMA_VERSION + 1} of the schema"
    with pytest.raises(InputError, match=reason):
        packed.read("runtime", cell_of(0)[0].cell)
    packed.write(cell_of(6))
    assert packed.pack() == 0
    assert path.read_bytes() == later
    assert len(packed.frame()[0]) == 2
    assert reason in packed.notes[0]


def seal_of_version(frame: pl.DataFrame, version: int) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, metadata={"schema": str(version), KEY: BLANK})
    return seal(buffer.getvalue())


def test_damaged_arrays_are_not_packed(packed: Store, cell_of: Callable[..., list[Row]]) -> None:
    path = packed.write(cell_of(0, 2.0), arrays_of(0)).with_suffix(".safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    packed.write(cell_of(6), arrays_of(6))
    assert packed.pack() == 1
    assert path.exists()
    assert packed.read("runtime", path.stem) == cell_of(0, 2.0)
    # Damaged arrays in the pack are moved out of the way of the new ones.
    beside = packed.pack_path("runtime").with_suffix(".safetensors")
    damaged = beside.read_bytes()[:-1]
    beside.write_bytes(damaged)
    packed.write(cell_of(8), arrays_of(8))
    assert packed.pack() == 1
    assert (packed.folder / "damaged" / beside.name).read_bytes() == damaged
    assert packed.arrays("runtime", cell_of(8)[0].cell)["a/b"].tolist() == [8]
    assert packed.arrays("runtime", cell_of(6)[0].cell) == {}


def test_what_could_not_be_read_again_is_not_packed(
    packed: Store, cell_of: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Read back, the name has another character in place of the one that steers a terminal.
    odd = packed.write(cell_of(0, experiment="a\x7fb"))
    assert packed.pack() == 0
    assert odd.exists()
    assert "the cells stay in single files" in packed.notes[0]
    single = packed.write(cell_of(7))
    before = files(packed.folder)
    monkeypatch.setattr(store_module, "_LARGEST", max(len(kept) for kept in before.values()) + 1)
    assert packed.pack() == 0
    assert files(packed.folder) == before
    assert single.exists()


def test_a_folder_that_cannot_be_locked_is_not_packed(
    packed: Store, cell_of: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, kind: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(store_module.fcntl, "flock", refuse)
    path = packed.write(cell_of(7))
    with pytest.raises(InputError, match="cannot be packed"):
        packed.pack()
    assert path.exists()


EXPERIMENTS = ["runtime", "a.b", "Table 1 [2-D] *", "é", ".hidden", "runtime.parquet-"]
CELLS = st.dictionaries(
    st.tuples(st.sampled_from(EXPERIMENTS), st.integers(0, 5)), st.floats(1.0, 9.0).map(round), max_size=6
)


@settings(
    max_examples=10,
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(first=CELLS, then=CELLS, other=CELLS, data=st.data())
def test_packing_is_never_seen(
    first: dict[tuple[str, int], int],
    then: dict[tuple[str, int], int],
    other: dict[tuple[str, int], int],
    data: st.DataObject,
    tmp_path: Path,
    cell_of: Callable[..., list[Row]],
) -> None:
    def fill(stores: list[Store], cells: dict[tuple[str, int], int], order: bool = False) -> None:
        for store in stores:
            entries = list(cells.items())
            if order:
                entries = data.draw(st.permutations(entries))
            for (experiment, number), value in entries:
                store.write(cell_of(number, float(value), experiment), arrays_of(number, value))

    with tempfile.TemporaryDirectory(dir=tmp_path) as name:
        plain, packed, again, theirs, theirs_packed, into, into_packed = (
            Store(Path(name) / each) for each in "abcdefg"
        )
        fill([plain, packed], first)
        assert packed.pack() == len(first)
        fill([plain, packed], then)
        assert content(packed) == content(plain)
        assert packed.verify() == plain.verify() == len(first | then)
        packed.pack()
        # The same cells in the same files, whatever the order in which they came.
        fill([again], first | then, order=True)
        again.pack()
        assert files(again.folder) == files(packed.folder)
        assert content(packed) == content(Store(packed.folder)) == content(plain)
        # Merged from and into either, all agree.
        fill([theirs, theirs_packed], other)
        theirs_packed.pack()
        into.merge(plain)
        into_packed.merge(packed)
        into_packed.pack()
        before = files(theirs_packed.folder)
        reports = [into.merge(theirs), into_packed.merge(theirs_packed)]
        assert files(theirs_packed.folder) == before
        assert [report.taken for report in reports] == [len(other.keys() - (first | then).keys())] * 2
        assert [report.left_out for report in reports] == [0, 0]
        assert content(into_packed) == content(into)
        into_packed.pack()
        into.pack()
        assert files(into_packed.folder) == files(into.folder)


_PACK = """
import os, sys
from pathlib import Path
from harness.results import Store

left = int(sys.argv[2])
def counted(operation):
    def count(*arguments, **named):
        global left
        if (left := left - 1) < 0:
            os._exit(9)
        return operation(*arguments, **named)
    return count

os.fsync, Path.replace, Path.unlink = map(counted, (os.fsync, Path.replace, Path.unlink))
Path.rmdir = counted(Path.rmdir)
Store(Path(sys.argv[1])).pack()
"""


def test_a_kill_at_any_step_of_packing_loses_nothing(
    tmp_path: Path, packed: Store, cell_of: Callable[..., list[Row]]
) -> None:
    # One new cell, one measured again, and one measured again without its arrays.
    for number in (0, 2, 6):
        packed.write(cell_of(number, 5.0), arrays_of(number, 5.0) if number else {})
    before, start = content(packed), files(packed.folder)
    packed.pack()
    end = files(packed.folder)
    assert sorted(end) == ["cells/runtime.parquet", "cells/runtime.safetensors"]
    statuses = []
    while not statuses or statuses[-1] == 9:
        folder = tmp_path / str(len(statuses))
        for name, kept in start.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(kept)
        done = subprocess.run([sys.executable, "-c", _PACK, str(folder), str(len(statuses))], check=False)
        statuses.append(done.returncode)
        assert content(Store(folder)) == before
        assert Store(folder).verify() == len(before)
        Store(folder).pack()
        assert content(Store(folder)) == before
        kept = {name: whole for name, whole in files(folder).items() if not Path(name).name.startswith(".")}
        assert kept == end
    assert statuses[-1] == 0
    assert len(statuses) > 8


_REPEAT = """
import sys
from pathlib import Path
from harness.results import Store

print("ready", flush=True)
Store(Path(sys.argv[1])).pack()
"""


def test_packing_is_killed_again_and_again(tmp_path: Path, cell_of: Callable[..., list[Row]]) -> None:
    chance, store = random.Random(0), Store(tmp_path)
    values: dict[int, float] = {}
    for _ in range(KILLS):
        for number in chance.sample(range(60), 20):
            values[number] = chance.random() + 1
            store.write(cell_of(number, values[number]), arrays_of(number, values[number]))
        packing = subprocess.Popen([sys.executable, "-c", _REPEAT, str(tmp_path)], stdout=subprocess.PIPE)
        assert packing.stdout is not None
        assert packing.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0, 0.2))
        packing.kill()
        packing.wait()
        packing.stdout.close()
        cells = content(Store(tmp_path))
        assert cells == {
            ("runtime", cell_of(number)[0].cell): (
                cell_of(number, value),
                {name: [str(own.dtype), own.tolist()] for name, own in arrays_of(number, value).items()},
            )
            for number, value in values.items()
        }
        assert Store(tmp_path).verify() == len(values)


@pytest.fixture
def packers(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes that pack a folder again and again, until they are stopped."""
    program = _REPEAT.replace("Store(", "while True: Store(")
    processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(2)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_eight_processes_write_while_two_pack(
    tmp_path: Path,
    eight_writers: Callable[[Path], list[subprocess.Popen[bytes]]],
    packers: list[subprocess.Popen[bytes]],
) -> None:
    writers = eight_writers(tmp_path)
    reader, seen = Store(tmp_path), 0
    while any(writer.poll() is None for writer in writers):
        frame, notes = reader.frame()
        assert notes == []
        assert not frame["cell"].is_duplicated().any()
        assert len(frame) >= seen, "a cell that was there is never missed"
        seen = len(frame)
    assert [writer.wait() for writer in writers] == [0] * 8
    assert [packer.poll() for packer in packers] == [None, None]
    for packer in packers:
        packer.kill()
        packer.wait()
    store = Store(tmp_path)
    store.pack()
    assert (store.verify(), store.notes) == (40, [])
    assert sorted(store.frame()[0]["value"]) == list(range(1, 41))
    for cell, value in store.frame()[0].select("cell", "value").rows():
        assert store.arrays("runtime", cell)["samples"].tolist() == [value] * 1000
    names = sorted(name for name in files(tmp_path) if not Path(name).name.startswith("."))
    assert names == ["cells/runtime.parquet", "cells/runtime.safetensors"]
