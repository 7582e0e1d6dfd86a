"""Tables from rows made by hand: right numbers, published values beside the methods they belong to, every status."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from stored import stored_config

from harness.errors import InputError
from harness.report.tables.columns import disturbances, with_stars
from harness.report.tables.comparison import compare_across, noise
from harness.report.tables.index import TABLES
from harness.report.tables.text import split_constants, to_html, to_markdown
from harness.results import Row, to_frame
from harness.results.derived import derived

BUILD = {table.name: table.build for table in TABLES}


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    return derived(to_frame(rows))


@pytest.fixture
def timing(make_row: Callable[..., Row]) -> Callable[..., Row]:
    def make(method: str, dimension: int, value: float | None, **changes: Any) -> Row:
        objective = method.removesuffix("-lu").rsplit("-", 1)[-1]
        columns = {"method": method, "D": dimension, "shape": str(dimension), "value": value, "objective": objective}
        if value is not None:
            columns |= {"ci_low": 0.9 * value, "ci_high": 1.1 * value}
        return make_row(**{**columns, **changes})

    return make


@pytest.fixture
def run_of(timing: Callable[..., Row]) -> Callable[..., list[Row]]:
    """The rows of one run: of each method the median, and every repetition."""

    def make(dimension: int, times: dict[str, list[float]], **changes: Any) -> list[Row]:
        rows = []
        for method, seconds in times.items():
            rows.append(timing(method, dimension, sorted(seconds)[len(seconds) // 2], n=len(seconds), **changes))
            rows += [
                timing(method, dimension, value, metric="seconds_of_repetition", iteration=number, **changes)
                for number, value in enumerate(seconds)
            ]
        return rows

    return make


@pytest.fixture
def training(make_row: Callable[..., Row]) -> Callable[..., Row]:
    """A row of a training; `config` and `problem` go into its configuration."""

    def make(metric: str, value: float | None, **changes: Any) -> Row:
        seed = changes.get("seed", 0)
        label = changes.get("recipe", "none")
        settings = {
            "problem": {"noise": 1.0, "seed": seed},
            "config": {"ema_decay": 0.999, **changes.pop("config", {})},
            "preprocess": changes.pop("preprocess", True),
            "smooth_noise": changes.pop("smooth_noise", None),
        }
        columns = {
            "experiment": "table2-mnist-fc",
            "profile": "quick",
            "method": "ebflow-dsm",
            "objective": "dsm",
            "dataset": "mnist",
            "shape": "1x28x28",
            "D": 784,
            "metric": metric,
            "value": value,
            "unit": "nats",
            "ci_low": None,
            "ci_high": None,
            "config": stored_config("likelihood", origin={"recipe": label.split(",")[0]}, **settings),
        }
        return make_row(**{**columns, **changes})

    return make


def lines(table: str, rows: list[Row]) -> list[dict[str, Any]]:
    """What was measured; other people's published numbers have a test of their own."""
    return [line for line in BUILD[table](frame(rows)).to_dicts() if line.get("recipe") != "published"]


@pytest.mark.parametrize("table", list(BUILD))
def test_no_rows_no_table(table: str) -> None:
    assert BUILD[table](frame([])).is_empty()


def test_every_row_is_in_some_table_and_in_no_wrong_one(
    timing: Callable[..., Row], training: Callable[..., Row]
) -> None:
    def filled(rows: list[Row]) -> set[str]:
        return {name for name, build in BUILD.items() if not build(frame(rows)).is_empty()}

    assert filled([timing("a", 16, 1.0)]) == {"runtime", "timings"}
    assert filled([timing("a", 16, 1.0), timing("a", 64, 2.0)]) == {"runtime", "timings", "slopes"}
    assert filled([training("nll", 1.0)]) == {"likelihood"}
    assert filled([training("nll", 1.0, preprocess=False)]) == {"ablation"}
    assert filled([training("nll", 1.0, dataset="sine"), training("kl", 1.0, dataset="sine")]) == {"points"}
    without_ema = {"dataset": "multimodal10", "config": {"ema_decay": None}}
    assert filled([training("nll", 1.0, **without_ema), training("kl", 1.0, **without_ema)]) == {"points"}


GONE = {"status": "unavailable", "reason": "not installed", "ci_low": None, "ci_high": None, "n": None}


def test_runtime_is_a_column_for_every_dimension(timing: Callable[..., Row]) -> None:
    rows = [
        timing("slow", 16, 0.003),
        timing("slow", 64, 0.5),
        timing("fast", 64, 0.25),
        timing("gone", 64, None, **GONE),
    ]
    assert lines("runtime", rows) == [
        {
            "method": method,
            "linear": "dense",
            "architecture": "fc",
            "L": 2,
            "B": 100,
            "dtype": "float32",
            "device": "cpu",
            "threads": 2,
            "cpu": "a cpu, 2 cores",
            "gpu": None,
            "torch": None,
            "commit": "cccccccc",
            "D = 16": small,
            "D = 64": large,
            "status": status,
        }
        for method, small, large, status in [
            ("fast", None, "250.0", "ok"),
            ("slow", "3", "500.0", "ok"),
            ("gone", None, None, "unavailable: not installed"),
        ]
    ]


