"""Pages and figures written to a folder, experiment by experiment, with what was shortened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from harness.paper import published
from harness.paper.experiments import EXPERIMENTS, statement
from harness.report import publish
from harness.results import Row, to_frame


def sweep(make_row: Callable[..., Row], **changes: object) -> list[Row]:
    return [
        make_row(**{"method": method, "D": size, "L": depth, "value": size * depth * 1e-3, **changes})
        for method in ("a", "b")
        for size in (16, 64)
        for depth in (1, 2)
    ]


def test_every_experiment_has_pages_of_its_own(make_row: Callable[..., Row]) -> None:
    rows = sweep(make_row) + sweep(make_row, experiment="figure2a-fc", profile="quick")
    pages = {page.name: page for page in publish.pages(to_frame(rows))}
    assert set(pages) == {
        f"{prefix}-{table}"
        for prefix in ("runtime-custom", "figure2a-fc-quick")
        for table in ("runtime", "slopes", "timings")
    }
    page = pages["figure2a-fc-quick-runtime"]
    assert page.title.startswith("figure2a-fc (quick): median milliseconds an iteration")
    assert page.settings == (
        "architecture = fc, B = 100, dtype = float32, device = cpu, threads = 2, cpu = a cpu, 2 cores, "
        "commit = cccccccc"
    )
    assert page.differs == statement("figure2a-fc", "quick")
    text = page.text()
    assert text.startswith(f"## {page.title}\n\n| method")
    assert text.endswith(f"{page.settings}\n\n{page.differs}\n")
    # What a user asked for differs from nothing.
    assert pages["runtime-custom-runtime"].differs == ""
    assert "\n\n\n" not in pages["runtime-custom-runtime"].text()


def test_what_a_method_declares_stands_under_its_tables(make_row: Callable[..., Row]) -> None:
    rows = [make_row(), make_row(cell="b", method="residual-ml", limits="it cannot draw samples")]
    page = next(publish.pages(to_frame(rows)))
    assert page.limits == ["residual-ml declares: it cannot draw samples."]
    assert "\n\nresidual-ml declares: it cannot draw samples.\n" in page.text()


def test_statements_say_what_is_shortened() -> None:
    for experiment in EXPERIMENTS:
        assert experiment.shortened in statement(experiment.name, "quick")
        assert experiment.shortened not in statement(experiment.name, "paper")
        assert experiment.differs in statement(experiment.name, "paper")
    assert statement("runtime", "custom") == ""


def test_everything_is_written(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    rows = sweep(make_row) + sweep(make_row, experiment="figure2a-fc", profile="quick", ci_low=None, commit=None)
    files = publish.write(to_frame(rows), tmp_path / "new")
    assert sorted(files) == sorted(path for path in (tmp_path / "new").rglob("*") if path.is_file())
    names = {str(path.relative_to(tmp_path / "new")) for path in files}
    assert names == {
        *(
            f"tables/{prefix}-{table}.{suffix}"
            for prefix in ("runtime-custom", "figure2a-fc-quick")
            for table in ("runtime", "slopes", "timings")
            for suffix in ("md", "tex")
        ),
        *(
            f"figures/{prefix}-fc-{sweep}.{suffix}"
            for prefix in ("runtime-custom", "figure2a-fc-quick")
            for sweep in ("L1-seconds-over-D", "L2-seconds-over-D", "D16-seconds-over-L", "D64-seconds-over-L")
            for suffix in ("svg", "png")
        ),
    }
    assert all(path.stat().st_size > 0 for path in files)
    assert (tmp_path / "new/figures/runtime-custom-fc-L2-seconds-over-D.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "new/figures/runtime-custom-fc-L2-seconds-over-D.svg").read_text()
    assert r"\toprule" in (tmp_path / "new/tables/runtime-custom-slopes.tex").read_text()


def test_one_dimension_is_no_curve(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    files = publish.write(to_frame([make_row()]), tmp_path)
    assert {path.parent.name for path in files} == {"tables"}
    assert not (tmp_path / "figures").exists()


def test_no_depth_without_a_curve_is_drawn(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    alone = [make_row(D=16, L=2), make_row(D=64, L=4)]
    assert {path.parent.name for path in publish.write(to_frame(alone), tmp_path / "points")} == {"tables"}
    compiled = '{"kind": "RuntimeCell", "config": {"compile": true}}'
    rows = [make_row(D=16, L=2, config=compiled), make_row(D=64, L=2, config=compiled)]
    assert {path.parent.name for path in publish.write(to_frame(rows), tmp_path / "compiled")} == {"tables"}


def test_published_numbers_are_the_paper_s() -> None:
    nll = {
        (row["dataset"], row["architecture"], row["objective"]): (row["published_nll"], row["published_ci"])
        for row in published.likelihood().to_dicts()
    }
    assert nll["mnist", "fc", "ml"] == (1092.4, 0.1)
    assert nll["cifar10", "cnn", "fdssm"] == (11766.0, 36.8)
    assert nll["mnist", "glow", "ssm"] == (728.0, None)
    seconds = {tuple(row[:3]): row[3] for row in published.runtime().rows()}
    assert seconds["fc", "ml", "1x16x16"] == 0.069
    assert seconds["cnn", "ssm", "1x40x40"] == 0.17
    assert ("cnn", "dsm", "1x40x40") not in seconds


def test_curves_of_training_are_drawn(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    def point(metric: str, step: int, **changes: object) -> Row:
        shared = {"experiment": "table4-mnist-fc", "dataset": "mnist", "iteration": step, "seconds": step / 10}
        return make_row(metric=metric, value=float(step), **{**shared, **changes})

    with_map = json.dumps({"preprocess": True, "config": {"ema_decay": 0.9}})
    rows = [point("validation_curve", step, cell=cell, config=with_map) for step in (1, 2) for cell in ("a", "b")]
    rows += [point("gradient_norm", step, cell="a", config=with_map) for step in (1, 2)]
    rows += [point("validation_curve", 1, experiment="one-point")]
    files = {str(path.relative_to(tmp_path)) for path in publish.write(to_frame(rows), tmp_path)}
    stem = "figures/table4-mnist-fc-custom-mnist-fc"
    drawn = {file for file in files if file.startswith("figures")}
    assert drawn == {f"{stem}-{kind}.{suffix}" for kind in ("nll", "gradient") for suffix in ("svg", "png")}
    text = (tmp_path / f"{stem}-nll.svg").read_text()
    assert "seconds of training" in text
    assert "validation NLL, nats" in text
