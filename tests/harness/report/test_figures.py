"""Figures: what stands together is comparable, every point says what it is, and the same rows give the same bytes."""

from __future__ import annotations

import base64
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl
import pytest
from matplotlib.text import Text
from PIL import Image
from stored import stored_config

from harness.methods.families import family
from harness.report.figures import drawings
from harness.report.figures.chart import Chart, Drawing, Pictures, as_png
from harness.report.figures.sheet import sheet_of, to_svg
from harness.report.figures.style import COLOURS, colour
from harness.results import Row, Store, to_frame
from harness.results.derived import derived

SVG = "{http://www.w3.org/2000/svg}"
MakeRow = Callable[..., Row]
KINDS = {"ebflow-dsm": ("dsm", "dense"), "ebflow-ml": ("ml", "dense"), "nflows-lu-ml": ("ml", "lu")}
FASTER = {"ebflow-dsm": lambda size: 1e-6 * size**1.5, "ebflow-ml": lambda size: 1e-7 * size**2}


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    return derived(to_frame(rows))


def timings(make_row: MakeRow, sizes: tuple[int, ...] = (64, 256, 1024), **changes: object) -> list[Row]:
    rows = []
    for method, (objective, linear) in KINDS.items():
        for size in sizes:
            value = FASTER.get(method, lambda size: 2e-6 * size**1.5)(size)
            shared = {"method": method, "objective": objective, "linear": linear, "D": size, "cell": f"d{size}"}
            times = {"value": value, "ci_low": 0.9 * value, "ci_high": 1.1 * value}
            rows.append(make_row(**{**shared, **times, **changes}))
            rows.append(make_row(**{**shared, "metric": "iteration_bound", "value": value / 2, **changes}))
    return rows


def drawn(rows: list[Row], folder: Path) -> dict[str, Drawing]:
    found = list(drawings(frame(rows), Store(folder)))
    names = [drawing.name for drawing in found]
    assert len(set(names)) == len(names)
    return dict(zip(names, found, strict=True))


def hover(drawing: Drawing) -> list[str]:
    return [title.text or "" for title in ET.fromstring(to_svg(drawing)).iter(f"{SVG}title")]


def words(drawing: Drawing) -> list[str]:
    return [text.get_text() for text in sheet_of(drawing).findobj(Text)]


def test_timings_have_a_headline_curves_and_the_bound(tmp_path: Path, make_row: MakeRow) -> None:
    found = drawn(timings(make_row), tmp_path)
    assert list(found) == ["headline", "runtime-custom-fc-L2-seconds-over-D", "runtime-custom-fc-L2-bound"]
    headline = found["headline"]
    # 1e-7 D^2 over 1e-6 D^1.5 at D = 1024.
    assert "D = 1,024: 3.2 times less" in words(headline)
    assert "At D = 1,024 ebflow-dsm takes 3.2 times less" in headline.caption
    assert "256 for ebflow-dsm" in headline.caption
    assert headline.cells == ("d1024", "d256", "d64")
    curves = found["runtime-custom-fc-L2-seconds-over-D"]
    assert {"ebflow-dsm, slope 1.50", "ebflow-ml, slope 2.00"} <= set(words(curves))
    assert "ebflow-ml, slope 2.00: D = 256, L = 2: 6.554 ms" in hover(curves)
    assert "commit cccccccc" in curves.caption
    assert "50 % of the bound" in hover(found["runtime-custom-fc-L2-bound"])[0]


def test_every_marker_says_what_it_is_and_none_is_left_over(tmp_path: Path, make_row: MakeRow) -> None:
    root = ET.fromstring(to_svg(drawn(timings(make_row), tmp_path)["runtime-custom-fc-L2-seconds-over-D"]))
    said = [use.find(f"{SVG}title") is not None for use in root.iter(f"{SVG}use")]
    assert sum(said) == len(KINDS) * 3
    assert all(title.text for title in root.iter(f"{SVG}title"))


