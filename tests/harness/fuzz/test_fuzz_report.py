"""Rows that a store accepts, however odd: every table, figure, claim and page is made, or says why in its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_rows import odd_cells

from harness.report import page, publish, summary
from harness.report.claims import CLAIMS
from harness.report.figures import chart, drawings, runtime, sheet
from harness.report.tables import leaderboard
from harness.report.tables.text import to_html
from harness.results import Row, Store, to_frame
from harness.results.derived import derived
from harness.results.store import load_results
from harness.results.verification import verify
from harness.timing.asv_results import HISTORY

_FEW = max(settings().max_examples // 8, 1)
_NO_HISTORY = pl.DataFrame(schema=HISTORY | {"ratio": pl.Float64, "change": pl.String})


@settings(max_examples=2 * _FEW)
@given(cells=odd_cells())
def test_tables_claims_and_leaderboard_are_made(cells: list[list[Row]], within_time: Callable[..., Any]) -> None:
    rows = derived(pl.concat([to_frame(cell) for cell in cells]))
    with within_time():
        for one in publish.pages(rows):
            assert "why there is no table" not in one.frame.columns, one.frame.rows()
            assert len(one.cells) == one.frame.height
            assert one.text().startswith(f"## {one.title}")
            to_html(one.frame)
        for claim in CLAIMS:
            for evidence in claim.weigh(rows)[1]:
                assert "cannot be judged" not in evidence.text, evidence.text
        leaderboard.text(rows)
        told = summary.summary(rows, to_frame(cells[0]), [], page=Path("report.html"))
        assert len(told) <= summary.LINES


@settings(max_examples=_FEW)
@given(cells=odd_cells())
def test_figures_and_the_page_are_made(
    cells: list[list[Row]], within_time: Callable[..., Any], empty_folder: Callable[..., Any]
) -> None:
    """Numbers near the largest there is may end in a figure that says so; what fails in our own code is a defect."""
    rows = derived(pl.concat([to_frame(cell) for cell in cells]))
    with empty_folder() as folder, within_time():
        store = Store(folder)
        drawn = list(drawings(rows, store))
        for one in drawn:
            assert "a figure is missing" not in one.title, one.content
        assert all(path.read_text().startswith("<svg") for path in publish.write_drawings(drawn, folder))
        publish.write_tables(publish.pages(rows), folder)
        text = page.build(rows, store, _NO_HISTORY)
        assert text.count('<details id="cell-') == len(cells)
        assert "why there is no table" not in text


@settings(max_examples=_FEW)
@given(cells=odd_cells(), packed=st.booleans())
def test_a_store_of_them_is_written_read_merged_packed_and_checked(
    cells: list[list[Row]], packed: bool, within_time: Callable[..., Any], empty_folder: Callable[..., Any]
) -> None:
    with empty_folder() as folder, within_time():
        store = Store(folder / "a b % é")
        for cell in cells:
            store.write(cell)
        if packed:
            assert store.pack() == len(cells)
        rows = load_results(store.folder)
        expected = derived(pl.concat([to_frame(cell) for cell in cells]))
        assert rows.sort("cell", maintain_order=True).equals(expected.sort("cell", maintain_order=True))
        assert all("\n" not in finding.text for finding in verify(store.folder))
        merged = Store(folder / "merged").merge(store)
        assert merged.taken + merged.left_out == len(cells)


@pytest.fixture
def two_sweeps(make_row: Callable[..., Row]) -> pl.DataFrame:
    """Timings of two architectures, from which a figure and tables of each are made."""
    sizes = [
        (network, name, D) for network in ("fc", "plain") for name in ("ebflow-ml", "ebflow-dsm") for D in (16, 64)
    ]
    rows = [make_row(architecture=network, method=name, D=D, shape=str(D)) for network, name, D in sizes]
    return derived(to_frame([dataclasses.replace(row, cell=f"{place:016x}") for place, row in enumerate(rows)]))


def _broken(*_: Any) -> Any:
    raise ZeroDivisionError("an <odd> row")


_REASON = "cannot be made from these rows: ZeroDivisionError: an <odd> row"


def test_a_table_that_cannot_be_made_says_so_in_its_place(
    two_sweeps: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [one.name for one in publish.pages(two_sweeps)]
    first, *others = publish.TABLES
    monkeypatch.setattr(publish, "TABLES", [dataclasses.replace(first, build=_broken), *others])
    pages = list(publish.pages(two_sweeps))
    assert [one.name for one in pages] == names
    assert [_REASON in one.text() for one in pages] == [True, *[False] * (len(names) - 1)]
    assert len(pages[0].cells[0]) == 8
    assert _REASON.replace("<odd>", "&lt;odd&gt;") in page.build(two_sweeps, Store(tmp_path), _NO_HISTORY)


def test_a_caveat_that_cannot_be_told_takes_its_table_alone(
    two_sweeps: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = publish.TABLES
    monkeypatch.setattr(publish, "TABLES", [dataclasses.replace(first, caveats=_broken), *others])
    assert [_REASON in one.text() for one in publish.pages(two_sweeps)].count(True) == 1


def test_a_claim_that_cannot_be_judged_says_so(two_sweeps: pl.DataFrame) -> None:
    verdict, (evidence,) = dataclasses.replace(CLAIMS[0], compare=_broken).weigh(two_sweeps)
    assert verdict == "not enough measured"
    assert (evidence.outcome, evidence.cells) == ("open", ())
    assert evidence.text == "cannot be judged from these rows: ZeroDivisionError: an <odd> row"


def test_a_leaderboard_that_cannot_be_made_says_so(
    two_sweeps: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaderboard, "entries", _broken)
    assert _REASON.replace("<odd>", "&lt;odd&gt;") in page.build(two_sweeps, Store(tmp_path), _NO_HISTORY)
    (path,) = publish.write_leaderboard(two_sweeps, tmp_path)
    assert _REASON in path.read_text()


def test_a_figure_that_cannot_be_made_says_so_in_its_place(
    two_sweeps: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [drawn.name for drawn in drawings(two_sweeps, Store(tmp_path))]
    whole = runtime.runtime_figures

    def broken_at_plain(rows: pl.DataFrame) -> Iterator[chart.Drawing]:
        return _broken() if rows["architecture"][0] == "plain" else whole(rows)

    monkeypatch.setattr(runtime, "runtime_figures", broken_at_plain)
    drawn = list(drawings(two_sweeps, Store(tmp_path)))
    assert names == ["headline", "runtime-custom-fc-L2-seconds-over-D", "runtime-custom-plain-L2-seconds-over-D"]
    assert [one.name for one in drawn] == [*names[:2], "runtime-custom-normal-plain-runtime"]
    assert drawn[-1].title == "Time of a training iteration: a figure is missing"
    texts = [sheet.to_svg(one) for one in drawn]
    assert ["ZeroDivisionError" in text for text in texts] == [False, False, True]
    text = page.build(two_sweeps, Store(tmp_path), _NO_HISTORY)
    assert text.count("cannot be drawn from these rows: ZeroDivisionError: an &lt;odd&gt; row") == 1


def test_a_figure_that_matplotlib_cannot_draw_says_so(
    two_sweeps: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = drawings(two_sweeps, Store(tmp_path))
    monkeypatch.setattr(sheet, "_with_chart", _broken)
    text = sheet.to_svg(first)
    assert "ZeroDivisionError" in text
    assert first.title.split()[0] in text


def test_a_chart_that_the_script_of_the_page_cannot_read_says_so(two_sweeps: pl.DataFrame, tmp_path: Path) -> None:
    huge = two_sweeps.with_columns(value=pl.when(D=64).then(1e308).otherwise("value"))  # seconds; too many ms
    text = page.build(huge, Store(tmp_path), _NO_HISTORY)
    assert "Infinity" not in text.partition("</main>")[0]
    assert "cannot be drawn from these rows: ValueError: Out of range float values" in text
