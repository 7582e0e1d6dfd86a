"""The leaderboard on stores small enough to be ranked by hand."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from stored import stored_config

import harness
from harness.errors import InputError
from harness.report.figures.chart import Chart
from harness.report.figures.profiles import profile_figures
from harness.report.page import build
from harness.report.tables import leaderboard
from harness.results import SCHEMA, Row, Store, to_frame
from harness.results.derived import DERIVED, derived
from harness.results.schema import BETTER_THAN_TRUTH
from harness.timing import asv_results

Training = Callable[..., list[Row]]


@pytest.fixture
def training(make_row: Callable[..., Row]) -> Training:
    """The rows of one training: test NLL, validation NLL, seconds, memory, and the validation curve."""

    def make(
        method: str,
        dataset: str,
        nll: float | None,
        validation: float | None = None,
        curve: tuple[tuple[float, float], ...] = (),
        *,
        project: str = "0.2.0",
        shortened: bool = False,
        smooth_noise: float | None = None,
        layers: int | None = None,
        memory: float | None = None,
        **changes: Any,
    ) -> list[Row]:
        seed, recipe = changes.get("seed", 0), changes.get("recipe", "tuned")
        identity = {"method": method, "dataset": dataset, "recipe": recipe, "project": project}
        overrides = {} if layers is None else {"layers": layers}
        origin = {"recipe": "tuned", "shortened": shortened, "overrides": overrides}
        config = json.loads(stored_config("likelihood", origin=origin, **identity))
        config["settings"]["smooth_noise"] = smooth_noise
        columns: dict[str, Any] = {
            "cell": f"{method}-{dataset}-{recipe}-{project}-{seed}",
            "experiment": "train",
            "recipe": recipe,
            "method": method,
            "objective": "dsm" if method.endswith("dsm") else "ml",
            "dataset": dataset,
            "D": 10,
            "unit": "nats",
            "ci_low": None,
            "ci_high": None,
            "n": 1,
            "config": json.dumps(config),
            **changes,
        }
        if nll is None:
            failed = {"status": "diverged", "reason": "a loss was not finite"}
            return [make_row(**{**columns, "metric": "nll", "value": None, **failed})]
        rows = [make_row(**{**columns, "metric": "nll", "value": nll})]
        plain = {**columns, "reason": None, "ci_low": None, "ci_high": None}
        numbers = {"validation_nll": nll if validation is None else validation, "training_seconds": 10.0 + seed}
        numbers |= {} if memory is None else {"peak_memory": memory}
        rows += [make_row(**{**plain, "metric": metric, "value": value}) for metric, value in numbers.items()]
        for step, (seconds, value) in enumerate(curve):
            at = {"iteration": step, "seconds": seconds, "metric": "validation_curve", "value": value}
            rows.append(make_row(**{**plain, **at}))
        return rows

    return make


def frame(*trainings: list[Row]) -> pl.DataFrame:
    return derived(to_frame(row for rows in trainings for row in rows))


def column(board: pl.DataFrame, name: str, key: str = "method") -> dict[str, Any]:
    return dict(board.select(key, name).iter_rows())


def test_ranks_share_ties_and_leave_out_what_is_missing(training: Training) -> None:
    rows = frame(
        *(training(name, "one", nll) for name, nll in [("a-ml", 1.0), ("b-ml", 2.0), ("c-ml", 2.0004), ("d-ml", 5.0)]),
        training("e-ml", "one", None),
        training("d-ml", "two", -7.0),
        training("a-ml", "two", -6.0),
        training("b-ml", "alone", 3.0),
    )
    board = leaderboard.entries(rows)
    one = board.filter(dataset="one")
    assert column(one, "rank") == {"a-ml": 1, "b-ml": 2.5, "c-ml": 2.5, "d-ml": 4, "e-ml": None}
    assert set(one["ranked"]) == {4}
    assert column(one, "gap") == pytest.approx({"a-ml": 0, "b-ml": 0.1, "c-ml": 0.10004, "d-ml": 0.4, "e-ml": math.inf})
    table = leaderboard.standings(board)
    # A place of 1 among one method is no rank, and a method with one of two datasets is not fewer than half of them.
    assert column(table, "mean rank") == {"a-ml": 1.5, "b-ml": 2.5, "c-ml": 2.5, "d-ml": 2.5, "e-ml": None}
    assert column(table, "datasets") == {"a-ml": 2, "b-ml": 1, "c-ml": 1, "d-ml": 2, "e-ml": 0}
    assert column(table, "two, nats") == {"a-ml": "-6.000", "b-ml": None, "c-ml": None, "d-ml": "-7.000", "e-ml": None}
    assert column(one, "status")["e-ml"] == "diverged: a loss was not finite"


def test_methods_with_few_datasets_stand_below(training: Training) -> None:
    names = ("one", "two", "three")
    both = [training(method, name, nll) for method, nll in (("a-ml", 1.0), ("b-ml", 2.0)) for name in names]
    table = leaderboard.standings(leaderboard.entries(frame(*both, training("c-ml", "one", 0.0))))
    assert table.select("method", "mean rank", "datasets").rows() == [
        ("a-ml", pytest.approx(4 / 3), 3),
        ("b-ml", pytest.approx(7 / 3), 3),
        ("c-ml", 1.0, 1),
    ]


def test_the_recipe_is_chosen_by_validation_and_never_by_test(training: Training) -> None:
    rows = frame(
        training("a-ml", "one", 1.0, 9.0, recipe="best in the test"),
        training("a-ml", "one", 2.0, 8.0, recipe="best in validation"),
        training("b-ml", "one", 1.5, 8.5),
    )
    board = leaderboard.entries(rows)
    assert column(board, "recipe") == {"b-ml": "tuned", "a-ml": "best in validation"}
    assert column(board, "rank") == {"b-ml": 1, "a-ml": 2}


def test_seeds_make_an_interval_and_one_seed_keeps_its_own(training: Training) -> None:
    drawn = training("b-ml", "one", 4.0, ci_low=3.9, ci_high=4.1, n=10)
    rows = frame(
        [dataclasses.replace(drawn[0], metric="nll_of_draw", iteration=0)],
        *(training("a-ml", "one", nll, seed=seed, memory=2.0**20 * (1 + seed)) for seed, nll in enumerate([1, 2, 3])),
        drawn,
        training("c-ml", "one", 5.0),
        training("d-ml", "one", 6.0, ci_low=5.9, ci_high=6.1, n=94_920),
    )
    board = leaderboard.entries(rows)
    assert column(board, "interval") == {"a-ml": "seeds", "b-ml": "draws", "c-ml": None, "d-ml": "samples"}
    assert column(board, "seeds") == {"a-ml": 3, "b-ml": 1, "c-ml": 1, "d-ml": 1}
    assert board.filter(method="a-ml").select("nll", "low", "high").row(0) == pytest.approx(
        (2, -0.4841, 4.4841), abs=1e-4
    )
    assert board.filter(method="b-ml").select("nll", "low", "high").row(0) == (4.0, 3.9, 4.1)
    assert column(leaderboard.standings(board), "one, nats") == {
        "a-ml": "2.000 ± 2.484",
        "b-ml": "4.000 ± 0.100",
        "c-ml": "5.000",
        "d-ml": "6.000 ± 0.100",
    }
    shown = leaderboard.lines(board)
    assert column(shown, "peak MiB") == {"a-ml": 2.0, "b-ml": None, "c-ml": None, "d-ml": None}
    assert column(board, "training_seconds") == {"a-ml": 11, "b-ml": 10, "c-ml": 10, "d-ml": 10}


def test_time_to_one_percent_of_the_best_also_below_zero(training: Training) -> None:
    rows = frame(
        training("a-ml", "one", -130.0, -140.0, ((1.0, -100.0), (2.0, -138.5), (4.0, -138.7), (8.0, -140.0))),
        training("b-ml", "one", -135.0, -138.7, ((3.0, -138.6), (8.0, -138.7)), seed=0),
        training("b-ml", "one", -135.0, -138.7, ((5.0, -138.7),), seed=1),
        training("c-ml", "one", -120.0, -138.5, ((1.0, -138.5),)),
        training("d-ml", "one", -110.0, -130.0),
    )
    board = leaderboard.entries(rows)
    # The level is -140 + 1.4, of the validation NLL; the best test NLL is another method's.
    assert column(board, "seconds_to_best") == {"a-ml": 4.0, "b-ml": 4.0, "c-ml": math.inf, "d-ml": None}
    assert column(board, "reached") == {"a-ml": True, "b-ml": True, "c-ml": False, "d-ml": None}
    assert column(board, "time_factor") == {"a-ml": 1.0, "b-ml": 1.0, "c-ml": math.inf, "d-ml": None}
    shown = leaderboard.lines(board)
    assert column(shown, "s to 1 %") == {"a-ml": "4", "b-ml": "4", "c-ml": "never", "d-ml": None}
    assert column(board, "rank") == {"b-ml": 1, "a-ml": 2, "c-ml": 3, "d-ml": 4}


def test_times_of_two_machines_are_not_divided(training: Training) -> None:
    rows = frame(
        training("a-ml", "one", 1.0, 1.0, ((1.0, 1.0),)),
        training("b-ml", "one", 1.0, 1.0, ((6.0, 1.0),), cpu="another cpu, 2 cores"),
        training("c-ml", "one", 1.0, 1.0, ((12.0, 1.0),), cpu="another cpu, 2 cores"),
    )
    assert column(leaderboard.entries(rows), "time_factor") == {"a-ml": 1.0, "b-ml": 1.0, "c-ml": 2.0}


def test_better_than_the_truth_is_shown_and_not_ranked(training: Training) -> None:
    rows = frame(
        training("a-ml", "one", 0.5, 0.5, reason=f"{BETTER_THAN_TRUTH} by 0.5 nats"),
        training("b-ml", "one", 1.0, 1.0, ((2.0, 1.0),)),
        training("c-ml", "one", 2.0, 2.0),
    )
    board = leaderboard.entries(rows)
    assert column(board, "rank") == {"b-ml": 1, "c-ml": 2, "a-ml": None}
    assert column(board, "gap") == {"b-ml": 0, "c-ml": 0.1, "a-ml": None}
    assert column(board, "seconds_to_best")["b-ml"] == 2.0
    assert column(leaderboard.standings(board), "one, nats")["a-ml"] == "0.500 (not ranked)"
    assert column(board, "status")["a-ml"] == "ok: better than the truth by 0.5 nats"


def test_versions_lengths_and_noises_are_not_mixed(training: Training) -> None:
    rows = frame(
        training("old-ml", "one", 0.1, project="0.1.0"),
        *(training(f"{name}-ml", "one", 1.0) for name in "ab"),
        training("a-ml", "one", 0.2, 0.2, shortened=True, recipe="tuned, 1 of 80 epochs"),
        training("smooth-ml", "one", 0.3, smooth_noise=1.25),
        training("a-ml", "quick one", 1.0, shortened=True, profile="quick"),
        training("b-ml", "quick one", 0.5, shortened=True, profile="custom"),
    )
    board = leaderboard.entries(rows)
    assert board.select("dataset", "method", "recipe", "length").rows() == [
        ("one", "a-ml", "tuned", "full"),
        ("one", "b-ml", "tuned", "full"),
        ("quick one", "a-ml", "tuned", "quick"),
    ]


def test_an_experiment_on_depth_is_left_out_and_a_deeper_network_of_ones_own_is_not(training: Training) -> None:
    rows = frame(
        training("a-ml", "one", 1.0),
        training("a-ml", "one", 0.5, layers=8, recipe="deep", experiment="depth-one"),
        training("b-ml", "one", 0.7, layers=8),
    )
    assert leaderboard.entries(rows).select("method", "nll").rows() == [("b-ml", 0.7), ("a-ml", 1.0)]


def test_profiles_count_the_datasets_of_a_method(training: Training) -> None:
    rows = frame(
        training("a-ml", "one", 1.0, 1.0, ((2.0, 1.0),)),
        training("b-ml", "one", 1.2, 1.0, ((3.0, 1.0),)),
        training("a-ml", "two", 11.0, 1.0, ((9.0, 1.0),)),
        training("b-ml", "two", 1.0, 1.0, ((1.0, 1.0),)),
        training("c-dsm", "two", None),
        training("a-ml", "alone", 5.0, 1.0, ((1.0, 1.0),)),
    )
    board = leaderboard.entries(rows)
    gaps = leaderboard.profile(board, "gap", (0.01, 0.03, 1.0))
    assert gaps.drop("family").rows() == [("b-ml", 2, 50, 100, 100), ("a-ml", 2, 50, 50, 100), ("c-dsm", 1, 0, 0, 0)]
    times = leaderboard.profile(board, "time_factor", (1.0, 1.5, 9.0))
    assert times.drop("family").rows() == [("b-ml", 2, 50, 100, 100), ("a-ml", 2, 50, 50, 100), ("c-dsm", 1, 0, 0, 0)]
    first, second = profile_figures(rows)
    assert isinstance(first.content, Chart)
    told = {curve.label: [point.y for point in curve.points] for curve in first.content.curves}
    assert told["b-ml (2)"] == [50.0, 50.0, 50.0, 100.0, 100.0, 100.0, 100.0]
    assert (first.name, second.name) == ("leaderboard-gap", "leaderboard-time-factor")


def test_published_numbers_stand_between_measured_ones(training: Training) -> None:
    rows = frame(training("a-ml", "mnist", 700.0), training("b-ml", "mnist", 500.0))
    shown = leaderboard.lines(leaderboard.entries(rows))
    assert shown["method"][0] == "b-ml"
    assert shown["method"][-1] != "a-ml"
    published = shown.filter(recipe="published")
    assert published.height == len(leaderboard.published_numbers().filter(dataset="mnist"))
    assert published["rank"].null_count() == published.height
    assert shown["NLL nats"].is_sorted()


def test_published_numbers_are_in_the_units_of_ours() -> None:
    numbers = leaderboard.published_numbers()
    assert numbers.filter(dataset="bsds300", method="RQ-NSF (C) (1906.04032)")["NLL nats"].to_list() == [-157.54]
    (ffjord,) = numbers.filter(dataset="mnist", method="ffjord (1810.01367)")["NLL nats"]
    assert ffjord == pytest.approx(0.99 * 784 * math.log(2))
    assert not numbers["method"].str.contains("maf_mog").any()  # that is in logit space
    assert "imagenet64" not in numbers["dataset"]  # which is no dataset of ours


def test_the_page_has_it_with_names_for_everything(training: Training, tmp_path: Path) -> None:
    rows = frame(training("a-ml", "one", 1.0), training("b-dsm", "one", -2.0), training("<b>-ml", "one", 3.0))
    page = build(rows, Store(tmp_path), asv_results.history(Path("nowhere")), beside=["page.parquet", "page.csv"])
    section = page[page.index('<section id="leaderboard"') :]
    section = section[: section.index("</section>")]
    families = re.search('data-families="([^"]*)"', section)
    assert families
    assert json.loads(html.unescape(families[1])) == ["exact dense", "score matching"]
    tables = section.split("<table>")[1:]
    assert len(tables) == 3  # no curve was kept, so there is no profile of times
    for table in tables:
        assert table.startswith("\n<caption>")
        assert re.findall('<th(?! scope="col")[^e]', table) == []
        assert ">family</th>" in table
        assert ">score matching</td>" in table
    assert section.count('role="region" aria-label=') == len(tables)
    assert '<td class="number">-2.000</td>' in section
    assert "&lt;b&gt;-ml" in section
    assert "<b>" not in section
    assert 'href="page.parquet"' in section
    assert 'href="page.csv"' in section
    assert '<a href="#leaderboard">' in page


def test_without_trainings_there_is_none(make_row: Callable[..., Row], tmp_path: Path) -> None:
    rows = derived(to_frame([make_row()]))
    assert leaderboard.entries(rows).is_empty()
    assert leaderboard.text(rows) == ""
    assert list(profile_figures(rows)) == []
    assert "No training fills it yet" in build(rows, Store(tmp_path), asv_results.history(Path("nowhere")))


def test_the_frames_of_a_folder(training: Training, tmp_path: Path) -> None:
    for rows in (training("a-ml", "one", 1.0), training("b-ml", "one", 2.0)):
        Store(tmp_path).write(rows)
    rows = harness.load_results(tmp_path)
    assert dict(rows.schema) == SCHEMA | DERIVED
    assert column(harness.leaderboard(str(tmp_path)), "rank") == {"a-ml": 1, "b-ml": 2}
    assert isinstance(harness.SCHEMA_VERSION, int)
    (tmp_path / "cells/train/0.parquet").write_bytes(b"no rows")
    with pytest.warns(UserWarning, match="no Parquet file"):
        assert harness.load_results(tmp_path).height == rows.height
    with pytest.raises(InputError, match="holds no results"):
        harness.load_results(tmp_path / "nowhere")


def test_every_column_is_documented() -> None:
    described = {name for name in SCHEMA if re.search(rf"^        {name}: \w", Row.__doc__ or "", re.MULTILINE)}
    assert described == set(SCHEMA)
    assert [name for name in DERIVED if name not in (derived.__doc__ or "")] == []


def test_the_command(training: Training, run: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    for rows in (training("a-ml", "one", 1.0), training("b-dsm", "one", 2.0), training("b-dsm", "two", 2.0)):
        Store(folder).write(rows)
    ended = run("leaderboard", "--results-dir", str(folder), "--family", "score matching", "--json")
    assert ended.status == 0
    # What a family hides keeps its place.
    assert [(line["method"], line["dataset"], line["rank"]) for line in ended.rows] == [
        ("b-dsm", "one", 2.0),
        ("b-dsm", "two", 1.0),
    ]
    spaced = run("leaderboard", "--results-dir", str(folder), "--dataset", "one, two", "--json")
    assert len(spaced.rows) == 3
    (folder / "cells" / "train").mkdir(exist_ok=True)
    (folder / "cells" / "train" / "bad.parquet").write_text("junk")
    table = run("leaderboard", "--results-dir", str(folder), "--dataset", "one")
    assert "bad.parquet: not a readable cell" in table.err
    assert "Warning" not in table.err
    assert table.status == 0
    assert "| 2 of 2" in table.out
    assert leaderboard.NOTES[-1] in table.out
    wrong = run("leaderboard", "--results-dir", str(folder), "--dataset", "on")
    assert wrong.status == 2
    assert wrong.err.endswith("harness: unknown dataset 'on': did you mean one?\n")
