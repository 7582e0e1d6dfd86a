"""Figures, drawn with matplotlib from frames of rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from harness.tables.runtime import newest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["runtime_figures"]

# Okabe and Ito's colours, told apart by readers with any colour vision; markers tell the methods apart as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
_MARKERS = "osD^vP*X"


def runtime_figures(rows: pl.DataFrame, folder: Path) -> list[Path]:
    """Draw seconds an iteration against D on log axes, one figure for every experiment and architecture.

    Args:
        rows: A frame of `harness.results.SCHEMA`.
        folder: Where the SVG and PNG files go.

    Returns:
        The files written; none where no experiment has two dimensions.
    """
    timings = newest(rows).filter(pl.col("metric") == "seconds_per_iteration", pl.col("status") == "ok")
    # Compiled, every method would have a second curve close to its first; the tables have them.
    timings = timings.filter(~pl.col("method").str.ends_with("(compiled)"))
    written: list[Path] = []
    for (experiment, profile, architecture, cpu, threads), group in timings.group_by(
        ["experiment", "profile", "architecture", "cpu", "threads"], maintain_order=True
    ):
        group = group.filter(pl.col("D").n_unique().over("L") > 1)
        if group.is_empty():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        caption = f"{cpu}, {threads} threads, commit {(group['commit'][0] or 'unknown')[:8]}"
        written += _draw(
            group,
            f"{experiment} ({profile}), {architecture}",
            caption,
            folder / f"{experiment}-{profile}-{architecture}-runtime",
        )
    return written


def _draw(group: pl.DataFrame, title: str, caption: str, stem: Path) -> list[Path]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    depths = group["L"].unique().sort().to_list()
    figure, panels = pyplot.subplots(1, len(depths), figsize=(4.6 * len(depths) + 1.4, 4.2), sharey=True, squeeze=False)
    methods = group["method"].unique().sort().to_list()
    for panel, depth in zip(panels[0], depths, strict=True):
        _curves(panel, group.filter(L=depth), methods)
        panel.set_title(f"L = {depth}")
        panel.set_xlabel("dimension D")
    panels[0][0].set_ylabel("seconds an iteration")
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8)
    figure.suptitle(title)
    figure.text(0.01, 0.01, caption, fontsize=7, color="0.35")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    paths = [stem.with_name(stem.name + suffix) for suffix in (".svg", ".png")]
    for path in paths:
        figure.savefig(path, dpi=150, bbox_inches="tight")
    pyplot.close(figure)
    return paths


def _curves(panel: Axes, group: pl.DataFrame, methods: list[str]) -> None:
    for index, method in enumerate(methods):
        curve = group.filter(method=method).sort("D")
        style = {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKERS[index % len(_MARKERS)], "markersize": 4}
        dashes = "-" if index < len(_COLOURS) else "--"
        panel.plot(curve["D"].to_numpy(), curve["value"].to_numpy(), dashes, label=method, linewidth=1.3, **style)
        bounds = curve.drop_nulls(["ci_low", "ci_high"])
        panel.fill_between(
            bounds["D"].to_numpy(),
            bounds["ci_low"].to_numpy(),
            bounds["ci_high"].to_numpy(),
            color=style["color"],
            alpha=0.2,
            linewidth=0,
        )
    panel.set_xscale("log")
    panel.set_yscale("log")
    sizes = group["D"].unique().sort().to_list()
    panel.set_xticks(sizes, [str(size) for size in sizes], rotation=45)
    panel.set_xticks([], minor=True)
    panel.grid(True, which="both", linewidth=0.3, alpha=0.5)
