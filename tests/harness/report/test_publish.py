"""Pages and figures written to a folder, experiment by experiment, with what was shortened."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from stored import stored_config

from harness.paper import published
from harness.paper.experiments import EXPERIMENTS, statement
from harness.report import publish
from harness.results import Row, Store, to_frame
from harness.results.derived import derived

REFERENCE = Path(__file__).parents[3] / "results" / "reference"


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    return derived(to_frame(rows))


def sweep(make_row: Callable[..., Row], **changes: object) -> list[Row]:
    return [
        make_row(**{"method": method, "D": size, "L": depth, "value": size * depth * 1e-3, **changes})
        for method in ("a", "b")
        for size in (16, 64)
        for depth in (1, 2)
    ]


def test_every_experiment_has_pages_of_its_own(make_row: Callable[..., Row]) -> None:
    rows = sweep(make_row) + sweep(make_row, experiment="figure2a-fc", profile="quick")
    pages = {page.name: page for page in publish.pages(frame(rows))}
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
    page = next(publish.pages(frame(rows)))
    assert page.limits == ["residual-ml declares: it cannot draw samples."]
    assert "\n\nresidual-ml declares: it cannot draw samples.\n" in page.text()


def test_statements_say_what_is_shortened() -> None:
    for experiment in EXPERIMENTS:
        assert experiment.plan.shortened() in statement(experiment.name, "quick")
        assert experiment.plan.shortened() not in statement(experiment.name, "paper")
        assert experiment.differs in statement(experiment.name, "paper")
    assert statement("runtime", "custom") == ""


def kept(rows: Sequence[Row], folder: Path) -> Store:
    """Put rows into a store, each as a cell of its own."""
    store = Store(folder)
    for number, row in enumerate(rows):
        store.write([replace(row, cell=f"{number:016x}")])
    return store


def test_everything_is_written(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    rows = sweep(make_row) + sweep(make_row, experiment="figure2a-fc", profile="quick", ci_low=None, commit=None)
    store = kept(rows, tmp_path / "read")
    files = publish.render(store, tmp_path / "new")
    assert sorted(files) == sorted(path for path in (tmp_path / "new").rglob("*") if path.is_file())
    names = {str(path.relative_to(tmp_path / "new")) for path in files}
    assert names == {
        *(
            f"tables/{prefix}-{table}.md"
            for prefix in ("runtime-custom", "figure2a-fc-quick")
            for table in ("runtime", "slopes", "timings")
        ),
        *(
            f"figures/{prefix}-fc-{sweep}.svg"
            for prefix in ("runtime-custom", "figure2a-fc-quick")
            for sweep in ("L1-seconds-over-D", "L2-seconds-over-D", "D16-seconds-over-L", "D64-seconds-over-L")
        ),
    }
    assert all(path.stat().st_size > 0 for path in files)
    assert "<svg" in (tmp_path / "new/figures/runtime-custom-fc-L2-seconds-over-D.svg").read_text()
    own = Store(shutil.copytree(store.folder, tmp_path / "own"))
    written = {path.name: path.read_bytes() for path in files}
    assert {path.name: path.read_bytes() for path in publish.refresh(own)} == written
    # The folder that is read stays as it was.
    assert {path.name for path in store.folder.iterdir()} == {"cells"}


def test_what_is_rendered_again_is_the_same_and_what_is_stale_goes_when_asked(
    tmp_path: Path, make_row: Callable[..., Row]
) -> None:
    store = kept(sweep(make_row), tmp_path)
    files = publish.render(store, tmp_path)
    first = {path: path.read_bytes() for path in files}
    stale = [tmp_path / name for name in ("tables/gone.md", "tables/old.tex", "figures/gone.svg", "figures/old.png")]
    for path in [*stale, tmp_path / "tables" / "mine.txt"]:
        path.write_text("")
    assert {path: path.read_bytes() for path in publish.render(store, tmp_path)} == first
    assert all(path.exists() for path in stale)
    assert sorted(publish.remove_others(tmp_path, files)) == sorted(stale)
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in [*files, tmp_path / "tables" / "mine.txt"])


def test_only_what_changed_is_made_again(
    tmp_path: Path, make_row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = kept([make_row(), make_row(experiment="figure2a-fc", profile="quick")], tmp_path)
    shutil.copytree(REFERENCE / "asv", tmp_path / "asv")
    made: list[str] = []
    write = publish._Part.write
    monkeypatch.setattr(publish._Part, "write", lambda part, *places: made.append(part.name) or write(part, *places))

    def refreshed() -> list[str]:
        made.clear()
        files = publish.refresh(store)
        assert all(path.is_file() and path.read_text() != "edited" for path in files)
        return made

    assert refreshed() == ["", "leaderboard", "figure2a-fc", "runtime", "asv"]
    assert refreshed() == []
    store.write([make_row(cell="a" * 16, seed=1)])
    assert refreshed() == ["", "runtime"]
    (tmp_path / "tables" / "figure2a-fc-quick-runtime.md").write_text("edited")
    (tmp_path / "tables" / "runtime-custom-timings.md").unlink()
    assert refreshed() == ["figure2a-fc", "runtime"]
    with monkeypatch.context() as other:
        other.setattr(publish, "code_digest", lambda: "newer")
        assert len(refreshed()) == 5
    (tmp_path / "rendered.json").write_text("[]")
    assert len(refreshed()) == 5


def test_what_asv_wrote_in_the_folder_has_tables_too(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    store = kept([make_row()], tmp_path)
    shutil.copytree(REFERENCE / "asv", tmp_path / "asv")
    names = {path.name for path in publish.render(store, tmp_path)}
    assert {"asv-custom-runtime.md", "runtime-custom-runtime.md"} <= names


def test_one_dimension_is_no_curve(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    files = publish.render(kept([make_row()], tmp_path), tmp_path)
    assert {path.parent.name for path in files} == {"tables"}
    assert not (tmp_path / "figures").exists()


def test_no_depth_without_a_curve_is_drawn(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    alone = [make_row(D=16, L=2), make_row(D=64, L=4)]
    compiled = stored_config("runtime", config={"compile": True})
    rows = [make_row(D=16, L=2, config=compiled), make_row(D=64, L=2, config=compiled)]
    for name, some in (("points", alone), ("compiled", rows)):
        assert publish.write_figures(frame(some), Store(tmp_path), tmp_path / name) == []


def test_published_numbers_are_the_paper_s() -> None:
    nll = {
        (row["dataset"], row["architecture"], row["objective"]): (row["published_nll"], row["published_ci"])
        for row in published.likelihood().to_dicts()
    }
    assert nll["mnist", "fc", "ml"] == (1092.4, 0.1)
    assert nll["cifar10", "cnn", "fdssm"] == (11766.0, 36.8)
    assert nll["mnist", "glow", "ssm"] == (728.0, None)
    seconds = {tuple(row[:3]): row[-1] for row in published.runtime().rows()}
    assert seconds["fc", "ml", "1x16x16"] == 0.069
    assert seconds["cnn", "ssm", "1x40x40"] == 0.17
    assert ("cnn", "dsm", "1x40x40") not in seconds


def test_curves_of_training_are_drawn(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    def point(metric: str, step: int, **changes: object) -> Row:
        shared = {"experiment": "table4-mnist-fc", "dataset": "mnist", "iteration": step, "seconds": step / 10}
        return make_row(metric=metric, value=float(step), **{**shared, **changes})

    with_map = stored_config("likelihood", preprocess=True, config={"ema_decay": 0.9})
    rows = [point("validation_curve", step, cell=cell, config=with_map) for step in (1, 2) for cell in ("a", "b")]
    without = stored_config("likelihood", preprocess=False, config={"ema_decay": 0.9})
    rows += [point("validation_curve", step, cell="c", config=without) for step in (1, 2)]
    rows += [
        point("gradient_norm", step, cell=c, config=o) for step in (1, 2) for c, o in (("a", with_map), ("c", without))
    ]
    rows += [point("validation_curve", 1, experiment="one-point")]
    files = publish.write_figures(frame(rows), Store(tmp_path), tmp_path)
    stem = "figures/table4-mnist-fc-custom-mnist-fc"
    assert {str(path.relative_to(tmp_path)) for path in files} == {f"{stem}-{kind}.svg" for kind in ("nll", "gradient")}
    text = (tmp_path / f"{stem}-nll.svg").read_text()
    assert "seconds of training" in text
    assert "validation NLL, nats" in text


@pytest.mark.parametrize("name", ["x" * 300, "数据" * 40, "../" * 90], ids=["long", "wide", "up"])
def test_the_name_of_a_file_is_never_too_long(name: str, make_row: Callable[..., Row], tmp_path: Path) -> None:
    rows = [
        make_row(experiment=name, metric=metric, method=f"{name}{D}", D=D)
        for D in (16, 64)
        for metric in ("flops", "seconds_per_iteration")
    ]
    others = [replace(row, experiment=f"{name}of another name") for row in rows]
    written = publish.write_tables(publish.pages(derived(to_frame([*rows, *others]))), tmp_path)
    assert len(written) == len(set(written)) == 4
    assert all(path.parent == tmp_path / "tables" and path.is_file() for path in written)