@pytest.mark.parametrize(
    "changes",
    [
        {"B": 200},
        {"dtype": "float64"},
        {"device": "cuda", "gpu": "a gpu"},
        {"threads": 1},
        {"commit": "d" * 40},
        {"cpu": "another"},
        {"versions": json.dumps({"torch": "3"})},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_timings_that_cannot_be_compared_do_not_share_a_figure(
    changes: dict[str, object], tmp_path: Path, make_row: MakeRow
) -> None:
    rows = timings(make_row) + timings(make_row, **changes)
    found = drawn([row for row in rows if row.metric == "seconds_per_iteration"], tmp_path)
    curves = [drawing for name, drawing in found.items() if name.endswith("-seconds-over-D")]
    assert len(curves) == 2
    assert {len(hover(drawing)) for drawing in curves} == {len(KINDS) * 3}
    # One dimension each makes no curve, however many there are together.
    few = timings(make_row, sizes=(64,)) + timings(make_row, sizes=(256,), **changes)
    assert drawn(few, tmp_path) == {}


def test_time_against_layers_is_a_figure_of_its_own(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [make_row(L=depth, value=depth * 1e-3, cell=f"l{depth}") for depth in (1, 2, 4)]
    (drawing,) = drawn(rows, tmp_path).values()
    assert drawing.name == "runtime-custom-fc-D256-seconds-over-L"
    assert "ebflow-ml, slope 1.00" in words(drawing)
    assert "ebflow-ml, slope 1.00: L = 4, D = 256: 4 ms" in hover(drawing)


def test_of_many_methods_the_telling_are_shown_and_long_names_have_a_legend(tmp_path: Path, make_row: MakeRow) -> None:
    many = [make_row(method=f"m{index}-ml", D=size) for index in range(30) for size in (16, 64)]
    few = [row for row in many if row.method in ("m1-ml", "m2-ml")]
    (crowded,), (readable,) = (drawn(rows, tmp_path).values() for rows in (many, few))
    # The first of the only family, and what is published behind it.
    assert {curve.method for curve in chart(crowded).told} == {"m0-ml", "the paper's"}
    assert "29 more curves can be switched on" in crowded.caption
    assert {curve.method for curve in chart(readable).told} == {"m1-ml", "m2-ml", "the paper's"}
    assert "can be switched on" not in readable.caption
    long = [replace(row, method=f"{row.method}-with-a-name-that-takes-all-the-room") for row in few]
    (lengthy,) = drawn(long, tmp_path).values()
    assert [len(sheet_of(drawing).legends) for drawing in (lengthy, readable)] == [1, 0]


def test_the_paper_s_curve_is_behind_where_there_is_one(tmp_path: Path, make_row: MakeRow) -> None:
    at_their_depth, deeper = (drawn(timings(make_row, L=depth), tmp_path) for depth in (2, 4))
    assert "the paper's" in at_their_depth["runtime-custom-fc-L2-seconds-over-D"].caption
    assert "the paper's" not in deeper["runtime-custom-fc-L4-seconds-over-D"].caption


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = list(map(to_svg, drawn(timings(make_row), tmp_path).values()))
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20)  # a matplotlibrc of the user's
    assert list(map(to_svg, drawn(timings(make_row), tmp_path).values())) == texts
    assert all("<text" in text and "dimension D" in text for text in texts)  # that can be searched
    ids = [set(_ids(text)) for text in texts]
    assert not set.intersection(*ids)  # so that one page can hold all of them


def _ids(text: str) -> list[str]:
    return [element.attrib["id"] for element in ET.fromstring(text).iter() if "id" in element.attrib]


def training(make_row: MakeRow, method: str, objective: str, cell: str, **changes: object) -> list[Row]:
    config = stored_config("likelihood", preprocess=True, config={"ema_decay": 0.9}, problem={"seed": 0})
    shared = {"experiment": "table2-mnist-fc", "dataset": "mnist", "shape": "1x28x28", "D": 784, "cell": cell}
    shared = {**shared, "method": method, "objective": objective, "config": config, **changes}
    curve = [
        make_row(**{**shared, "metric": metric, "value": value, "iteration": step, "seconds": step / 10})
        for metric, values in (("validation_curve", (5000.0, 1200.0, 1100.0)), ("gradient_norm", (9.0, 3.0, 1.0)))
        for step, value in zip((10, 20, 30), values, strict=True)
    ]
    return [make_row(**{**shared, "metric": "nll", "value": 1100.0}), *curve]


def test_trainings_have_nll_curves(tmp_path: Path, make_row: MakeRow) -> None:
    rows = training(make_row, "ebflow-dsm", "dsm", "a") + training(make_row, "ebflow-ml", "ml", "b")
    rows += [row for row in training(make_row, "gaussian", "ml", "c") if row.metric == "nll"]
    found = drawn(rows, tmp_path)
    stem = "table2-mnist-fc-custom-mnist-fc"
    assert set(found) == {f"{stem}-likelihood", f"{stem}-nll"}  # norms of gradients of other losses compare nothing
    bars = found[f"{stem}-likelihood"]
    assert {"one Gaussian, 1,100.0", "ebflow-dsm", "ebflow-ml"} <= set(words(bars))
    assert "ebflow-dsm: 1,099.2 nats" in hover(bars)  # the published one
    assert bars.cells == ("a", "b", "c")
    curves = found[f"{stem}-nll"]
    assert curves.cells == ("a", "b")
    assert "ebflow-dsm: 1,100 nats at step 30, 3 s" in hover(curves)
    assert [axis.label.partition(",")[0] for axis in chart(curves).xs] == ["training steps", "seconds of training"]
    assert "Seconds mean little" in curves.caption  # nobody watched the machine


def test_long_names_stand_in_a_legend_that_fits_the_page(tmp_path: Path, make_row: MakeRow) -> None:
    recipes = ("tuned-smooth, 4 of 8 epochs", "tuned-smooth-unrefitted, 4 of 8 epochs")
    rows = [
        row
        for index, recipe in enumerate(recipes)
        for row in training(make_row, "ebflow-dsm", "dsm", f"cell{index}", recipe=recipe)
    ]
    figure = sheet_of(drawn(rows, tmp_path)["table2-mnist-fc-custom-mnist-fc-nll"])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"ebflow-dsm, {recipe}" for recipe in recipes]
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.get_figwidth() * figure.dpi


def test_own_losses_have_a_figure_for_every_objective(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [
        make_row(**{**row.__dict__, "metric": "validation_loss", "value": row.value / 1000})
        for method, cell, recipe in (("dsm", "a", "paper"), ("dsm", "b", "tuned"), ("ssm", "c", "paper"))
        for row in training(make_row, f"ebflow-{method}", method, cell, recipe=recipe)
        if row.metric == "validation_curve"
    ]
    stem = "table2-mnist-fc-custom-mnist-fc"
    found = drawn(rows, tmp_path)
    # That of one training alone compares nothing.
    assert {name: drawing.cells for name, drawing in found.items()} == {f"{stem}-dsm-loss": ("a", "b")}
    assert "ebflow-dsm, paper: 1.1 at step 30, 3 s" in hover(found[f"{stem}-dsm-loss"])


def test_trainings_with_and_without_map_stand_beside_each_other(tmp_path: Path, make_row: MakeRow) -> None:
    without = stored_config("likelihood", preprocess=False, config={}, problem={"seed": 0})
    rows = training(make_row, "ebflow-ssm", "ssm", "a") + training(make_row, "ebflow-ssm", "ssm", "b", config=without)
    found = drawn(rows, tmp_path)
    ends, gradients = (found[f"table2-mnist-fc-custom-mnist-fc-{kind}"] for kind in ("ablation", "gradient"))
    assert {"ebflow-ssm, with MaP, with EMA", "ebflow-ssm, no MaP, no EMA"} <= set(chart(ends).y.names)
    assert {"ebflow-ssm, EMA, MaP", "ebflow-ssm, no EMA, no MaP"} == {curve.label for curve in chart(gradients).curves}
    assert ends.cells == gradients.cells == ("a", "b")


def test_the_kl_of_a_known_density_is_shown(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [
        make_row(experiment="x", dataset="sine", metric=metric, method=method, cell=method, value=value)
        for method, value in (("ebflow-ml", 0.1), ("ebflow-dsm", 0.3))
        for metric in ("kl", "nll")
    ]
    rows = [replace(row, config=stored_config("likelihood", problem={"seed": 0})) for row in rows]
    drawing = drawn(rows, tmp_path)["x-custom-sine-fc-divergence"]
    assert chart(drawing).y.names == ("ebflow-dsm", "ebflow-ml")  # the lowest at the top
    assert "ebflow-dsm: 0.3 nats" in hover(drawing)


def test_an_axis_ends_where_the_ends_of_curves_can_be_read(tmp_path: Path, make_row: MakeRow) -> None:
    rows = training(make_row, "ebflow-dsm", "dsm", "a") + training(make_row, "ebflow-ml", "ml", "b")
    rows = [replace(row, value=row.value + 50 * (row.method == "ebflow-ml")) for row in rows]
    curves = drawn(rows, tmp_path)["table2-mnist-fc-custom-mnist-fc-nll"]
    assert chart(curves).y.limits == (None, 1200.0)  # 1,100 and twice the 50 between the ends
    assert all(len(curve.points) == 3 for curve in chart(curves).curves)  # nothing is cut off the data
    assert "At first the axis ends at 1,200" in curves.caption


def test_a_training_that_was_looked_at_once_has_no_curve(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [row for row in training(make_row, "ebflow-dsm", "dsm", "a") if row.iteration == 10]
    assert drawn(rows, tmp_path) == {}


def test_the_paper_s_determinants_of_convolutions_were_on_the_cpu(tmp_path: Path, make_row: MakeRow) -> None:
    shapes = {"architecture": "cnn", "L": 6}
    found = drawn(timings(make_row, **shapes), tmp_path)["runtime-custom-cnn-L6-seconds-over-D"]
    assert "determinants of convolutions on the CPU" in found.caption
    (ml,) = (curve for curve in chart(found).curves if curve.label.startswith("the paper's ML"))
    assert ml.label == "the paper's ML, its determinants on a CPU"


def test_every_family_has_colours_of_its_own() -> None:
    kinds = [
        ("dsm", "dense"),
        ("ml", "dense"),
        ("aml", "dense"),
        ("ml", "lu"),
        ("ml", "none"),
        ("closed-form", "dense"),
    ]
    assert len({family(*kind) for kind in kinds}) == len({colour(*kind) for kind in kinds}) == len(kinds)
    assert colour("something-new", "dense") in COLOURS


def chart(drawing: Drawing) -> Chart:
    assert isinstance(drawing.content, Chart)
    return drawing.content


def arrays(kind: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    if kind == "points":
        density, score = random.normal(size=(100, 100)), random.normal(size=(16, 16, 2))
        found = {"log_density": density, "true_log_density": density, "score": score, "true_score": score}
        return {"extent": np.array([-4.0, 4.0])} | found
    images = random.integers(17, size=(12, 1, 8, 8)).astype(np.uint8)
    if kind == "samples":
        return {"samples": images, "real": images, "levels": np.array([17])}
    missing = np.zeros((1, 8, 8), np.uint8)
    filled = {name: images for name in ("original", "gaussian", "posterior_mean", "last_iterate")}
    return {**filled, "missing": missing, "levels": np.array([17])}


@pytest.mark.parametrize(
    ("kind", "suffixes"), [("points", {"density", "score"}), ("samples", {"samples"}), ("imputation", {"imputation"})]
)
def test_arrays_beside_the_rows_are_drawn(kind: str, suffixes: set[str], tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path)
    with_arrays = make_row(experiment="x", dataset="data", metric="nll", method="ebflow-dsm", cell="a", value=1.5)
    older = make_row(experiment="x", dataset="data", metric="nll", method="ebflow-ssm", cell="b")
    store.write([with_arrays], arrays(kind))
    store.write([older])
    found = {drawing.name: drawing for drawing in drawings(store.frame()[0], store)}
    found = {name: drawing for name, drawing in found.items() if not name.endswith("likelihood")}
    assert set(found) == {f"x-custom-data-fc-{suffix}" for suffix in suffixes}
    for drawing in found.values():
        assert drawing.cells == ("a",)  # the older cell has nothing to be looked at
        assert len(to_svg(drawing)) < 150 * 1024
        assert to_svg(drawing) == to_svg(drawing)


@pytest.mark.parametrize(
    ("pixels", "note"),
    [(0, "saturated: 100.0% of the pixels are 0; all are 0 to 0 of 16"), (None, "")],
    ids=["white", "as drawn"],
)
def test_a_saturated_panel_says_so(pixels: int | None, note: str, tmp_path: Path, make_row: MakeRow) -> None:
    found = arrays("samples")
    if pixels is not None:
        found["samples"] = np.full_like(found["samples"], pixels)
    store = Store(tmp_path)
    store.write([make_row(experiment="x", dataset="d", metric="nll", method="ebflow-dsm", cell="a", value=1.5)], found)
    (content,) = (one.content for one in drawings(store.frame()[0], store) if one.name.endswith("samples"))
    assert isinstance(content, Pictures)
    assert content.panels[1].note == "; ".join(filter(None, ["1.5 nats", note]))


def test_titles_of_panels_do_not_overlap(tmp_path: Path, make_row: MakeRow) -> None:
    store = Store(tmp_path)
    for index in range(5):
        method = f"normflows-{index}-with-a-long-name-dsm"
        row = make_row(experiment="x", dataset="d", metric="nll", method=method, cell=f"c{index}", value=1e6 + index)
        store.write([row], arrays("samples"))
    (samples,) = (one for one in drawings(store.frame()[0], store) if one.name.endswith("samples"))
    sheet = sheet_of(samples)
    boxes = [panel.title.get_window_extent() for panel in sheet.axes if panel.get_visible()]
    pictures = [panel.get_window_extent() for panel in sheet.axes if panel.get_visible()]
    others = [*boxes, *pictures]
    assert not any(box.overlaps(other) for box in boxes for other in others if other is not box)


def test_no_rows_are_no_figures(tmp_path: Path, make_row: MakeRow) -> None:
    assert list(drawings(frame([]), Store(tmp_path))) == []
    failed = make_row(value=None, ci_low=None, ci_high=None, status="failed", reason="so")
    assert drawn([failed], tmp_path) == {}
    assert isinstance(frame([failed]), pl.DataFrame)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_kept_as_they_are(channels: int) -> None:
    grey_or_not = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    pixels = np.broadcast_to(grey_or_not, (5, 7, 3))
    with Image.open(io.BytesIO(base64.b64decode(as_png(pixels).removeprefix("data:image/png;base64,")))) as image:
        assert image.mode == {1: "L", 3: "RGB"}[channels]
        assert (np.asarray(image.convert("RGB")) == pixels).all()
