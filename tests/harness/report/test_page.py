"""The page: self-contained, traceable, and deaf to whatever a results file says."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import itertools
import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from stored import stored_config

from harness.report.appendix import cells
from harness.report.claims import CLAIMS, QUESTIONS
from harness.report.page import build, write
from harness.report.series import series_table
from harness.report.tables.text import to_html
from harness.results import SCHEMA, Row, Store, to_frame
from harness.results.derived import derived
from harness.timing import asv_results

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
HOSTILE = (
    "<script>alert(1)</script>\"><img src=x onerror=alert(1)>'></style></title></pre></svg><svg onload=alert(1)>"
    r"{{ 7 * 7 }}]]>&lt;b&gt;$\frac{$"
)
NAMES = [name for name, kind in SCHEMA.items() if kind == pl.String and name not in ("config", "versions")]
NO_HISTORY = asv_results.history(Path("nowhere"))
TRAINING = stored_config("likelihood")


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    return derived(to_frame(rows))


class Elements(HTMLParser):
    """Every element of a page with its attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.code: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.elements and self.elements[-1][0] == "code":
            self.code.append(data)

    def attribute(self, name: str) -> list[str]:
        return [value or "" for _, found in self.elements if (value := found.get(name)) is not None]

    def assert_harmless(self) -> None:
        """Nothing in it runs or loads, whatever its text says."""
        tags = [tag for tag, _ in self.elements]
        scripts = [found.get("type") for tag, found in self.elements if tag == "script"]
        assert [kind for kind in scripts if kind != "application/json"] == [None]
        assert not {"iframe", "object", "embed", "form", "base"} & set(tags)
        images = [found["src"] or "" for tag, found in self.elements if tag == "img"]
        assert all(source.startswith("data:image/png;base64,") for source in images)
        assert [name for _, found in self.elements for name in found if name.startswith("on")] == []
        links = self.attribute("href") + self.attribute("xlink:href") + self.attribute("src")
        assert {link for link in links if not link.startswith("#")} <= {
            "data:,",
            "https://arxiv.org/abs/2305.15267",
            "page.parquet",
            "page.csv",
            *(link for link in links if link.startswith("data:image/png;base64,")),
        }
        assert "url(http" not in "".join(self.attribute("style"))


def page(rows: list[Row], tmp_path: Path, history: pl.DataFrame = NO_HISTORY) -> Elements:
    return Elements(build(frame(rows), Store(tmp_path), history))


def some(make_row: Callable[..., Row]) -> list[Row]:
    return [
        make_row(cell=f"{method}-{size}", method=method, D=size, value=size * 1e-3)
        for method in ("ebflow-ml", "ebflow-dsm")
        for size in (64, 256, 784)
    ]


@pytest.mark.parametrize("column", [*NAMES, "everything"])
def test_no_value_becomes_markup(column: str, make_row: Callable[..., Row], tmp_path: Path) -> None:
    columns = NAMES if column == "everything" else [column]
    text = HOSTILE if column != "started_at" else f"2025-01-01{HOSTILE}"
    rows = [dataclasses.replace(row, **dict.fromkeys(columns, text)) for row in some(make_row)]
    if column in ("status", "reason"):  # what has no number says why
        rows = [
            dataclasses.replace(row, value=None, status=row.status if column == "status" else "failed") for row in rows
        ]
    shown = page(rows, tmp_path)
    shown.assert_harmless()
    assert HOSTILE in shown.text or column == "objective"  # which no table has


def test_hostile_json_is_no_error(make_row: Callable[..., Row], tmp_path: Path) -> None:
    hostile = json.dumps({"kind": HOSTILE, "config": {HOSTILE: HOSTILE}, "torch": HOSTILE})
    for text in (hostile, f"no JSON {HOSTILE}", "[1]", "null", '{"config": null, "methods": "<b>"}'):
        page(
            [dataclasses.replace(row, config=text, versions=text) for row in some(make_row)], tmp_path
        ).assert_harmless()


def test_hostile_benchmarks(tmp_path: Path) -> None:
    frame = history([1.0, 3.0]).with_columns(
        pl.lit(HOSTILE).alias(name) for name in ("metric", "method", "cpu", "env", "commit")
    )
    table, settings = series_table(frame)
    shown = Elements(str(table))
    assert "img" not in {tag for tag, _ in shown.elements}
    assert HOSTILE in shown.text
    assert HOSTILE in settings


def test_tables_escape() -> None:
    frame = pl.DataFrame({"<b>": ['"><img>', None], "n": [1234, 5]})
    assert str(to_html(frame)) == (
        '<table>\n<thead><tr><th scope="col">&lt;b&gt;</th><th scope="col" class="number">n</th></tr></thead>\n'
        "<tbody>\n"
        '<tr><td>&#34;&gt;&lt;img&gt;</td><td class="number">1,234</td></tr>\n'
        '<tr><td></td><td class="number">5</td></tr>\n</tbody>\n</table>'
    )


