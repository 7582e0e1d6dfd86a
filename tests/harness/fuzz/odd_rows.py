"""Rows that a store accepts and that no run of today would write: strategies for whole cells of them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hypothesis import strategies as st

from harness.results import Row
from harness.results.schema import STATUSES

__all__ = ["odd_cells"]

_METRICS = {
    "runtime": (
        *("seconds_per_iteration", "seconds_per_gradient", "seconds_of_repetition", "seconds_of_refresh_step"),
        *("steps_per_refresh", "gradient_bound", "iteration_bound", "flops", "optimizer_bytes", "peak_memory"),
        *("reference_gemm_drift", "seconds_of_first_iteration"),
    ),
    "likelihood": (
        *("nll", "nll_of_draw", "validation_nll", "validation_curve", "validation_loss", "gradient_norm", "kl"),
        *("fisher", "training_seconds", "training_iterations", "bits_per_dim", "reference_gemm_drift"),
        *("steps_per_refresh", "gradient_cosine", "log_z_gradient_error", "peak_memory", "skipped_steps"),
    ),
    "imputation": ("psnr_gain", "psnr_posterior_mean", "psnr_mean_image", "accepted", "validation_nll"),
    "normalizer": ("log_z_error_prior", "log_z_error_bridge", "ess_prior", "log_z_error_of_tomorrow"),
    "new": ("unheard_of", "nll", "seconds_per_iteration"),
}
_NAMES = ("method", "objective", "linear")
_NULLABLE = ("gpu", "commit", "limits", "parameters")
_MAIN = {"runtime": "seconds_per_iteration", "likelihood": "nll"}
_TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["C"]), max_size=12),
    st.sampled_from(
        ["", " ", "é/ü", "x" * 300, "$\\frac{$", "<b>&", "|", "{}", "{0}", "%s", "😀" * 40, "a\u0301", "*"]
    ),
)
_NAMED: dict[str, st.SearchStrategy[str]] = {
    "dataset": st.sampled_from(["mnist", "digits", "sine", "multimodal10", "power", "new"]),
    "architecture": st.sampled_from(["fc", "cnn", "glow", "toy", "multimodal", "new"]),
    "recipe": st.sampled_from(["paper", "tuned", "tuned, epochs 3", "none", "new"]),
    "profile": st.sampled_from(["quick", "paper", "custom", "new"]),
    "dtype": st.sampled_from(["float32", "float64", "bf16", "new"]),
    "device": st.sampled_from(["cpu", "cuda:0"]),
    "shape": st.sampled_from(["784", "1x28x28", "3x32x32", "x", "0x", "1"]),
    "unit": st.sampled_from(["s", "nats", "1", "B"]),
    "started_at": st.sampled_from(["2025-01-01T00:00:00+00:00", "2026", "yesterday"]),
    "commit": st.sampled_from(["c" * 40, "d" * 40 + "+", "short", "+"]),
}
_SIZES = st.sampled_from([1, 2, 3, 64, 784, 1024, 2**31, 2**62])
_WHOLE: dict[str, st.SearchStrategy[int]] = {
    "D": _SIZES,
    "L": _SIZES,
    "B": st.sampled_from([1, 100, 2**62]),
    "seed": st.sampled_from([0, 1, -1, 2**62]),
    "threads": st.sampled_from([0, 1, 2, 10**6]),
    "parameters": st.sampled_from([0, 1, 10**6]),
    "n": st.sampled_from([0, 1, 2, 5, 2**62]),
    "iteration": st.sampled_from([-1, 0, 1, 2**62]),
}
_NUMBERS = st.one_of(
    st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, 1.0, 1092.5, 1e308, -1e308, 1e-308, 5e-324, 1e200, 1e-200, 1e17])
)
_TIMES = st.sampled_from([0.5, 1e-9, 5e-324, 1e-200, 1e200, 1e308]) | st.floats(1e-6, 1e6)
_VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), _TEXTS, st.just([]), st.just({}), st.just(10**400)),
    st.sampled_from([{"a": [1, None]}, "\ud800", "\x1b[2J\n"]),
)
_METHODS = [
    *(("gaussian", "closed-form", "dense"), ("ebflow-ml", "ml", "dense"), ("nflows-dense-ml", "ml", "dense")),
    *(("ebflow-dsm", "dsm", "dense"), ("ebflow-ssm", "ssm", "dense"), ("ebflow-aml", "aml", "dense")),
    *(("ebflow-full-ml", "ml", "full"), ("ebflow-lu-ml", "ml", "lu"), ("machine", "", ""), ("new", "newer", "newest")),
]
_DATA = [("mnist", "fc"), ("sine", "fc"), ("mnist", "glow"), ("multimodal10", "multimodal"), ("new", "newer")]
_SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "preprocess": st.sampled_from([True, False, None]) | _VALUES,
    "smooth_noise": st.sampled_from([None, 0.5]) | _VALUES,
    "config": st.sampled_from([{"ema_decay": None}, {"ema_decay": 0.999}, {"compile": True}, {}]) | _VALUES,
    "project": st.sampled_from(["0.1.0", "99.0.0"]) | _VALUES,
    "problem": st.sampled_from([{"seed": 0}, {"start": "whitened"}]) | _VALUES,
}
_ORIGIN: dict[str, st.SearchStrategy[Any]] = {
    "recipe": st.sampled_from(["paper", "tuned"]) | _VALUES,
    "shortened": st.sampled_from([True, False, None]) | _VALUES,
    "argv": st.sampled_from([["train"], []]) | _VALUES,
}


def _written(kind: str, settings: dict[str, Any], origin: dict[str, Any]) -> str:
    return json.dumps({"identity": {"kind": kind, **settings}, "settings": settings, "origin": origin})


@st.composite
def _configs(draw: st.DrawFn, kind: str) -> str:
    """The configuration of a cell, of which much may be missing or of another type."""
    settings = draw(st.fixed_dictionaries({}, optional=_SETTINGS))
    written = _written(kind, settings, draw(st.fixed_dictionaries({}, optional=_ORIGIN)))
    return draw(st.sampled_from([written] * 9 + ["", "null", "[]", "{", '{"settings": 3}', '{"identity": []}']))


@st.composite
def _rows(draw: st.DrawFn, kind: str, row: Row) -> list[Row]:
    """Rows of one cell: its main metric most of the time, and others, some at several steps; a timing has rivals."""
    metrics = draw(st.lists(st.sampled_from(_METRICS[kind]), max_size=6))
    metrics += [_MAIN[kind]] if kind in _MAIN and draw(st.integers(0, 9)) else []
    made = {}
    for step, metric in enumerate(metrics or [_METRICS[kind][0]]):
        status = draw(st.sampled_from(["ok"] * 20 + list(STATUSES)))
        numbers = _TIMES if metric.startswith("seconds_") else _NUMBERS
        low, high, seconds = (draw(st.none() | numbers) for _ in range(3))
        changes: dict[str, Any] = {"metric": metric, "status": status, "ci_low": low, "ci_high": high}
        changes |= {"value": draw(numbers) if status == "ok" else None, "seconds": seconds}
        changes |= {"reason": draw(st.none() | st.sampled_from(["noisy", "better than the truth"]) | _TEXTS)}
        changes |= {"n": draw(st.none() | _WHOLE["n"])}
        changes |= {"iteration": draw(st.sampled_from([None, step]) | _WHOLE["iteration"])}
        made[metric, changes["iteration"]] = dataclasses.replace(row, **changes)
    if kind != "runtime":
        return list(made.values())
    rivals = draw(st.lists(st.sampled_from(_METHODS), max_size=3, unique=True))
    named = [dict(zip(_NAMES, rival, strict=True)) for rival in rivals if rival[0] != row.method]
    return [*made.values(), *(dataclasses.replace(one, **rival) for rival in named for one in made.values())]


@st.composite
def odd_cells(draw: st.DrawFn) -> list[list[Row]]:
    """Cells of one kind: one for each of some methods, and then some that are like another with one column changed."""
    kind = draw(st.sampled_from(["runtime", "likelihood", "likelihood", *_METRICS]))
    dataset, architecture = draw(st.sampled_from(_DATA))
    recipe = draw(st.sampled_from(["paper", "tuned"]))
    settings = {"preprocess": True, "config": {"ema_decay": None}, "project": "0.1.0"}
    origin = {"recipe": recipe, "shortened": False}
    usual = Row(
        **{"cell": "", "experiment": draw(st.sampled_from(["table2-mnist-fc", "log-z", "asv", "new"]))},
        **{"profile": "paper", "recipe": recipe, "method": "", "objective": "", "linear": "", "dataset": dataset},
        **{"architecture": architecture, "shape": "1x28x28", "D": 784, "L": 2, "B": 100, "parameters": 9, "seed": 0},
        **{"dtype": "float32", "device": "cpu", "threads": 1, "metric": "", "unit": "1", "versions": "{}"},
        config=_written(kind, settings, origin),
        **{"cpu": "a cpu", "commit": "c" * 40, "started_at": "2025-01-01T00:00:00+00:00"},
    )
    columns = {"config": _configs(kind), "versions": st.sampled_from(["", '{"torch": 3}', '{"torch": "2"}'])}
    columns |= {name: texts | _TEXTS for name, texts in _NAMED.items()} | dict.fromkeys((*_NAMES, "cpu"), _TEXTS)
    columns |= {name: numbers for name, numbers in _WHOLE.items() if name not in ("n", "iteration")}
    columns |= {name: st.none() | columns.get(name, _TEXTS) for name in _NULLABLE}
    several = [
        {},
        {"seed": 1},
        {"D": 1024},
        {"L": 4},
        {"config": _written(kind, settings | {"preprocess": False}, origin)},
    ]
    several += [{"config": _written(kind, settings | {"config": {"ema_decay": 0.9}}, origin)}]
    methods = draw(st.lists(st.sampled_from(_METHODS), min_size=1, max_size=4, unique=True))
    changes = draw(st.lists(st.sampled_from(several), min_size=1, max_size=3))
    named = [dict(zip(_NAMES, method, strict=True)) for method in methods]
    rows = [dataclasses.replace(usual, **own, **change) for change in changes for own in named]
    for name in draw(st.lists(st.sampled_from(["D", "seed", "config", *sorted(columns)]), max_size=3)):
        rows.append(dataclasses.replace(draw(st.sampled_from(rows)), **{name: draw(columns[name])}))
    return [draw(_rows(kind, dataclasses.replace(row, cell=f"{place:016x}"))) for place, row in enumerate(rows)]