def test_runtime_says_how_much_of_it_the_bound_is(timing: Callable[..., Row]) -> None:
    rows = [timing("a", 16, 0.004), timing("a", 16, 0.003, metric="iteration_bound"), timing("b", 16, 0.1)]
    assert [line["D = 16"] for line in lines("runtime", rows)] == ["4 (75%)", "100.0"]


def test_the_newest_of_several_runs_counts_and_compiled_is_another_method(timing: Callable[..., Row]) -> None:
    compiled = stored_config("runtime", config={"compile": True})
    plain = stored_config("runtime", config={"compile": False})
    rows = [
        timing("a", 16, 0.004, started_at="2025-01-03T00:00:00+00:00", cell="newer", config=plain),
        timing("a", 16, 0.009, started_at="2025-01-02T00:00:00+00:00", cell="older", config=plain),
        timing("a", 16, 0.009, started_at="2025-01-02T00:00:00+00:00", cell="older", metric="seconds_per_gradient"),
        timing("a", 16, 0.003, started_at="2025-01-01T00:00:00+00:00", cell="compiled", config=compiled),
    ]
    expected = {"a": "4", "a (compiled)": "3"}
    assert {line["method"]: line["D = 16"] for line in lines("runtime", rows)} == expected
    # Of an older run nothing is left, whatever the newer one lacks.
    assert {line["method"]: line["ms"] for line in lines("timings", rows)} == {"a": 4.0, "a (compiled)": 3.0}


