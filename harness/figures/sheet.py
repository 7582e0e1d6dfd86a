"""The page a figure is drawn on."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure

__all__ = ["Sheet"]


class Sheet(Figure):
    """A figure whose points say what they are."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained")
        self.said: dict[str, list[str]] = {}

    def say(self, points: Artist, texts: Sequence[str]) -> None:
        """Give every marker of an artist the text that a browser shows when the pointer rests on it."""
        name = f"points-{len(self.said)}"
        points.set_gid(name)
        self.said[name] = list(texts)
