"""A figure with all that a page needs of it: name, title, caption, the cells it shows, and what each point says."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.report.tables import file_stem

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
        name: Of its files.
        title: What is shown, in a line.
        caption: What to know to read it, with machine and commit; sentences.
        figure: What is drawn.
        cells: Keys of the cells whose rows or arrays it shows.
    """

    name: str
    title: str
    caption: str
    figure: Sheet
    cells: tuple[str, ...]

    def __post_init__(self) -> None:
        self.figure.settle()

    def svg(self) -> str:
        """Write it as SVG: text stays text, every marker has a `<title>`, no id is that of another drawing."""
        from matplotlib import rc_context

        from harness.report.figures.style import styled

        file = io.StringIO()
        with styled(), rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure.savefig(
                file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
            )
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

    def png(self) -> bytes:
        """Write it as PNG."""
        from harness.report.figures.style import styled

        file = io.BytesIO()
        with styled():
            self.figure.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()

    def write(self, folder: Path) -> list[Path]:
        """Write both below a folder, which is made; return the files."""
        folder.mkdir(parents=True, exist_ok=True)
        vector, pixels = (folder / f"{file_stem(self.name)}.{suffix}" for suffix in ("svg", "png"))
        vector.write_text(self.svg())
        pixels.write_bytes(self.png())
        return [vector, pixels]
