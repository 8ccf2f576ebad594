"""A small SVG writer: shapes and text at places, in groups that say what they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal
from xml.etree import ElementTree

from archspec.drawing.style import BODY_SIZE, FONT_FAMILY, INK, SVG, WHITE, svg_bytes

Anchor = Literal["start", "middle", "end"]


class Canvas:
    """Draws from the top left, in units of which a printer makes points; later shapes cover earlier ones."""

    def __init__(self, width: float, height: float) -> None:
        self.root = ElementTree.Element(f"{{{SVG}}}svg")
        self.root.set("width", f"{_number(width)}pt")
        self.root.set("height", f"{_number(height)}pt")
        self.root.set("viewBox", f"0 0 {_number(width)} {_number(height)}")
        self.root.set("font-family", FONT_FAMILY)
        self._into = self.root
        self.rect(0, 0, width, height, WHITE)

    @contextmanager
    def group(self, kind: str, tip: str = "") -> Iterator[None]:
        """What is drawn inside belongs together; `tip` is told when the pointer rests on it."""
        outer = self._into
        self._into = self._add("g", **{"class": kind})
        if tip:
            self._tip(self._into, tip)
        try:
            yield
        finally:
            self._into = outer

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str,
        *,
        stroke: str = "",
        tip: str = "",
        kind: str = "",
    ) -> None:
        """A rectangle; a stroke is drawn half inside, half outside."""
        box = {"x": _number(x), "y": _number(y), "width": _number(width), "height": _number(height)}
        self._shape("rect", box, fill, stroke, tip, kind)

    def circle(self, x: float, y: float, radius: float, fill: str, *, stroke: str = "", tip: str = "") -> None:
        """A circle around (x, y)."""
        where = {"cx": _number(x), "cy": _number(y), "r": _number(radius)}
        self._shape("circle", where, fill, stroke, tip, "")

    def polygon(self, points: Iterable[tuple[float, float]], fill: str, *, stroke: str = "", tip: str = "") -> None:
        """A closed outline."""
        where = {"points": " ".join(f"{_number(x)},{_number(y)}" for x, y in points)}
        self._shape("polygon", where, fill, stroke, tip, "")

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str) -> None:
        """A thin line."""
        ends = {"x1": _number(x1), "y1": _number(y1), "x2": _number(x2), "y2": _number(y2)}
        self._shape("line", ends, "none", stroke, "", "")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = BODY_SIZE,
        anchor: Anchor = "start",
        bold: bool = False,
        fill: str = INK,
    ) -> None:
        """A line of text that stands on y."""
        element = self._add("text", x=_number(x), y=_number(y), fill=fill)
        element.set("font-size", _number(size))
        if anchor != "start":
            element.set("text-anchor", anchor)
        if bold:
            element.set("font-weight", "bold")
        element.text = text

    def to_bytes(self, title: str, about: str) -> bytes:
        """The file, with what it shows in words."""
        return svg_bytes(self.root, title, about)

    def _shape(self, tag: str, where: dict[str, str], fill: str, stroke: str, tip: str, kind: str) -> None:
        element = self._add(tag, **where, fill=fill)
        if stroke:
            element.set("stroke", stroke)
            element.set("stroke-width", "0.8")
        if kind:
            element.set("class", kind)
        if tip:
            self._tip(element, tip)

    def _add(self, tag: str, **attributes: str) -> ElementTree.Element:
        return ElementTree.SubElement(self._into, f"{{{SVG}}}{tag}", attributes)

    def _tip(self, element: ElementTree.Element, text: str) -> None:
        ElementTree.SubElement(element, f"{{{SVG}}}title").text = text


def _number(value: float) -> str:
    """Two decimals at most, the same on every machine."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
