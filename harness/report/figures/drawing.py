"""A figure with all that a page needs of it: name, title, caption, the cells it shows, and what each point says."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.report.figures.sheet import Sheet


_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_LONG = re.compile(r"(\.\d\d)\d+")  # a hundredth of a point is enough
ET.register_namespace("", _SVG)
ET.register_namespace("xlink", _XLINK)


@dataclass(frozen=True)
class Drawing:
    """One figure, ready to be written or put into a page.

    The same rows and the same matplotlib give the same bytes.

    Args:
        name: The name of the figure's file, without its suffix.
        title: What is shown, in a line.
        caption: What to know to read the figure, with machine and commit, in sentences.
        figure: The drawn figure.
        cells: Keys of the cells whose rows or arrays the figure shows.
    """

    name: str
    title: str
    caption: str
    figure: Sheet
    cells: tuple[str, ...]

    def __post_init__(self) -> None:
        self.figure.settle()

    def svg(self) -> str:
        """Write the figure as SVG: text stays text, every marker has a `<title>`, no other drawing has its ids."""
        from matplotlib import rc_context

        from harness.report.figures.style import styled

        file = io.StringIO()
        undated = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with styled(), rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure.savefig(file, format="svg", metadata=undated)
        root = ET.fromstring(file.getvalue())
        for group in root.iter(f"{{{_SVG}}}g"):
            markers = group.findall(f"{{{_SVG}}}use")
            if len(styles := {marker.get("style") for marker in markers}) == 1:
                group.set("style", styles.pop() or "")  # once, not at every marker
                for marker in markers:
                    marker.attrib.pop("style", None)
            texts = self.figure.said.get(group.attrib.pop("id", ""), [])
            for marker, text in zip(group.iter(f"{{{_SVG}}}use"), texts, strict=False):
                ET.SubElement(marker, f"{{{_SVG}}}title").text = text
        for element in root.iter():
            for name in {"d", "x", "y"}.intersection(element.keys()):
                element.set(name, _LONG.sub(r"\1", element.attrib[name]))
        root.set("role", "img")
        root.set("aria-label", self.title)
        return ET.tostring(root, encoding="unicode") + "\n"