SETTINGS = [
    {"cpu": "another"},
    {"gpu": "one"},
    {"threads": 8},
    {"dtype": "float64"},
    {"device": "cuda"},
    {"B": 7},
    {"commit": "d" * 40},
    {"commit": "c" * 40 + "+"},
    {"commit": None},
    {"versions": json.dumps({"torch": "9.9"})},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_what_was_timed_in_another_setting_is_another_line(timing: Callable[..., Row], changes: dict[str, Any]) -> None:
    rows = [
        *(timing(method, size, seconds) for method, seconds in [("a-dsm", 0.1), ("b-ml", 0.5)] for size in (16, 64)),
        # It would be the fastest.
        *(timing("c-ml", size, 0.01, cell="other", **changes) for size in (16, 64)),
    ]
    assert [line["method"] for line in lines("runtime", rows) if line["D = 16"] == "10"] == ["c-ml"]
    assert len({(line["commit"], line["torch"], line["cpu"]) for line in lines("timings", rows)}) <= 2
    faster = {line["method"]: line["faster than any ML from D"] for line in lines("slopes", rows)}
    assert faster == {"a-dsm": 16, "b-ml": None, "c-ml": None}
    # The same method there has lines of its own, and no run hides another.
    twice = [*rows, *(timing("a-dsm", size, 0.2, cell="other", **changes) for size in (16, 64))]
    assert [line["D = 64"] for line in lines("runtime", twice) if line["method"] == "a-dsm"] in (
        ["100.0", "200.0"],
        ["200.0", "100.0"],
    )


@pytest.mark.parametrize("changes", SETTINGS[:9], ids=str)
def test_timings_are_compared_across_a_setting_where_that_is_asked_for(
    timing: Callable[..., Row], changes: dict[str, Any]
) -> None:
    rows = frame(
        [
            *(timing(method, 16, seconds) for method, seconds in [("a-dsm", 0.1), ("b-ml", 0.5)]),
            *(timing("a-dsm", 64, 0.1), timing("b-ml", 64, 0.5)),
            *(timing("b-ml", size, 0.01, cell="other", **changes) for size in (16, 64)),
        ]
    )
    table = BUILD["slopes"](compare_across(rows, list(changes))).to_dicts()
    faster = {line["method"]: line["faster than any ML from D"] for line in table}
    assert len(faster) == 3  # the names say which is which
    assert sorted(faster.values(), key=str) == [16, None, None]
    (first,) = (name for name, size in faster.items() if size == 16)
    assert first.startswith("b-ml (")


def test_only_settings_can_be_compared_across(timing: Callable[..., Row], training: Callable[..., Row]) -> None:
    with pytest.raises(InputError, match="unknown setting to compare across 'thread': did you mean threads"):
        compare_across(frame([timing("a", 16, 1.0)]), ["thread"])
    # Trainings are told apart as ever.
    rows = frame([training("nll", 1.0), training("nll", 2.0, threads=8)])
    assert compare_across(rows, ["threads"]).equals(rows)


def test_ratios_are_of_paired_repetitions(run_of: Callable[..., list[Row]]) -> None:
    # The machine becomes three times slower, for all.
    common = [1.0, 1.1, 2.0, 3.0, 2.9]
    times = {
        "fast-dsm": [0.5 * t for t in common],
        "equal-dsm": [t * e for t, e in zip(common, [0.99, 1.02, 1.0, 0.98, 1.01], strict=True)],
        "dense-ml": common,
        "slow-ml": [1.2 * t for t in common],
    }
    found = {line["method"]: line for line in lines("ratios", run_of(16, times))}
    assert {(line["reference"], line["n"]) for name, line in found.items() if name != "dense-ml"} == {("dense-ml", 5)}
    assert found["fast-dsm"]["ratio"] == pytest.approx(0.5)
    assert found["fast-dsm"]["high"] == pytest.approx(0.5)
    assert found["equal-dsm"]["low"] < 1 < found["equal-dsm"]["high"]
    verdicts = {name: line["verdict"] for name, line in found.items()}
    assert verdicts == {
        "fast-dsm": "faster",
        "equal-dsm": "not told apart",
        "slow-ml": "slower",
        "dense-ml": "faster",  # against the other exact ML method
    }
    assert found["dense-ml"]["reference"] == "slow-ml"


def test_many_comparisons_are_corrected(run_of: Callable[..., list[Row]]) -> None:
    # By itself 2.5 standard errors from 1, with p = 0.025 of 14 degrees of freedom.
    reference = [1.0] * 15
    slower = [1.1 if number % 3 else 0.97 for number in range(15)]
    equal = [1.01 if number % 2 else 0.99 for number in range(15)]
    alone = run_of(16, {"a-dsm": slower, "b-ml": reference})
    (line,) = lines("ratios", alone)
    assert line["verdict"] == "slower"
    among = run_of(16, {"a-dsm": slower, "b-ml": reference, **{f"{i}-dsm": equal for i in range(200)}})
    found = {line["method"]: line for line in lines("ratios", among)}
    assert (found["a-dsm"]["low"], found["a-dsm"]["high"]) == (line["low"], line["high"])
    assert found["a-dsm"]["verdict"] == "not told apart"


def test_equal_methods_are_called_different_in_one_table_of_twenty(run_of: Callable[..., list[Row]]) -> None:
    """The fastest is the reference, by chance; the bound is three standard errors above 5 % of the tables."""
    generator = np.random.default_rng(0)
    tables = 300
    names = [f"{number}-{'ml' if number % 2 else 'dsm'}" for number in range(12)]
    rows = []
    for table in range(tables):
        noise = np.exp(generator.normal(0, 0.1, (len(names), 16)))
        rows += run_of(16 + table, dict(zip(names, noise.tolist(), strict=True)), cell=f"{table}")
    called = {line["D"] for line in lines("ratios", rows) if line["verdict"] != "not told apart"}
    assert len(called) <= tables * 0.05 + 3 * math.sqrt(tables * 0.05 * 0.95)


def test_faster_from_d_on_follows_the_verdicts(run_of: Callable[..., list[Row]], timing: Callable[..., Row]) -> None:
    noise = [0.7, 1.4, 1.0, 1.3, 0.8]
    rows = [
        # Half as slow at every D, but at 64 within the noise of single repetitions.
        *run_of(16, {"a-dsm": [0.5] * 5, "b-ml": [1.0] * 5}, cell="16"),
        *run_of(64, {"a-dsm": [0.9 * n for n in noise], "b-ml": list(reversed(noise))}, cell="64"),
        *run_of(256, {"a-dsm": [0.5] * 5, "b-ml": [1.0] * 5}, cell="256"),
    ]
    (crossing,) = (line for line in lines("slopes", rows) if line["method"] == "a-dsm")
    assert crossing["faster than exact ML from D"] == 256
    assert [line["verdict"] for line in lines("ratios", rows)] == ["faster", "not told apart", "faster"]
    # Without repetitions the intervals decide, and none of a noisy machine.
    old = [timing("a-dsm", size, 0.5) for size in (16, 64)] + [timing("b-ml", size, 1.0) for size in (16, 64)]
    noisy = [replace(row, reason="noisy") for row in old]
    near = [replace(row, ci_high=1.5) for row in old]
    found = [
        next(line["faster than exact ML from D"] for line in lines("slopes", some) if line["method"] == "a-dsm")
        for some in (old, noisy, near)
    ]
    assert found == [16, None, None]
    assert lines("ratios", old) == []


def test_a_compiled_method_is_no_rival_of_a_plain_one(timing: Callable[..., Row]) -> None:
    compiled = stored_config("runtime", config={"compile": True})
    rows = [
        *(timing(method, size, seconds) for method, seconds in [("a-dsm", 0.5), ("b-ml", 1.0)] for size in (16, 64)),
        *(timing("b-ml", size, 0.1, config=compiled, cell="compiled") for size in (16, 64)),
    ]
    faster = {line["method"]: line["faster than any ML from D"] for line in lines("slopes", rows)}
    assert faster == {"a-dsm": 16, "b-ml": None, "b-ml (compiled)": None}


def test_noisy_timings_bear_a_mark(timing: Callable[..., Row]) -> None:
    rows = [
        timing("a", 16, 0.004, reason="noisy"),
        timing("a", 16, 0.003, metric="iteration_bound", reason="noisy"),
        timing("b", 16, 0.1),
        timing("machine", 16, 1.4, metric="reference_gemm_drift"),
    ]
    assert [(line["D = 16"], line["status"]) for line in lines("runtime", rows)] == [
        ("4 (75%)*", "ok"),
        ("100.0", "ok"),
    ]
    assert [(line["ms"], line["status"]) for line in lines("timings", rows)] == [(4.0, "ok: noisy"), (100.0, "ok")]
    (sentence,) = noise(frame(rows))
    assert "drifted up to 1.40-fold" in sentence
    assert noise(frame(rows[2:])) == []


def test_bounds(timing: Callable[..., Row]) -> None:
    values = {
        "seconds_per_iteration": 0.010,
        "iteration_bound": 0.008,
        "seconds_per_gradient": 0.006,
        "gradient_bound": 0.004,
        "peak_memory": 40_000.0,
        "flops": 2e9,
        "optimizer_bytes": 3e9,
    }
    rows = [timing("a", 16, value, metric=metric, parameters=2_000) for metric, value in values.items()]
    rows.append(timing("without a cost", 16, 0.5))
    (line,) = lines("bounds", rows)
    found = {name: line[name] for name in list(line)[-11:]}
    assert found == {
        "loss and backward ms": 6.0,
        "bound ms": 4.0,
        "times the bound": 1.5,
        "iteration ms": 10.0,
        "its bound ms": 8.0,
        "times its bound": 1.25,
        "peak memory, weight copies": 5.0,
        "GFLOP": 2.0,
        "GB moved": 3.0,
        "GFLOP/s of the bound": 500.0,
        "GB/s": 750.0,
    }


def test_refreshes_part_a_mean_into_its_steps(timing: Callable[..., Row]) -> None:
    values = {"seconds_per_iteration": 0.0135, "steps_per_refresh": 8.0, "seconds_of_refresh_step": 0.08}
    rows = [timing("a", 16, value, metric=metric) for metric, value in values.items()]
    rows.append(timing("all alike", 16, 0.5))
    (line,) = lines("refreshes", rows)
    assert (line["method"], line["steps a refresh"]) == ("a", 8)
    steps = [line[name] for name in ("cheap step ms", "step with refresh ms", "mean ms")]
    assert steps == pytest.approx([4.0, 80.0, 13.5])


def test_timings_are_milliseconds_with_their_reason(timing: Callable[..., Row]) -> None:
    rows = [
        timing("bad", 64, None, ci_low=None, ci_high=None, n=None, status="failed", reason="RuntimeError: no"),
        timing("a", 64, 0.5),
        timing("a", 64, 0.1, metric="seconds_per_sampling"),
        timing("a", 64, 0.2, metric="seconds_per_log_determinant"),
        timing("a", 64, 9.9, metric="something_else"),
    ]
    found = lines("timings", rows)
    assert [(line["what"], line["ms"], line["status"]) for line in found] == [
        ("100 samples", 100.0, "ok"),
        ("iteration", 500.0, "ok"),
        ("iteration", None, "failed: RuntimeError: no"),
        ("log-determinants of new weights", 200.0, "ok"),
    ]
    assert (found[1]["low"], found[1]["high"], found[1]["n"]) == (450.0, 550.0, 15)


def test_published_seconds_belong_to_ebflow_at_the_same_size(timing: Callable[..., Row]) -> None:
    rows = [
        timing("ebflow-ml", 784, 0.1, shape="1x28x28"),
        timing("ebflow-dsm", 784, 0.1, shape="1x28x28"),
        timing("nflows-dense-ml", 784, 0.1, shape="1x28x28"),
        timing("ebflow-ml", 784, 0.1, shape="784"),
        timing("ebflow-ml", 784, 0.1, shape="1x28x28", architecture="cnn"),
    ]
    found = {(line["method"], line["architecture"], line["shape"]): line for line in lines("timings", rows)}
    published = {key: line["published ms (GPU)"] for key, line in found.items()}
    assert published == {
        ("ebflow-ml", "fc", "1x28x28"): pytest.approx(105.0),
        ("ebflow-dsm", "fc", "1x28x28"): pytest.approx(14.8),
        ("nflows-dense-ml", "fc", "1x28x28"): None,
        ("ebflow-ml", "fc", "784"): None,
        ("ebflow-ml", "cnn", "1x28x28"): pytest.approx(3320.0),
    }


def test_slopes_of_exact_power_laws_and_their_crossings(timing: Callable[..., Row]) -> None:
    sizes = (16, 64, 256)
    rows = [
        *(timing("ebflow-ml", size, 1e-9 * size**3) for size in sizes),
        *(timing("nflows-lu-ml", size, 1e-6 * size, linear="lu") for size in sizes),
        *(timing("ebflow-dsm", size, 2e-7 * size**1.5) for size in sizes),
    ]
    found = {line["method"]: line for line in lines("slopes", rows)}
    assert {method: line["slope"] for method, line in found.items()} == {
        "ebflow-ml": pytest.approx(3),
        "nflows-lu-ml": pytest.approx(1),
        "ebflow-dsm": pytest.approx(1.5),
    }
    assert {(line["in"], line["at"]) for line in found.values()} == {("D", "L = 2")}
    # 2e-7 D^1.5 is below 1e-9 D^3 from D = 34 on, and below 1e-6 D up to D = 25: the LU method is the faster ML.
    against = {m: (x["faster than exact ML from D"], x["faster than any ML from D"]) for m, x in found.items()}
    assert against["ebflow-dsm"] == (64, None)
    # Compared with the others, never with itself; the only exact ML method has no rival.
    assert against["ebflow-ml"] == (None, None)
    assert against["nflows-lu-ml"] == (64, 64)
    assert found["ebflow-dsm"]["low"] == pytest.approx(1.5, abs=1e-6)


def test_a_slope_is_of_one_setting(timing: Callable[..., Row]) -> None:
    rows = [
        *(timing("a", 16, 1.0 * depth**2, L=depth, objective="dsm") for depth in (1, 2)),
        *(timing("a", 64, 100.0, objective="dsm", cell="other", **changes) for changes in SETTINGS),
        timing("a", 64, None, status="failed", objective="dsm"),
    ]
    (line,) = lines("slopes", rows)
    assert (line["in"], line["at"], line["slope"], line["n"]) == ("L", "D = 16", pytest.approx(2), 2)
    assert (line["low"], line["B"], line["threads"], line["commit"]) == (None, 100, 2, "cccccccc")


def test_likelihood_joins_what_belongs_together(training: Callable[..., Row]) -> None:
    rows = [
        training("nll", 1095.0, ci_low=1094.0, ci_high=1096.0),
        training("bits_per_dim", 2.01),
        training("training_iterations", 1000.0),
        training("training_seconds", 12.5),
        training("reference_gemm_drift", 1.1),
        training("validation_nll", 1.0),
        training("nll", 1090.0, method="gaussian", objective="closed-form"),
        training("nll", 1096.0, method="nflows-dense-ml", objective="ml"),
    ]
    found = {line["method"]: line for line in lines("likelihood", rows)}
    assert list(found) == ["gaussian", "ebflow-dsm", "nflows-dense-ml"]
    ours = found["ebflow-dsm"]
    assert (ours["NLL nats"], ours["low"], ours["high"], ours["seeds"]) == (1095.0, 1094.0, 1096.0, 1)
    assert (ours["bits/dim"], ours["steps"], ours["training s"]) == (2.01, 1000, 12.5)
    assert (ours["published NLL"], ours["published +-"]) == (1099.2, 0.2)
    assert (found["gaussian"]["bits/dim"], found["gaussian"]["published NLL"]) == (None, None)
    # A peer's ML is another program than the paper's.
    assert found["nflows-dense-ml"]["published NLL"] is None


def test_seconds_that_mean_little_have_a_star(training: Callable[..., Row]) -> None:
    rows = []
    for cell, drift in {"quiet": 1.2, "noisy": 1.6, "unwatched": None}.items():
        rows += [
            training("nll", 1095.0, cell=cell, method=cell),
            training("training_seconds", 12.5, cell=cell, method=cell),
            training("validation_curve", 900.0, cell=cell, method=cell, iteration=10, seconds=3.5),
        ]
        rows += [] if drift is None else [training("reference_gemm_drift", drift, cell=cell, method=cell)]
    table = with_stars(BUILD["likelihood"](frame(rows)))
    shown = dict(table.select("method", "training s").drop_nulls().rows())
    assert shown == {"quiet": "12.5", "noisy": "12.5*", "unwatched": "12.5*"}
    shown = dict(with_stars(BUILD["time-to-level"](frame(rows))).select("method", "seconds to it").rows())
    assert shown == {"quiet": "3.5", "noisy": "3.5*", "unwatched": "3.5*"}
    (caveat,) = disturbances(frame(rows))
    assert caveat.startswith(
        "A star marks seconds of training that mean little: the machine's reference product drifted up to 1.60-fold or "
        "nobody watched the machine meanwhile; "
    )
    assert disturbances(frame([row for row in rows if row.cell == "quiet"])) == []
    (caveat,) = disturbances(frame([row for row in rows if row.cell != "noisy"]))
    assert "drifted" not in caveat


def test_a_timing_whose_method_changed_settings_says_so(timing: Callable[..., Row]) -> None:
    rows = [timing("ebflow-ml", 16, 1.0, reason="noisy; the method changed anomaly mode"), timing("b", 16, 2.0)]
    statuses = {line["method"]: (line["status"], line["D = 16"]) for line in lines("runtime", rows)}
    assert statuses["ebflow-ml"] == ("ok: the method changed anomaly mode", "1,000.0*")
    assert statuses["b"] == ("ok", "2,000.0")


def test_other_people_s_published_numbers_stand_in_the_table_of_their_network(training: Callable[..., Row]) -> None:
    shown = BUILD["likelihood"](frame([training("nll", 1000.0), training("nll", 1090.0, method="gaussian")]))
    table = [(line["method"].split(" (")[0], line["NLL nats"], line["published NLL"]) for line in shown.to_dicts()]
    assert table == [
        ("self-normalizing", None, 947.1),
        ("exact gradient", None, 947.6),
        ("ebflow-dsm", 1000.0, 1099.2),
        ("gaussian", 1090.0, None),
        ("relative gradient", None, 1096.5),
    ]
    digits = BUILD["likelihood"](frame([training("nll", 100.0, dataset="digits")]))
    assert digits["method"].to_list() == ["ebflow-dsm"]


def test_recipes_are_told_apart(training: Callable[..., Row]) -> None:
    rows = [
        training("nll", 1000.0, recipe="tuned", config={"ema_decay": None}),
        training("nll", 1090.0, recipe="paper, epochs 3", config={"epochs": 3}),
    ]
    found = [(line["recipe"], line["EMA"], line["NLL nats"]) for line in lines("likelihood", rows)]
    assert found == [("tuned", False, 1000.0), ("paper, epochs 3", True, 1090.0)]


def test_time_to_a_level(training: Callable[..., Row]) -> None:
    per_bit = 784 * math.log(2)
    curve = [(500, 4.0, 2.2), (1000, 8.0, 2.05), (1500, 12.0, 2.03), (2000, 16.0, 2.04)]
    rows = [
        training("validation_curve", bits * per_bit - 1e-9, iteration=step, seconds=seconds)
        for step, seconds, bits in reversed(curve)
    ]
    rows.append(training("validation_curve", 3 * per_bit, method="nflows-lu-ml", iteration=500, seconds=1.0))
    ours, peer = lines("time-to-level", rows)
    assert (ours["steps to it"], ours["seconds to it"], ours["steps in all"]) == (1000, 8.0, 2000)
    assert ours["best bits/dim"] == pytest.approx(2.03)
    # 0.19 hours at 66.67 batches a second.
    assert (ours["published steps (10 %)"], ours["published seconds (GPU)"]) == (45_602, pytest.approx(684))
    assert (peer["steps to it"], peer["published steps (10 %)"], peer["steps in all"]) == (None, None, 500)
    tuned = [
        training("validation_curve", nats, iteration=step, seconds=step / 10, recipe="tuned")
        for step, nats in [(0, 1015.0), (1000, 984.0)]
    ]
    found = [(line["bits/dim"], line["steps to it"]) for line in lines("time-to-level", tuned)]
    assert found == [(pytest.approx(985 / per_bit), 1000), (2.05, 0)]


def test_curves_say_whether_the_nll_rises(training: Callable[..., Row]) -> None:
    values = {0: 1015.0, 500: 1012.0, 1000: 1040.0}
    rows = [training("validation_curve", value, iteration=step) for step, value in reversed(values.items())]
    (line,) = lines("curves", rows)
    assert (line["from step"], line["NLL there"]) == (0, 1015.0)
    assert (line["best"], line["at step"]) == (1012.0, 500)
    assert (line["last"], line["last step"]) == (1040.0, 1000)
    assert lines("curves", rows[:1]) == []  # one point is no curve
    assert "last loss" not in line
    losses = {0: 0.5, 500: 0.75, 1000: 0.25}
    rows += [training("validation_loss", value, iteration=step) for step, value in reversed(losses.items())]
    (line,) = lines("curves", rows)
    assert (line["loss there"], line["last loss"], line["last"]) == (0.5, 0.25, 1040.0)


def test_seeds_are_averaged_with_student_s_interval(training: Callable[..., Row]) -> None:
    rows = [
        training("nll", value, seed=seed, ci_low=0.0, ci_high=1.0)
        for seed, value in enumerate([1090.0, 1100.0, 1110.0])
    ]
    (line,) = lines("likelihood", rows)
    half = 4.30265 * 10 / math.sqrt(3)
    assert line["NLL nats"] == 1100.0
    assert line["low"] == pytest.approx(1100 - half, abs=1e-3)
    assert line["high"] == pytest.approx(1100 + half, abs=1e-3)
    assert line["seeds"] == 3
    assert line["status"] == "ok"


def test_seeds_that_diverged_are_said_and_left_out(training: Callable[..., Row]) -> None:
    rows = [
        training("nll", 1090.0, seed=0, ci_low=1089.0, ci_high=1091.0),
        training("nll", None, seed=1, status="diverged", reason="the loss is not finite at step 7", parameters=None),
        training("nll", None, method="gone-ml", status="unavailable", reason="gone is not installed"),
    ]
    good, gone = lines("likelihood", rows)
    assert (good["NLL nats"], good["low"], good["high"], good["seeds"]) == (1090.0, 1089.0, 1091.0, 1)
    assert good["status"] == "ok; diverged: the loss is not finite at step 7"
    assert good["parameters"] == 1000
    assert (gone["NLL nats"], gone["seeds"], gone["status"]) == (None, 0, "unavailable: gone is not installed")


@pytest.mark.parametrize(
    "changes",
    [{"config": {"epochs": 2}}, {"config": {"learning_rate": 0.1}}, {"D": 12}, {"L": 3}, {"dtype": "float64"}],
)
def test_other_settings_are_no_other_seeds(training: Callable[..., Row], changes: dict[str, Any]) -> None:
    rows = [
        training("nll", 1.0),
        training("bits_per_dim", 0.1),
        training("nll", 2.0, seed=1, **changes),
        training("bits_per_dim", 0.2, seed=1, **changes),
    ]
    found = [(line["NLL nats"], line["bits/dim"], line["seeds"]) for line in lines("likelihood", rows)]
    assert found == [(1.0, 0.1, 1), (2.0, 0.2, 1)]


def test_divergences_of_the_points(training: Callable[..., Row]) -> None:
    def at(metric: str, value: float | None, **changes: Any) -> Row:
        return training(metric, value, **{"dataset": "sine", "architecture": "toy", "D": 2, **changes})

    rows = [
        at("nll", 1.5),
        at("kl", 0.2),
        at("fisher", 3.0),
        at("nll", 1.7, seed=1),
        at("kl", 0.4, seed=1),
        at("fisher", 5.0, seed=1),
        at("skipped_steps", 0.0),
        at("skipped_steps", 3.0, seed=1),
        at("nll", None, method="ebflow-ssm", status="diverged", reason="at step 3"),
    ]
    columns = ("method", "NLL nats", "KL nats", "Fisher", "skipped steps", "seeds", "status")
    assert [tuple(line[column] for column in columns) for line in lines("points", rows)] == [
        ("ebflow-dsm", 1.6, pytest.approx(0.3), 4.0, 1.5, 2, "ok"),
        ("ebflow-ssm", None, None, None, None, 0, "diverged: at step 3"),
    ]
    assert "skipped steps" not in lines("points", [row for row in rows if row.metric != "skipped_steps"])[0]


def test_differences_are_paired_over_seeds(training: Callable[..., Row]) -> None:
    # Seeds differ by hundreds of nats, the methods by one.
    seeds = [1000.0, 1200.0, 900.0, 1500.0]
    gaps = [1.0, 1.1, 0.9, 1.0]
    rows = [
        *(training("nll", nll, seed=seed, method="a") for seed, nll in enumerate(seeds)),
        *(training("nll", nll + gaps[seed], seed=seed, method="b") for seed, nll in enumerate(seeds)),
        *(training("nll", nll + 9 * (-1) ** seed + 1, seed=seed, method="c") for seed, nll in enumerate(seeds)),
        training("nll", 2000.0, seed=9, method="no common seed"),
    ]
    found = {line["method"]: line for line in lines("differences", rows)}
    assert set(found) == {"b", "c"}
    half = 3.18245 * 0.0816497 / 2
    b = found["b"]
    assert (b["reference"], b["n"], b["paired over"], b["verdict"]) == ("a, none, L = 2", 4, "seeds", "higher")
    assert b["difference nats"] == pytest.approx(1.0)
    assert (b["low"], b["high"]) == (pytest.approx(1 - half, abs=1e-4), pytest.approx(1 + half, abs=1e-4))
    assert found["c"]["verdict"] == "not told apart"


def test_one_seed_is_compared_draw_by_draw_of_the_same_noise(training: Callable[..., Row]) -> None:
    noise = [5.0, -3.0, 1.0]
    rows = []
    for method, level, jitter in [("a", 1000.0, 0.0), ("b", 1001.0, 0.1), ("c", 1000.1, 1.0)]:
        values = [level + n + jitter * (-1) ** draw for draw, n in enumerate(noise)]
        rows.append(training("nll", sum(values) / 3, method=method))
        rows += [training("nll_of_draw", v, method=method, iteration=draw) for draw, v in enumerate(values)]
    rows.append(training("nll", 1500.0, method="kept no draws"))
    found = {line["method"]: (line["n"], line["paired over"], line["verdict"]) for line in lines("differences", rows)}
    assert found == {"b": (3, "draws", "higher"), "c": (3, "draws", "not told apart")}
    # Smooth noise has other draws.
    smooth = [
        training("nll_of_draw", 900.0 + n, method="d", smooth_noise=1.25, iteration=i) for i, n in enumerate(noise)
    ]
    smooth.append(training("nll", 901.0, method="d", smooth_noise=1.25))
    assert {line["method"] for line in lines("differences", rows + smooth)} == {"b", "c"}
    # Other data are another competition.
    other = [training(row.metric, row.value, method="d", dataset="digits", iteration=row.iteration) for row in rows[:4]]
    assert {line["method"] for line in lines("differences", rows + other)} == {"b", "c"}


def test_equal_trainings_are_called_different_in_one_table_of_twenty(training: Callable[..., Row]) -> None:
    """The best of eleven is the reference, by chance; the bound is three standard errors above 5 % of the tables."""
    generator = np.random.default_rng(0)
    tables, rows = 200, []
    for table in range(tables):
        draws = generator.normal(1000, 1, (11, 10))
        for number, values in enumerate(draws.tolist()):
            named = {"dataset": f"set {table}", "method": f"{number}"}
            rows.append(training("nll", sum(values) / 10, **named))
            rows += [training("nll_of_draw", value, iteration=draw, **named) for draw, value in enumerate(values)]
    called = {line["dataset"] for line in lines("differences", rows) if line["verdict"] != "not told apart"}
    assert len(called) <= tables * 0.05 + 3 * math.sqrt(tables * 0.05 * 0.95)


def test_points_do_not_hide_the_images_of_the_same_experiment(training: Callable[..., Row]) -> None:
    rows = [
        training("nll", 1.5, dataset="sine", D=2),
        training("kl", 0.2, dataset="sine", D=2),
        training("nll", 1090.0),
    ]
    assert [(line["dataset"], line["NLL nats"]) for line in lines("likelihood", rows)] == [("mnist", 1090.0)]
    assert [line["dataset"] for line in lines("points", rows)] == ["sine"]


def test_ablation_sets_four_settings_apart(training: Callable[..., Row]) -> None:
    rows = [
        training("nll", value, config={"ema_decay": 0.999 if ema else None}, preprocess=with_map)
        for value, ema, with_map in [(1.0, False, False), (2.0, True, False), (3.0, False, True), (4.0, True, True)]
    ]
    found = [(x["EMA"], x["MaP"], x["NLL nats"], x["published NLL"]) for x in lines("ablation", rows)]
    assert found == [
        (False, False, 1.0, 4660.3),
        (True, False, 2.0, 4455.0),
        (False, True, 3.0, None),
        (True, True, 4.0, 1099.2),
    ]


def test_ablation_has_the_gradient_norm(training: Callable[..., Row]) -> None:
    rows = [training("nll", 1.0, preprocess=False)]
    rows += [
        training("gradient_norm", norm, preprocess=False, iteration=step)
        for step, norm in enumerate([60.0, 70.0, 90.0])
    ]
    (line,) = lines("ablation", rows)
    assert (line["gradient norm"], line["its 90 % quantile"]) == (70.0, 90.0)


def test_one_method_without_map_does_not_hide_the_others(training: Callable[..., Row]) -> None:
    rows = [training("nll", 1.0, preprocess=False), training("nll", 2.0, method="nflows-lu-ml")]
    assert [line["method"] for line in lines("ablation", rows)] == ["ebflow-dsm"]
    assert [line["method"] for line in lines("likelihood", rows)] == ["nflows-lu-ml"]


def test_imputation_is_a_row_a_method(make_row: Callable[..., Row]) -> None:
    shared = {"experiment": "imputation-mnist", "dataset": "mnist", "config": stored_config("imputation")}
    rows = [
        make_row(metric=metric, value=value, unit="dB", **shared)
        for metric, value in [("psnr_mean_image", 11.9), ("psnr_posterior_mean", 13.8), ("psnr_gain", 1.9)]
    ]
    rows.append(make_row(method="b", metric="psnr_posterior_mean", value=None, status="failed", reason="so", **shared))
    good, bad = sorted(lines("imputation", rows), key=lambda line: line["status"], reverse=True)
    assert (good["mean image dB"], good["posterior mean dB"], good["gain dB"]) == (11.9, 13.8, 1.9)
    assert (bad["method"], bad["posterior mean dB"], bad["status"]) == ("b", None, "failed: so")


def test_imputations_of_two_commits_are_two_rows(make_row: Callable[..., Row]) -> None:
    # Whoever goes on with a newer version in the same folder has both: the cell's configuration has changed.
    shared = {"experiment": "imputation-mnist", "dataset": "mnist", "unit": "dB", "metric": "psnr_gain"}
    rows = [
        make_row(commit=commit, value=value, cell=commit, config=stored_config("imputation", steps=steps), **shared)
        for commit, value, steps in [("aaaa", 1.9, 1500), ("bbbb", 2.0, 600)]
    ]
    assert [(line["commit"], line["gain dB"]) for line in lines("imputation", rows)] == [("aaaa", 1.9), ("bbbb", 2.0)]


def test_log_z_is_a_row_a_dimension(make_row: Callable[..., Row]) -> None:
    config = stored_config("normalizer")
    rows = [
        make_row(D=size, metric=metric, value=size / scale, config=config)
        for size in (8, 2)
        for metric, scale in [("log_z_error_prior", 1), ("ess_prior", 2), ("log_z_standard_error_prior", 4)]
    ]
    found = lines("log-z", rows)
    assert [(line["D"], line["error nats, prior"], line["ESS, prior"]) for line in found] == [(2, 2, 1), (8, 8, 4)]
    assert "standard" not in "".join(found[0])


def test_what_all_rows_share_is_said_once() -> None:
    frame = pl.DataFrame({"method": ["a", "b"], "L": [2, 2], "B": [1000, 2000], "seeds": [1, 1], "dtype": [None] * 2})
    rest, said = split_constants(frame)
    assert rest.columns == ["method", "B"]
    assert said == "L = 2, seeds = 1"


def test_text_of_values() -> None:
    frame = pl.DataFrame(
        {"i": [1234567, None], "f": [0.123456, 12345.678], "b": [True, False], "s": ["two\nlines", ""]}
    )
    assert to_markdown(frame).splitlines() == [
        "|         i |        f | b   | s         |",
        "|-----------|----------|-----|-----------|",
        "| 1,234,567 |   0.1235 | yes | two lines |",
        "|           | 12,345.7 | no  |           |",
    ]


def test_special_characters_break_neither_markdown_nor_html() -> None:
    frame = pl.DataFrame({"method_name": ["a_b"], "status": ["failed: 50% & a|b"]})
    assert to_markdown(frame).splitlines()[-1].split(" | ") == ["| a_b          ", r"failed: 50% & a\|b |"]
    assert "failed: 50% &amp; a|b" in to_html(frame)
    assert to_html(pl.DataFrame({"s": ["<script>"]})).count("<script>") == 0
