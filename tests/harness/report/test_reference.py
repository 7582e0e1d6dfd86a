"""The derived files of the reference results are what its cells give; `tox -e render` makes them again."""

from __future__ import annotations

from pathlib import Path

from harness.report import publish
from harness.results import Store

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
AGAIN = "run `tox -e render`"


def assert_same(committed: Path, made: Path) -> None:
    ours, theirs = ({path.name: path for path in folder.iterdir()} for folder in (committed, made))
    assert ours.keys() == theirs.keys(), AGAIN
    assert [name for name in ours if ours[name].read_bytes() != theirs[name].read_bytes()] == [], AGAIN


def test_tables(tmp_path: Path) -> None:
    rows, _ = publish.with_asv(Store(REFERENCE).frame()[0], REFERENCE / "asv")
    publish.write_tables(publish.pages(rows), tmp_path)
    publish.write_leaderboard(rows, tmp_path)
    assert_same(REFERENCE / "tables", tmp_path / "tables")


def test_figures(tmp_path: Path) -> None:
    store = Store(REFERENCE)
    publish.write_figures(store.frame()[0], store, tmp_path)
    assert_same(REFERENCE / "figures", tmp_path / "figures")
