"""The numbers in pages of prose are those of the reference results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from harness.cli.program import app
from harness.errors import InputError
from harness.report.claims import CLAIMS
from harness.report.numbers import Numbers, render_page, write_page
from harness.results import Row, Store, to_frame
from harness.results.derived import derived

RESULTS = Path(__file__).parents[3] / "results"
SCORE, TIME = {"experiment": "train", "metric": "nll", "unit": "nats"}, {"D": 784, "L": 2, "unit": "s"}


@pytest.fixture(scope="module")
def reference() -> pl.DataFrame:
    rows, damaged = Store(RESULTS / "reference").frame()
    assert damaged == []
    return rows


@pytest.mark.parametrize("page", ["README.md", "results/README.md", "docs/verdicts.md"])
def test_the_committed_pages_are_what_the_rows_give(page: str, reference: pl.DataFrame) -> None:
    """A digit that is changed by hand, or rows that say something else, make this fail."""
    template = (RESULTS.parent / f"{page}.j2").read_text()
    assert render_page(template, reference) == (RESULTS.parent / page).read_text()


def test_the_pages_quote_the_computed_verdicts(reference: pl.DataFrame) -> None:
    for claim in CLAIMS:
        verdict = str(claim.weigh(reference)[0])
        assert f"| {claim.title} | {verdict} |" in (RESULTS.parent / "README.md").read_text()
        assert f"*{claim.title}* **{verdict.capitalize()}**" in (RESULTS / "README.md").read_text()


def test_a_page_follows_its_rows(reference: pl.DataFrame) -> None:
    """Whatever NLL is altered, the page that quotes it is another one."""
    template = (RESULTS / "README.md.j2").read_text()
    altered = reference.with_columns(
        value=pl.when(experiment="tuned-mnist-fc", metric="nll", method="ebflow-aml").then(970.0).otherwise("value")
    )
    page = render_page(template, altered)
    assert "970.0" in page
    assert page != (RESULTS / "README.md").read_text()


def test_one_number_is_found_by_its_columns(make_row: Callable[..., Row]) -> None:
    rows = [
        make_row(**SCORE, cell=f"{seed}", method="a", profile="paper", seed=seed, value=90.25 + seed) for seed in (0, 1)
    ]
    rows.append(make_row(**TIME, cell="t", experiment="runtime", method="a", architecture="fc", value=0.012))
    rows.append(make_row(**TIME | {"D": 3136}, cell="u", experiment="runtime", method="a", value=0.192))
    page = (
        "{{ nll('train', 'a', seed=1) | fixed }} nats, {{ ms('a', 784) | fixed(0) }} ms, {{ exponent('a', 784, 3136) }}"
    )
    assert render_page(page, derived(to_frame(rows))) == "91.2 nats, 12 ms, 2.0"


def test_trainings_are_compared_over_their_seeds(make_row: Callable[..., Row]) -> None:
    scores = {"a": (90.0, 92.0, 94.0), "b": (89.0, 91.1, 92.9), "one": (88.0,)}
    rows = [
        make_row(**SCORE, cell=f"{method}{seed}", method=method, seed=seed, value=value)
        for method, values in scores.items()
        for seed, value in enumerate(values)
    ]
    page = (
        "{{ mean('nll', method='a') | interval }}; {{ gap('nll', {'method': 'a'}, {'method': 'b'}) | interval(2) }}; "
        "{{ gap('nll', {'method': 'one'}, {'method': 'a'}) | interval(0) }}"
    )
    frame = derived(to_frame(rows))
    # Student's t at two degrees of freedom is 4.303; the standard errors are 2 / sqrt(3) and 0.1 / sqrt(3).
    assert render_page(page, frame) == "92.0 (87.0 to 97.0); 1.00 (0.75 to 1.25); -2"
    with pytest.raises(InputError, match=r"7 values of nll match .*, where one of each seed must"):
        Numbers(frame).mean("nll")
    with pytest.raises(InputError, match="there is no column colour"):
        Numbers(frame).mean("nll", colour="red")
    with pytest.raises(InputError, match="no seed is in both"):
        Numbers(frame).gap("nll", {"method": "one"}, {"method": "a", "seed": 2})


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"method": "a"}, "2 values of value match"),
        ({"method": "missing"}, "0 values of value match"),
        ({"method": "a", "seed": 0, "status": "failed"}, "0 values of value match"),
        ({"method": "a", "colour": "red"}, "there is no column colour"),
    ],
)
def test_anything_but_one_number_is_an_error(
    make_row: Callable[..., Row], wanted: dict[str, object], complaint: str
) -> None:
    rows = [make_row(**SCORE, cell=f"{seed}", method="a", seed=seed, value=90.0 + seed) for seed in (0, 1)]
    with pytest.raises(InputError, match=complaint):
        Numbers(derived(to_frame(rows))).value("nll", **wanted)


def test_tables_and_published_numbers_can_be_quoted(reference: pl.DataFrame) -> None:
    numbers = Numbers(reference)
    assert numbers.entry("time-to-level", "steps to it", "table2-mnist-fc", method="ebflow-ml") == 7500
    with pytest.raises(InputError, match="values of steps to it match"):
        numbers.entry("time-to-level", "steps to it", "table2-mnist-fc")
    assert numbers.published("fc", "dsm") == 1099.2
    assert numbers.published("fc", "ssm", EMA=False, MaP=False) == 1757.5
    assert numbers.prior("exact gradient") == 947.6


def test_a_page_is_written_beside_its_template(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    rows = derived(to_frame([make_row(**SCORE, method="a", profile="paper", value=90.25)]))
    template = tmp_path / "page.md.j2"
    template.write_text("{{ nll('train', 'a') | fixed }} nats\n")
    assert write_page(template, rows) == tmp_path / "page.md"
    assert (tmp_path / "page.md").read_text() == "90.2 nats\n"
    for wrong in (tmp_path / "page.md", tmp_path / "missing.md.j2"):
        with pytest.raises(InputError, match="no template"):
            write_page(wrong, rows)


def test_one_command_fills_in_a_page_with_tables_and_figures(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    Store(tmp_path / "some").write([make_row(**TIME, experiment="runtime", method="a", architecture="fc", value=0.012)])
    (tmp_path / "page.md.j2").write_text("{{ value('seconds_per_iteration', method='a') }} s\n")
    asked = ["results", "render", "--results-dir", f"{tmp_path}/some", "--page", f"{tmp_path}/page.md.j2"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "page.md").read_text() == "0.012 s\n"
    assert list(tmp_path.glob("some/tables/*.md"))