def test_its_own_script_alone_may_run(make_row: Callable[..., Row], tmp_path: Path) -> None:
    text = build(frame(some(make_row)), Store(tmp_path), NO_HISTORY)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)
    assert "default-src 'none'" in policy
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def test_every_link_leads_somewhere(make_row: Callable[..., Row], tmp_path: Path) -> None:
    shown = page(some(make_row), tmp_path)
    inside = {link[1:] for link in shown.attribute("href") if link.startswith("#")}
    ids = shown.attribute("id")
    assert inside <= set(ids)
    assert {f"cell-ebflow-ml-{size}" for size in (64, 256, 784)} <= inside
    assert len(ids) == len(set(ids))


def test_claims_stand_below_the_question_that_they_answer(make_row: Callable[..., Row], tmp_path: Path) -> None:
    assert {claim.question for claim in CLAIMS} == set(QUESTIONS)
    text = build(frame(some(make_row)), Store(tmp_path), NO_HISTORY)
    parts = re.split(r'<section id="question-\d">\s*<h2>(.*?)</h2>', text)[1:]
    asked = dict(zip(map(html.unescape, parts[::2]), parts[1::2], strict=True))
    assert tuple(asked) == QUESTIONS
    for claim in CLAIMS:
        assert f'id="claim-{claim.name}"' in asked[claim.question]


def test_a_claim_has_its_figure_and_other_figures_are_folded(make_row: Callable[..., Row], tmp_path: Path) -> None:
    rows = [
        dataclasses.replace(row, cell="one", objective=row.method.removeprefix("ebflow-")) for row in some(make_row)
    ]
    text = build(frame(rows), Store(tmp_path), NO_HISTORY)
    first, folded = text.split('id="figures"')
    speed = first[first.index('id="claim-speed"') :].partition("</article>")[0]
    assert re.findall('<figure id="(.*?)"', speed) == ["figure-headline"]
    assert text.count('id="figure-headline"') == 1
    (chart, *_) = re.findall(r'<script type="application/json">(.*?)</script>', speed)
    assert [axis["label"] for axis in json.loads(chart)["xs"]] == ["dimension D"]
    assert {curve["family"] for curve in json.loads(chart)["curves"]} == {
        "score matching",
        "maximum likelihood, dense layers, every determinant",
    }
    assert "figure-runtime-custom-fc-L2-" in first + folded


