"""What trained models look like: densities and scores beside the true ones, samples, images filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib import colormaps

from harness.report.figures.chart import Drawing, Picture, Pictures, drawing
from harness.report.figures.groups import TRAININGS, groups, labelled, title_of
from harness.report.tables.text import text_of
from harness.results import Store

_PIXELS = 100_000  # of all samples in a figure
_SHOWN = 8  # images filled in
_LINE, _MISSING = -1, -2  # what is no pixel
_LINES, _GIVEN = (255, 255, 255), (169, 207, 230)  # their colours
_SATURATED = 0.9
"""Samples are saturated if this share of their pixels is the darkest or the brightest; of MNIST 83 % are."""
_UNSEEN = 0.98
"""Of a density nothing is to be seen if this share of the map lies at one end of the scale."""


@dataclass(frozen=True)
class _Seen:
    """One trained model: its label, its arrays, and the numbers that stand beside them."""

    label: str
    cell: str
    arrays: Mapping[str, np.ndarray]
    values: Mapping[str, float]

    def note(self, metric: str, form: str) -> str:
        """Return a number in words, if there is one."""
        value = self.values.get(metric)
        return "" if value is None else form.format(value)


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
                content, what, sentences = draw(with_it)
                title = f"{title_of(shown)}: {what}"
                yield drawing(shown, f"{name}-{suffix}", title, content, sentences)


def _seen(group: pl.DataFrame, store: Store) -> list[_Seen]:
    seen = []
    for (cell, experiment, label), own in group.group_by(["cell", "experiment", "label"], maintain_order=True):
        arrays = store.arrays(str(experiment), str(cell))
        if arrays:
            ends = own.filter(pl.col("iteration").is_null())
            seen.append(_Seen(str(label), str(cell), arrays, dict(ends.select("metric", "value").rows())))
    return seen


def _densities(seen: Sequence[_Seen]) -> tuple[Pictures, str, str]:
    truth = np.exp(seen[0].arrays["true_log_density"].astype(float))
    low, high = map(float, seen[0].arrays["extent"])
    top = float(truth.max())
    panels = [Picture("true", "", _coloured(truth, top))]
    for one in seen:
        values = np.exp(np.minimum(one.arrays["log_density"].astype(float), 80))
        notes = one.note("kl", "KL {:,.4g} nats"), _at_an_end(values / top, text_of(float(values.max() / top)))
        panels.append(Picture(one.label, "; ".join(filter(None, notes)), _coloured(values, top)))
    sentences = (
        f"Densities on one scale of colours, brightest at {text_of(top)} a unit of area, the highest true density, and "
        f"above; both axes run from {low:g} to {high:g} in the data's own unit. KL is that of the model from the truth "
        "over the test set."
    )
    return Pictures(tuple(panels)), "learned densities beside the true one", sentences


def _at_an_end(shares: np.ndarray, highest: str) -> str:
    """Say of densities, as shares of the scale, if hardly anything of them is to be seen, and why."""
    dark, bright = float((shares < 0.02).mean()), float((shares >= 1).mean())
    if dark > _UNSEEN:
        return f"{dark:.1%} of the map is below 2 % of the scale; its highest density is {highest} times the scale"
    if bright > _UNSEEN:
        return f"saturated: {bright:.1%} of the map is above the scale, up to {highest} times"
    return ""


def _coloured(values: np.ndarray, top: float) -> np.ndarray:
    colours = colormaps["cividis"](np.clip(values[::-1] / top, 0, 1), bytes=True)
    return np.asarray(colours[..., :3])


def _scores(seen: Sequence[_Seen]) -> tuple[Pictures, str, str]:
    truth, density = seen[0].arrays["true_score"], seen[0].arrays["true_log_density"]
    at = ((np.arange(len(truth)) + 0.5) * len(density) / len(truth)).astype(int)
    near = density[np.ix_(at, at)]
    half = float(np.median(_length(truth)[near > near.max() - 4]))
    step = 1 / len(truth)
    panels = []
    for title, note, field in [
        ("true", "", truth),
        *((one.label, one.note("fisher", "Fisher {:,.3g}"), one.arrays["score"]) for one in seen),
    ]:
        field = np.nan_to_num(field.astype(float), posinf=0, neginf=0)
        arrows = field * (1.3 * step / np.maximum(_length(field) + half, 1e-9))[..., None]
        panels.append(Picture(title, note, needles=_needles(arrows, 0.25 * step)))
    sentences = (
        f"Gradient of log p; a needle points uphill, and has half of its greatest length at {half:.3g} nats per unit "
        "of the data, the median where data lie. "
        "Fisher is half the mean squared distance from the true score over the test set, nats."
    )
    return Pictures(tuple(panels)), "learned scores beside the true one", sentences


def _samples(seen: Sequence[_Seen]) -> tuple[Pictures, str, str]:
    real, levels = seen[0].arrays["real"], seen[0].arrays["levels"]
    side = int((_PIXELS / ((1 + len(seen)) * real[0, 0].size)) ** 0.5)
    side = max(2, min(side, int(len(real) ** 0.5), 8))
    panels = []
    for title, note, images in [
        ("test images", "", real),
        *((one.label, one.note("nll", "{:,.1f} nats"), one.arrays["samples"]) for one in seen),
    ]:
        lines = [_side_by_side(images[start : start + side]) for start in range(0, side * side, side)]
        notes = note, _saturated(images, int(levels[0]) - 1)
        panels.append(Picture(title, "; ".join(filter(None, notes)), _image(np.concatenate(lines), levels)))
    sentence = "Samples, not chosen, with the test NLL of each method."
    return Pictures(tuple(panels)), "samples beside test images", sentence


def _saturated(images: np.ndarray, top: int) -> str:
    """Say of images if nearly every pixel is the darkest or the brightest there is."""
    for end in (0, top):
        share = float((images == end).mean())
        if share > _SATURATED:
            return f"saturated: {share:.1%} of the pixels are {end}; all are {images.min()} to {images.max()} of {top}"
    return ""


def _imputations(seen: Sequence[_Seen]) -> tuple[Pictures, str, str]:
    first = seen[0].arrays
    masked = np.where(first["missing"] > 0, _MISSING, first["original"].astype(int))
    strips = [("original", "", first["original"]), ("given", "", masked), ("Gaussian's mean", "", first["gaussian"])]
    for one in seen:
        mean = one.note("psnr_posterior_mean", "{:.1f} dB")
        strips.append((f"{one.label}, mean of its chain", mean, one.arrays["posterior_mean"]))
        draw = one.note("psnr_last_iterate", "{:.1f} dB")
        strips.append((f"{one.label}, one draw", draw, one.arrays["last_iterate"]))
    panels = [
        Picture(title, note, _image(_side_by_side(images[:_SHOWN]), first["levels"])) for title, note, images in strips
    ]
    sentences = (
        "The first test images, what was given of them, and what fills them in: the exact conditional mean of one "
        "Gaussian, and of each method the mean of its chain after the warm-up and its last iterate, with the PSNR over "
        "all images."
    )
    return Pictures(tuple(panels), columns=1), "the missing lower half of test images, filled in", sentences


def _needles(arrows: np.ndarray, width: float) -> np.ndarray:
    """Return a thin triangle for every arrow of a square, thick where it starts: shape (N, 3, 2)."""
    middles = (np.arange(len(arrows)) + 0.5) / len(arrows)
    x, y = np.meshgrid(middles, middles)
    middle, arrow = np.stack([x, y], axis=2).reshape(-1, 2), arrows.reshape(-1, 2)
    aside = arrow[:, ::-1] * [-1, 1] * (0.5 * width / np.maximum(np.hypot(*arrow.T), 1e-9))[:, None]
    tail, tip = middle - arrow / 2, middle + arrow / 2
    return np.stack([tail + aside, tip, tail - aside], axis=1)


def _length(field: np.ndarray) -> np.ndarray:
    return np.asarray(np.hypot(*np.moveaxis(field.astype(float), 2, 0)))


def _side_by_side(images: np.ndarray) -> np.ndarray:
    """Put images of shape (N, C, H, W) side by side, a line between them: shape (H + 1, N * (W + 1), C)."""
    apart = np.pad(images.astype(int), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=_LINE)
    return np.concatenate(list(apart.transpose(0, 2, 3, 1)), axis=1)


def _image(pixels: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return pixels of one colour or three as red, green and blue: grey levels as ink on white, colours as they are."""
    top = int(levels[0]) - 1
    scaled = 255 * np.clip(pixels, 0, top) // top
    shown = np.repeat(255 - scaled, 3, axis=2) if pixels.shape[2] == 1 else scaled
    for mark, colour in ((_LINE, _LINES), (_MISSING, _GIVEN)):
        shown = np.where((pixels == mark).all(axis=2)[..., None], colour, shown)
    return np.asarray(shown, np.uint8)
