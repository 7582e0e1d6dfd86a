"""The one screen that a reproduction ends with: short, of few words, and of one mind with the page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cli import running
from harness.report import page, publish
from harness.report.claims import CLAIMS, Verdict
from harness.report.summary import LINES, WIDTH, summary
from harness.results import Row, Store, to_frame
from harness.results.derived import derived

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
PAGE = Path("kept/report.html")


def verdicts_of(lines: list[str]) -> dict[str, str]:
    """The verdict of every claim that has a line of its own."""
    return {
        claim.name: line.removeprefix(claim.short).strip()
        for claim in CLAIMS
        for line in lines
        if line.startswith(claim.short)
    }


def on_page(html: str, name: str) -> str:
    """The verdict that the page has at a claim."""
    text = re.sub("<[^>]*>", " ", html.split(f'id="claim-{name}"')[1])
    return min(
        (verdict for verdict in Verdict if verdict in text), key=lambda verdict: (text.index(verdict), -len(verdict))
    )


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """What a reproduction prints that ends in a copy of the reference results, drawings aside, and that copy."""
    store = Store(tmp_path_factory.mktemp("copy") / "reference")
    shutil.copytree(REFERENCE, store.folder)
    rows = [
        Row(**row) for row in to_frame([]).vstack(store.frame()[0].select(to_frame([]).columns)).iter_rows(named=True)
    ]
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "drawings", lambda *_: iter([]))
        patch.setattr(publish, "drawings", lambda *_: iter([]))
        patch.setattr("builtins.print", lambda text, **_: printed.append(text))
        running.show_summary(rows, store, quiet=True)
    return printed, store.folder


def test_it_is_one_screen(screen: tuple[list[str], Path]) -> None:
    lines, folder = screen
    assert len(lines) <= LINES == 60
    place = str(folder)
    assert max(len(line.replace(place, "results/local")) for line in lines) <= WIDTH == 100
    assert not any(line.startswith("|") for line in lines)
    assert lines[-1] == f"page: {folder / 'report.html'}"


def test_its_verdicts_are_those_of_the_page(screen: tuple[list[str], Path]) -> None:
    lines, folder = screen
    html = (folder / "report.html").read_text()
    told = verdicts_of(lines)
    assert set(told) == {claim.name for claim in CLAIMS}
    assert told == {claim.name: str(on_page(html, claim.name)) for claim in CLAIMS}


def test_every_claim_has_a_number_what_is_published_and_a_command(screen: tuple[list[str], Path]) -> None:
    text = " ".join(" ".join(screen[0]).split())
    for claim in CLAIMS:
        assert f"paper: {claim.published_short}; more: {claim.commands[0]}" in text


def told(rows: list[Row], files: tuple[Path, ...] = (), asked: list[Row] | None = None) -> list[str]:
    return summary(derived(to_frame(rows)), to_frame(rows if asked is None else asked), files, PAGE)


def test_claims_without_a_row_are_summed_up(make_row: Callable[..., Row]) -> None:
    lines = told([make_row(method=name, objective=name.split("-")[1], D=784) for name in ("ebflow-ml", "ebflow-dsm")])
    shown = set(verdicts_of(lines))
    (start,) = (number for number, line in enumerate(lines) if line.startswith("not measured here: "))
    summed_up = " ".join(line.strip() for line in lines[start:-1])
    assert "speed" in shown
    assert all(
        (claim.name in shown) != (f" {claim.name}," in summed_up or f" {claim.name};" in summed_up) for claim in CLAIMS
    )
    assert summed_up.endswith("; harness reproduce measures most of them")


def test_what_has_no_number_is_grouped_by_what_is_to_be_done(make_row: Callable[..., Row]) -> None:
    def without(status: str, reason: str, *methods: str) -> list[Row]:
        columns: dict[str, Any] = {"value": None, "ci_low": None, "ci_high": None, "status": status, "reason": reason}
        return [make_row(method=method, cell=f"{reason} {method}", **columns) for method in methods]

    missing = without("unavailable", "mnist is missing: harness fetch mnist", *(f"m{number}" for number in range(30)))
    library = without("unavailable", "zuko is not installed: pip install zuko", "zuko-maf-ml")
    wild = without("diverged", "not finite at step 1", "a") + without("diverged", "not finite at step 2", "b")
    lines = told([make_row()], asked=[make_row(), *library, *wild, *missing])
    start = lines.index("without a number:")
    assert lines[start + 1 : -1] == [
        "  30 cells (30 methods): mnist is missing: harness fetch mnist",
        "  2 cells (a, b): diverged; harness results show --results-dir kept --status diverged",
        "  1 cell (zuko-maf-ml): zuko is not installed: pip install zuko",
    ]
    assert "without a number:" not in told([make_row()])
    many = [row for number in range(200) for row in without("unavailable", f"library {number} is missing", "m")]
    lines = told([make_row()], asked=many)
    assert len(lines) == LINES
    assert lines[-2] == "  ...; harness results show --results-dir kept --status unavailable,failed,diverged"


def test_the_two_figures_that_tell_most_are_named(make_row: Callable[..., Row]) -> None:
    names = [
        "a",
        "table2-mnist-fc-quick-mnist-fc-likelihood",
        "headline",
        "digits-fc-quick-digits-fc-likelihood",
        "runtime-b",
    ]
    figures = [Path("kept/figures") / f"{name}.svg" for name in names]
    lines = told([make_row()], (*figures, Path("kept/tables/x.md"), Path("kept/tables/y.md")))
    assert lines[-4:] == [
        "figure: kept/figures/headline.svg",
        "figure: kept/figures/table2-mnist-fc-quick-mnist-fc-likelihood.svg",
        "tables: 2 in kept/tables; harness tables --results-dir kept",
        "page: kept/report.html",
    ]
    assert told([make_row()], (figures[0], figures[-1]))[-3] == f"figure: {figures[-1]}"  # of the experiment itself
