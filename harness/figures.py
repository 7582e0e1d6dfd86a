"""Figures, drawn with matplotlib from frames of rows."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from harness.tables import file_stem
from harness.tables.runtime import newest

if TYPE_CHECKING:
    from types import ModuleType

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curve_figures", "runtime_figures"]

# Okabe and Ito's colours, told apart by readers with any colour vision; markers tell the methods apart as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
_MARKERS = "osD^vP*X"
_LEGEND_ROWS = 14


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
            folder / file_stem(experiment, profile, architecture, "runtime"),
        )
    return written


def curve_figures(rows: pl.DataFrame, folder: Path) -> list[Path]:
    """Draw what was followed through training against steps and against seconds, one figure for every dataset.

    Args:
        rows: A frame of `harness.results.SCHEMA`.
        folder: Where the SVG and PNG files go.

    Returns:
        The files written; none where no training has two points of a curve.
    """
    written: list[Path] = []
    labels = {
        "validation_curve": ("validation NLL, nats", "nll"),
        "gradient_norm": ("gradient norm of the last batch, before clipping", "gradient"),
    }
    curves = rows.filter(pl.col("metric").is_in(list(labels))).with_columns(
        MaP=pl.col("config").str.json_path_match("$.preprocess") == "true",
        EMA=pl.col("config").str.json_path_match("$.config.ema_decay").is_not_null(),
    )
    curves = curves.filter(pl.len().over("cell", "metric") > 1)
    for (experiment, profile, dataset, architecture, metric), group in curves.group_by(
        ["experiment", "profile", "dataset", "architecture", "metric"], maintain_order=True
    ):
        folder.mkdir(parents=True, exist_ok=True)
        label, short = labels[metric]
        written += _draw_curves(
            group,
            f"{experiment} ({profile}), {dataset}, {architecture}",
            label,
            folder / file_stem(experiment, profile, dataset, architecture, short),
        )
    return written


def _draw_curves(group: pl.DataFrame, title: str, label: str, stem: Path) -> list[Path]:
    pyplot = _pyplot()
    figure, panels = pyplot.subplots(1, 2, figsize=(10.6, 4.2), sharey=True)
    # What all curves share is no part of their names.
    names = ["method", *(name for name in ("recipe", "EMA", "MaP", "seed") if group[name].n_unique() > 1)]
    for index, (_, curve) in enumerate(group.group_by("cell", maintain_order=True)):
        curve = curve.sort("iteration")
        first = curve.row(0, named=True)
        named = ", ".join(
            ("" if value else "no ") + name if isinstance(value := first[name], bool) else str(value) for name in names
        )
        for panel, axis in zip(panels, ("iteration", "seconds"), strict=True):
            panel.plot(
                curve[axis].to_numpy(),
                curve["value"].to_numpy(),
                label=named,
                linewidth=1.3,
                markersize=3,
                color=_COLOURS[index % len(_COLOURS)],
                marker=_MARKERS[index % len(_MARKERS)],
            )
    for panel, axis in zip(panels, ("training steps", "seconds of training, the start included"), strict=True):
        panel.set_xlabel(axis)
        panel.grid(True, linewidth=0.3, alpha=0.5)
    if group["metric"][0] == "gradient_norm":
        panels[0].set_yscale("log")
    panels[0].set_ylabel(label)
    _legend(panels[-1], group["cell"].n_unique())
    machines = "; ".join(f"{cpu}, {threads} threads" for cpu, threads in group.select("cpu", "threads").unique().rows())
    return _save(figure, title, f"{machines}, commit {(group['commit'][0] or 'unknown')[:8]}", stem)


def _draw(group: pl.DataFrame, title: str, caption: str, stem: Path) -> list[Path]:
    pyplot = _pyplot()
    depths = group["L"].unique().sort().to_list()
    figure, panels = pyplot.subplots(1, len(depths), figsize=(4.6 * len(depths) + 1.4, 4.2), sharey=True, squeeze=False)
    styles = _styles(group)
    for panel, depth in zip(panels[0], depths, strict=True):
        _curves(panel, group.filter(L=depth), styles)
        panel.set_title(f"L = {depth}")
        panel.set_xlabel("dimension D")
    panels[0][0].set_ylabel("seconds an iteration")
    _legend(panels[0][-1], len(styles))
    return _save(figure, title, caption, stem)


def _styles(group: pl.DataFrame) -> dict[str, dict[str, object]]:
    """Give every method a line of its own, slowest first: a colour for each library, a marker within one."""
    slowest_first = group.sort("D", "value").group_by("method", maintain_order=True).last()
    methods = slowest_first.sort("value", descending=True)["method"].to_list()
    libraries: dict[str, list[str]] = {}
    for method in sorted(methods):
        libraries.setdefault(method.split("-")[0], []).append(method)
    styles = {}
    for colour, members in zip(cycle(_COLOURS), libraries.values(), strict=False):
        for index, method in enumerate(members):
            dashes = "-" if index < len(_MARKERS) else "--"
            styles[method] = {"color": colour, "marker": _MARKERS[index % len(_MARKERS)], "linestyle": dashes}
    return {method: styles[method] for method in methods}


def _legend(panel: Axes, curves: int) -> None:
    """Name the curves beside the panel, in as many columns as keep it the higher of the two."""
    columns = -(-curves // _LEGEND_ROWS)
    legend = panel.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8, ncols=columns)
    legend.set_in_layout(False)  # it would squeeze the panels; the page grows by it instead


def _pyplot() -> ModuleType:
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["text.parse_math"] = False  # names may hold a $
    from matplotlib import pyplot

    return pyplot


def _save(figure: Figure, title: str, caption: str, stem: Path) -> list[Path]:
    figure.suptitle(title)
    figure.text(0.01, 0.01, caption, fontsize=7, color="0.35")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    paths = [stem.with_name(stem.name + suffix) for suffix in (".svg", ".png")]
    for path in paths:
        legends = [legend for panel in figure.axes if (legend := panel.get_legend())]
        figure.savefig(path, dpi=150, bbox_inches="tight", bbox_extra_artists=[*figure.texts, *figure.axes, *legends])
    _pyplot().close(figure)
    return paths


def _curves(panel: Axes, group: pl.DataFrame, styles: dict[str, dict[str, object]]) -> None:
    for method, style in styles.items():
        curve = group.filter(method=method).sort("D")
        panel.plot(curve["D"].to_numpy(), curve["value"].to_numpy(), label=method, linewidth=1.3, markersize=4, **style)
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