def test_all_rows_lie_beside_the_page(make_row: Callable[..., Row], tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.write([make_row()])
    assert write(store, tmp_path / "asv", tmp_path / "page.html") == []
    tables = pl.read_parquet(tmp_path / "page.parquet"), pl.read_csv(tmp_path / "page.csv")
    assert [table["value"].to_list() for table in tables] == [[make_row().value]] * 2
    assert set(SCHEMA) | {"command"} == set(tables[0].columns)
    assert set(tables[0].columns) - set(tables[1].columns) == {"config", "versions"}
    shown = Elements((tmp_path / "page.html").read_text())
    assert {"page.parquet", "page.csv"} <= set(shown.attribute("href"))


def test_every_claim_has_its_verdict_rule_and_command(make_row: Callable[..., Row], tmp_path: Path) -> None:
    shown = page(some(make_row), tmp_path)
    for claim in CLAIMS:
        for text in (claim.title, claim.published, claim.rule, *claim.commands):
            assert text in shown.text
    assert "not enough measured" in shown.text


def test_full_precision_is_in_the_appendix(make_row: Callable[..., Row], tmp_path: Path) -> None:
    shown = page([make_row(value=0.12345678901234567, commit=None)], tmp_path)
    assert f"ebflow-ml seconds_per_iteration = {0.12345678901234567!r} s [0.4, 0.6] n = 15" in shown.text
    assert "commit unknown, a cpu, 2 cores, threads = 2" in shown.text


def test_curves_are_tables_in_the_appendix(make_row: Callable[..., Row]) -> None:
    followed = [
        ("validation_curve", 100, 1.5, 0.12345678901234567),
        ("gradient_norm", 100, 1.5, 2.0),
        ("validation_curve", 200, 3.25, -1e-300),
        ("nll_of_draw", 0, None, 7.0),
        ("nll_of_draw", 1, None, 8.0),
    ]
    rows = [
        make_row(metric=metric, unit="nats", iteration=step, seconds=seconds, value=value, n=1)
        for metric, step, seconds, value in followed
    ]
    rows.append(make_row(metric="nll", unit="nats", value=7.5, n=2))
    rows.append(make_row(metric="validation_curve", iteration=300, value=None, status="diverged", reason="why", n=1))
    (cell,) = cells(frame(rows))
    text = html.unescape(cell["text"])
    assert "ebflow-ml nll = 7.5 nats [0.4, 0.6] n = 2\n" in text
    assert "ebflow-ml validation_curve at step 300 diverged why\n" in text
    of_steps, of_draws = (
        "iteration,seconds,ebflow-ml validation_curve (nats),ebflow-ml gradient_norm (nats)\n"
        f"100,1.5,{0.12345678901234567!r},2.0\n200,3.25,-1e-300,\n",
        "iteration,ebflow-ml nll_of_draw (nats)\n0,7.0\n1,8.0\n",
    )
    assert of_steps in text
    assert of_draws in text


def test_what_is_missing(make_row: Callable[..., Row], tmp_path: Path) -> None:
    rows = [
        make_row(cell="bad", value=None, status="unavailable", reason="needs a library"),
        make_row(
            cell="short",
            recipe="paper, 60 of 10,000 epochs",
            experiment="table2-mnist-fc",
            profile="paper",
            config=TRAINING,
        ),
        make_row(cell="quick", experiment="log-z", profile="quick"),
    ]
    text = page(rows, tmp_path).text
    for part in ("needs a library", "60 of 10,000 epochs", "harness reproduce glow-mnist", "D up to 64 alone"):
        assert part in text
    assert "harness reproduce log-z --profile paper" in text


def test_every_cell_has_the_command_that_measures_it_again(make_row: Callable[..., Row], tmp_path: Path) -> None:
    timed = stored_config("runtime", origin={"argv": ["runtime", "--architecture", "fc"]})
    rows = [make_row(config=timed), make_row(cell="b", experiment="asv"), make_row(cell="c", config="no JSON")]
    command = "harness runtime --architecture fc --threads 2"
    shown = [
        text
        for text in page(rows, tmp_path).code
        if text.startswith(("harness runtime --architecture fc", "asv run '"))
    ]
    assert shown == [f"asv run '{'c' * 40}^!'", command]


def history(seconds: list[float]) -> pl.DataFrame:
    rows = [
        (
            "seconds_per_iteration",
            "ebflow-dsm",
            64,
            2,
            "a cpu",
            "env",
            "c",
            f"{n}" * 40,
            n * 86_400_000,
            value,
            value,
            value,
        )
        for n, value in enumerate(seconds)
    ]
    names = ["metric", "method", "D", "L", "cpu", "env", "cell", "commit", "date", "value", "ci_low", "ci_high"]
    types = {**asv_results.HISTORY, "date": pl.Int64}
    frame = pl.DataFrame(rows, schema={name: types[name] for name in names}, orient="row")
    change = [None, *("slower" if b > a else None for a, b in itertools.pairwise(seconds))]
    ratio = [None, *(b / a for a, b in itertools.pairwise(seconds))]
    return frame.with_columns(pl.col("date").cast(pl.Datetime("ms", "UTC"))).with_columns(
        pl.Series("ratio", ratio, pl.Float64), pl.Series("change", change, pl.String)
    )


def test_sparklines_mark_what_changed() -> None:
    table, settings = series_table(history([0.001, 0.003, 0.003]))
    shown = Elements(str(table))
    assert [found["class"] for tag, found in shown.elements if tag == "polygon"] == ["slower"]
    assert [tag for tag, _ in shown.elements].count("circle") == 2
    assert "slower at 11111111 (3.00 times)" in shown.text
    assert "11111111, 1970-01-02: 3 ms, 3.00 times the commit before" in shown.text
    assert settings == "L = 2, cpu = a cpu"


def test_the_command_writes_a_page(run: Callable[..., Any], make_row: Callable[..., Row], tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.write([make_row()])
    (tmp_path / "results/cells/runtime/broken.parquet").write_text("?")
    path = tmp_path / "page.html"
    ended = run("report", "--results-dir", str(store.folder), "--output", str(path))
    assert (ended.status, ended.out) == (0, f"{path}\n")
    assert "broken.parquet: not a readable cell" in ended.err
    text = path.read_text()
    Elements(text).assert_harmless()
    assert "broken.parquet: not a readable cell" in text
    assert run("report", "--results-dir", str(store.folder), "--output", str(tmp_path / "new/page.html")).status == 0
    assert "Files that could not be read" in (tmp_path / "new/page.html").read_text()
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"page.html", "page.parquet", "page.csv"}


def test_nothing_to_report(run: Callable[..., Any], tmp_path: Path) -> None:
    ended = run("report", "--results-dir", str(tmp_path / "empty"), "--output", "page.html")
    assert (ended.status, ended.out) == (2, "")
    assert "no results in" in ended.err
    assert not (tmp_path / "empty").exists()


def test_a_page_that_cannot_be_written(run: Callable[..., Any], make_row: Callable[..., Row], tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.write([make_row()])
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file" / "page.html", tmp_path / "results"):
        ended = run("report", "--results-dir", str(store.folder), "--output", str(output))
        assert (ended.status, ended.out) == (2, "")
        assert "choose another --output" in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "here", "results"]


def test_damaged_files_of_asv_are_named(make_row: Callable[..., Row], tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.write([make_row()])
    (tmp_path / "asv/box").mkdir(parents=True)
    (tmp_path / "asv/box/bad.json").write_text("<b>")
    (note,) = write(store, tmp_path / "asv", tmp_path / "page.html")
    assert "bad.json: not a readable asv result" in note
    assert "bad.json: not a readable asv result" in (tmp_path / "page.html").read_text()
