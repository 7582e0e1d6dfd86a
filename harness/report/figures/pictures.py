"""What trained models look like: densities and scores beside the true ones, samples, images filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from harness.report.figures.groups import TRAININGS, groups, labelled, title_of
from harness.report.figures.sheet import Drawing, Sheet
from harness.report.figures.style import BLUE, styled
from harness.results import Store

_COLUMNS = 4
_PANEL = 1.32  # inches a row of panels, its titles included
_PIXELS = 100_000  # of all samples in a figure, which SVG holds as they are
_SHOWN = 8  # images filled in
_LINE, _MISSING = -1, -2  # what is no pixel
_GREY = colormaps["gray_r"].with_extremes(bad="white", under="#a9cfe6")


@dataclass(frozen=True)
class _Seen:
    """One trained model: its label, its arrays, and the numbers that stand beside them."""

    label: str
    cell: str
    arrays: Mapping[str, np.ndarray]
    values: Mapping[str, float]

    def title(self, metric: str, form: str) -> str:
        """Return the label and below it a number, if there is one."""
        value = self.values.get(metric)
        return self.label if value is None else f"{self.label}\n{form.format(value)}"


def picture_figures(rows: pl.DataFrame, store: Store) -> Iterator[Drawing]:
    """Draw the arrays of all cells that have some, one figure of a kind for every dataset and architecture."""
    kinds = {
        "log_density": (_densities, "kl", "density"),
        "true_score": (_scores, "fisher", "score"),
        "samples": (_samples, "nll", "samples"),
        "original": (_imputations, "psnr_posterior_mean", "imputation"),
    }
    for name, group in groups(rows.filter(status="ok"), TRAININGS, ["dtype"]):
        group = labelled(group.filter(pl.col("seed") == pl.col("seed").min().over("method")))
        seen = _seen(group, store)
        for array, (draw, metric, suffix) in kinds.items():
            with_it = [one for one in seen if array in one.arrays]
            with_it.sort(key=lambda one: (one.values.get(metric, np.inf), one.label))
            if with_it:
                shown = group.filter(pl.col("cell").is_in([one.cell for one in with_it]))
                with styled():
                    sheet, what, sentences = draw(shown, with_it)
                    drawing = sheet.drawing(f"{name}-{suffix}", f"{title_of(shown)}: {what}", sentences)
                yield drawing


def _seen(group: pl.DataFrame, store: Store) -> list[_Seen]:
    seen = []
    for (cell, experiment, label), own in group.group_by(["cell", "experiment", "label"], maintain_order=True):
        arrays = store.arrays(str(experiment), str(cell))
        if arrays:
            ends = own.filter(pl.col("iteration").is_null())
            seen.append(_Seen(str(label), str(cell), arrays, dict(ends.select("metric", "value").rows())))
    return seen


def _densities(group: pl.DataFrame, seen: Sequence[_Seen]) -> tuple[Sheet, str, str]:
    truth = np.exp(seen[0].arrays["true_log_density"])
    low, high = map(float, seen[0].arrays["extent"])
    sheet, panels = _panels(group, ["true", *(one.title("kl", "KL {:.3f} nats") for one in seen)])
    densities = [truth, *(np.exp(one.arrays["log_density"]) for one in seen)]
    look: dict[str, Any] = {"origin": "lower", "extent": (low, high, low, high), "cmap": "cividis"}
    for panel, values in zip(panels, densities, strict=False):
        image = panel.imshow(values, vmin=0, vmax=truth.max(), **look)
        _square(panel, low, high)
    bar = sheet.colorbar(image, ax=panels, location="bottom", aspect=50, shrink=0.6, pad=0.02)
    bar.set_label("density, per unit of area", fontsize=7)
    bar.ax.tick_params(labelsize=6.5)
    sentences = (
        "Densities on one scale of colours, brightest at the highest true density; both axes in the data's own unit. "
        "KL is that of the model from the truth over the test set."
    )
    return sheet, "learned densities beside the true one", sentences


def _scores(group: pl.DataFrame, seen: Sequence[_Seen]) -> tuple[Sheet, str, str]:
    truth, density = seen[0].arrays["true_score"], seen[0].arrays["true_log_density"]
    at = ((np.arange(len(truth)) + 0.5) * len(density) / len(truth)).astype(int)
    near = density[np.ix_(at, at)]
    half = float(np.median(_length(truth)[near > near.max() - 4]))
    sheet, panels = _panels(group, ["true", *(one.title("fisher", "Fisher {:.3g}") for one in seen)])
    low, high = seen[0].arrays["extent"]
    step = (high - low) / len(truth)
    middles = low + (np.arange(len(truth)) + 0.5) * step
    for panel, field in zip(panels, [truth, *(one.arrays["score"] for one in seen)], strict=False):
        arrows = field * (1.3 * step / np.maximum(_length(field) + half, 1e-9))[..., None]
        panel.add_patch(_needles(middles, arrows, 0.25 * step))
        _square(panel, low, high)
        panel.set(xlim=(low, high), ylim=(low, high))
    sentences = (
        f"Gradient of log p; a needle points uphill, and has half of its greatest length at {half:.3g} nats per unit "
        "of the data, the median where data lie. "
        "Fisher is half the mean squared distance from the true score over the test set, nats."
    )
    return sheet, "learned scores beside the true one", sentences


def _samples(group: pl.DataFrame, seen: Sequence[_Seen]) -> tuple[Sheet, str, str]:
    real = seen[0].arrays["real"]
    side = int((_PIXELS / ((1 + len(seen)) * real[0, 0].size)) ** 0.5)
    side = max(2, min(side, int(len(real) ** 0.5), 8))
    sheet, panels = _panels(group, ["test images", *(one.title("nll", "{:,.1f} nats") for one in seen)])
    for panel, images in zip(panels, [real, *(one.arrays["samples"] for one in seen)], strict=False):
        lines = [_side_by_side(images[start : start + side]) for start in range(0, side * side, side)]
        _image(panel, np.concatenate(lines), seen[0].arrays["levels"])
    return sheet, "samples beside test images", "Samples, not chosen, with the test NLL of each method."


def _imputations(group: pl.DataFrame, seen: Sequence[_Seen]) -> tuple[Sheet, str, str]:
    first = seen[0].arrays
    masked = np.where(first["missing"] > 0, _MISSING, first["original"].astype(int))
    strips = [("original", first["original"]), ("given", masked), ("Gaussian's mean", first["gaussian"])]
    for one in seen:
        strips.append((one.title("psnr_posterior_mean", "mean, {:.1f} dB"), one.arrays["posterior_mean"]))
        strips.append((one.title("psnr_last_iterate", "one draw, {:.1f} dB"), one.arrays["last_iterate"]))
    sheet = Sheet(group, title_of(group), 0.5 + 0.5 * len(strips))
    for panel, (label, images) in zip(sheet.subplots(len(strips), 1), strips, strict=True):
        _image(panel, _side_by_side(images[:_SHOWN]), first["levels"])
        panel.set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
    sentences = (
        "The first test images, what was given of them, and what fills them in: the exact conditional mean of one "
        "Gaussian, and of each method the mean of its chain after the warm-up and its last iterate, with the PSNR over "
        "all images."
    )
    return sheet, "the missing lower half of test images, filled in", sentences


def _panels(group: pl.DataFrame, titles: Sequence[str]) -> tuple[Sheet, list[Axes]]:
    """Lay out a square panel for every title, four in a row."""
    columns = min(_COLUMNS, len(titles))
    lines = -(-len(titles) // columns)
    sheet = Sheet(group, title_of(group), 0.55 + _PANEL * lines * _COLUMNS / max(columns, 3))
    panels = list(sheet.subplots(lines, columns, squeeze=False).flat)
    for panel, title in zip(panels, titles, strict=False):
        panel.set_title(title, fontsize=6.5)
    for empty in panels[len(titles) :]:
        empty.set_visible(False)
    return sheet, panels


def _square(panel: Axes, low: float, high: float) -> None:
    """Make a panel square, and write the ends of its axes at the first one of a figure."""
    place = panel.get_subplotspec()
    ends = [low, high] if place and place.is_first_col() and place.is_first_row() else []
    panel.set(aspect="equal", xticks=ends, yticks=ends)
    panel.tick_params(labelsize=6, length=2, pad=1.5)
    panel.grid(False)
    panel.spines[:].set_visible(True)


def _needles(middles: np.ndarray, arrows: np.ndarray, width: float) -> PathPatch:
    """Draw a thin triangle for every arrow, thick where it starts, all in one path: SVG stays small and sharp."""
    x, y = np.meshgrid(middles, middles)
    middle, arrow = np.stack([x, y], axis=2).reshape(-1, 2), arrows.reshape(-1, 2)
    aside = arrow[:, ::-1] * [-1, 1] * (0.5 * width / np.maximum(np.hypot(*arrow.T), 1e-9))[:, None]
    tail, tip = middle - arrow / 2, middle + arrow / 2
    corners = np.stack([tail + aside, tip, tail - aside, tail + aside], axis=1)
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(middle)
    return PathPatch(Path(corners.reshape(-1, 2), codes), facecolor=BLUE, linewidth=0)


def _length(field: np.ndarray) -> np.ndarray:
    return np.asarray(np.hypot(*np.moveaxis(field.astype(float), 2, 0)))


def _side_by_side(images: np.ndarray) -> np.ndarray:
    """Put images of shape (N, C, H, W) side by side, a line between them: shape (H + 1, N * (W + 1), C)."""
    apart = np.pad(images.astype(int), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=_LINE)
    return np.concatenate(list(apart.transpose(0, 2, 3, 1)), axis=1)


def _image(panel: Axes, pixels: np.ndarray, levels: np.ndarray) -> None:
    """Show grey levels as ink on white, colours as they are."""
    top = int(levels[0]) - 1
    if pixels.shape[2] == 1:
        panel.imshow(np.ma.masked_equal(pixels[..., 0], _LINE), cmap=_GREY, vmin=0, vmax=top)
    else:
        panel.imshow(np.where(pixels == _LINE, top, np.maximum(pixels, 0)) / top)
    panel.set(xticks=[], yticks=[])
    panel.grid(False)
    panel.spines[:].set(visible=True, color="#cccccc", linewidth=0.4)
