"""What all pictures share: colours, type, how wide a text is, and how a picture becomes a file.

Every picture is drawn on white, with text that stays text, and the same input gives the same bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from archspec.errors import UsageError
from archspec.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.ft2font import FT2Font

# Paul Tol's "muted" scheme: nine hues that people with any kind of colour vision tell apart (SRON/EPS/TN/09-002), the
# ones that differ most first.
PALETTE = ("#332288", "#44AA99", "#CC6677", "#DDCC77", "#88CCEE", "#882255", "#117733", "#AA4499", "#999933")
INK = "#1F2430"
FADED = "#5A6272"  # still 6 : 1 against white
RULE = "#C4C9D2"
WASH = "#E8EAEE"
DARK_BAR, LIGHT_BAR = "#454D5C", "#A7AFBC"
WHITE = "#FFFFFF"

# The first is the widest and comes with matplotlib: what fits when measured in it fits in the others.
FONTS = ("DejaVu Sans", "Helvetica", "Arial")
FONT_FAMILY = ", ".join([f"'{FONTS[0]}'", *FONTS[1:], "sans-serif"])
TITLE_SIZE, BODY_SIZE, SMALL_SIZE = 13.0, 10.0, 9.0

_MEASURED = 100.0  # the size at which the font is measured

SVG = "http://www.w3.org/2000/svg"
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "archspec",  # ids of clip paths and markers are hashes; unsalted they are random
    "font.family": FONTS[0],  # matplotlib complains of those that this machine lacks; figure_svg adds them
    "font.size": BODY_SIZE,
    "axes.titlesize": TITLE_SIZE,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": BODY_SIZE,
    "axes.labelcolor": INK,
    "axes.edgecolor": FADED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": WASH,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # a name with two dollars in it is a name
    "xtick.color": FADED,
    "ytick.color": FADED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL_SIZE,
    "ytick.labelsize": SMALL_SIZE,
    "legend.frameon": False,
    "legend.fontsize": SMALL_SIZE,
    "figure.facecolor": WHITE,
    "axes.facecolor": WHITE,
    "figure.dpi": 72,  # a point of type is a unit of the SVG
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Inside, matplotlib draws in the house's style, whatever the user's own settings are."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A title may have characters that the measuring font lacks; the viewer's fonts may have them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def check_svg(path: Path) -> None:
    """Raises UsageError, before any work is done, where a picture cannot have this name."""
    if path.suffix.lower() != ".svg":
        raise UsageError(f"{path}: pictures are written as .svg (try {path.stem or 'picture'}.svg)")
    with suppress(OSError):  # of a name too long, or behind a door: writing says it
        if path.is_dir():
            raise UsageError(f"{path}: is a folder")


def write_svg(path: Path, data: bytes) -> None:
    """Write a picture in one step. Raises UsageError where that cannot be; what stood there before is then left."""
    check_svg(path)
    try:
        write_whole(path, data)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def save_svg(figure: Figure, path: Path, *, title: str, about: str = "", tips: Mapping[str, str] | None = None) -> None:
    """Write a figure; see `figure_svg`. Raises UsageError where that cannot be."""
    check_svg(path)
    write_svg(path, figure_svg(figure, title=title, about=about, tips=tips))


def figure_svg(figure: Figure, *, title: str, about: str = "", tips: Mapping[str, str] | None = None) -> bytes:
    """A matplotlib figure, made inside `figure_style()`, as SVG that says what it shows to those who do not see it.

    title: the picture's name. about: what it shows, in words. tips: what a viewer tells when the pointer rests on an
    artist, by the artist's gid.
    """
    buffer = io.BytesIO()
    with figure_style():
        figure.savefig(buffer, format="svg")
    root = ElementTree.fromstring(buffer.getvalue().replace(f"'{FONTS[0]}'".encode(), FONT_FAMILY.encode()))
    for metadata in root.findall(f"{{{SVG}}}metadata"):  # the date is in it
        root.remove(metadata)
    for element in root.iter(f"{{{SVG}}}g"):
        if tips and element.get("id") in tips:
            _say(element, "title", tips[element.attrib["id"]])
    return svg_bytes(root, title, about)


def svg_bytes(root: ElementTree.Element, title: str, about: str) -> bytes:
    """The file of an SVG tree, named and described for those who do not see it."""
    root.set("role", "img")
    root.set("aria-label", title)
    if about:
        _say(root, "desc", about)
    _say(root, "title", title)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    ElementTree.indent(root, " ")
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _say(element: ElementTree.Element, tag: str, text: str) -> None:
    said = ElementTree.Element(f"{{{SVG}}}{tag}")
    said.text = text
    element.insert(0, said)


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """The width of a line of text, in the units of `size`, in the widest of our fonts."""
    return sum(_advance(character, bold) for character in text) * size


@cache
def _advance(character: str, bold: bool) -> float:
    """In em; a character that the font lacks is taken to be as wide as it is high, as Chinese ones are."""
    from matplotlib.ft2font import LoadFlags

    font = _font(bold)
    if ord(character) not in font.get_charmap():
        return 1.0
    return font.load_char(ord(character), flags=LoadFlags.NO_HINTING).linearHoriAdvance / 65536 / _MEASURED


@cache
def _font(bold: bool) -> FT2Font:
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    font = FT2Font(Path(get_data_path(), "fonts", "ttf", name))
    font.set_size(_MEASURED, 72)
    return font


def wrapped(text: str, width: float, size: float, *, bold: bool = False) -> list[str]:
    """A text in lines that are no wider than `width`: broken behind spaces and marks, else anywhere."""
    lines, line, fits = [], "", 0
    for character in text:
        line += character
        if text_width(line.rstrip(), size, bold=bold) > width and len(line) > 1:
            cut = fits or len(line) - 1
            lines.append(line[:cut].rstrip())
            line, fits = line[cut:].lstrip(), 0
        if character in " _-.,/":
            fits = len(line)
    return [line for line in (*lines, line) if line] or [""]
