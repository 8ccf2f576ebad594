"""A plan as a picture: maps that shrink from left to right, their blocks by mixer, and where the cost goes.

image ▷ [map] ▷ [map] ▷ ... ▷ classes      maps to one scale, what shrinks them by name
        width, H × W, tokens               a column a stage
        ▮▮▮▮▮▮                             a cell a block, coloured by its mixer
        ▇ ▃                                its share of MACs and parameters, all bars to one scale
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from archspec.drawing.canvas import Canvas
from archspec.drawing.style import (
    BODY_SIZE,
    DARK_BAR,
    FADED,
    INK,
    LIGHT_BAR,
    PALETTE,
    RULE,
    SMALL_SIZE,
    TITLE_SIZE,
    WASH,
    WHITE,
    text_width,
    wrapped,
)
from archspec.drawing.summary import NO_MIXER, Cell, Column, Summary, percent, summarize, tokens
from archspec.plan import Plan

MARGIN = 12.0
PAPER = 440.0  # as wide as print still reads when it is scaled to a column of a paper
MAX_ROWS = 8  # of cells, before the picture grows wider
GAP, WIDEST_GAP = 9.0, 28.0  # between columns
LINE = 14.0
CELL_WIDTH, CELL_HEIGHT, PITCH, ROW_PITCH = 8.0, 14.0, 10.0, 17.0
IMAGE_SIDE, MAP_SIDE, HEAD_SIDE = 56.0, 44.0, 28.0  # of the outline in front, the largest map, the outline behind
BAR_WIDTH, BAR_HEIGHT = 20.0, 60.0  # of the largest share
BAR_PITCH = 26.0  # "9.9%" fits
MARKS = 3  # of modifiers that one cell has room for


def draw_plan(plan: Plan, *, title: str | None = None) -> bytes:
    """A plan as an SVG file. title: in place of the network's name.

    Raises CountError for an operation without a formula, SpecError where a block fails on its input.
    """
    return _Picture(summarize(plan), title or plan.name).to_bytes()


@dataclass(frozen=True, slots=True)
class _Place:
    """A column on the canvas."""

    column: Column
    left: float
    width: float

    @property
    def middle(self) -> float:
        return self.left + self.width / 2

    @property
    def right(self) -> float:
        return self.left + self.width


@dataclass(frozen=True, slots=True)
class _Key:
    """An entry of the legend."""

    text: str
    mixer: str = ""
    modifier: str = ""


class _Picture:
    """Measures first, then draws from top to bottom."""

    def __init__(self, summary: Summary, title: str) -> None:
        self.summary, self.title = summary, title
        self.fills = _fills(summary.mixers)
        self.labels = self._row_labels()
        first = MARGIN + max(text_width(text, SMALL_SIZE) for text in self.labels) + GAP
        self.rows = self._rows_of_cells(PAPER - MARGIN - first)
        self.places = self._columns(first)
        self.facts = " · ".join(summary.facts)
        self.width = max(self.places[-1].right, MARGIN + text_width(self.facts, SMALL_SIZE)) + MARGIN
        self.stages = [place for place in self.places if place.column.state is not None]
        self.scale = self._map_scale()

    def to_bytes(self) -> bytes:
        height = self._draw(Canvas(1, 1))  # once, to see how high it gets
        canvas = Canvas(self.width, height)
        self._draw(canvas)
        return canvas.to_bytes(self.title, self.summary.words)

    def _draw(self, canvas: Canvas) -> float:
        """Draws everything; gives the height."""
        y = self._heading(canvas, MARGIN)
        y = self._maps(canvas, y)
        y = self._table(canvas, y)
        y = self._cells(canvas, y)
        y = self._kinds(canvas, y)
        y = self._bars(canvas, y)
        return self._legend(canvas, y) + MARGIN

    # Measuring

    def _row_labels(self) -> list[str]:
        kinds = ["ffn", *(["position"] if any(column.positions for column in self.summary.stages) else [])]
        return ["width", "H × W", "tokens", "blocks", *kinds, "■ params", "share of"]

    def _rows_of_cells(self, room: float) -> int:
        """In how few rows the cells of every stage still fit into the room."""
        for rows in range(1, MAX_ROWS):
            if self._columns_width(rows) <= room:
                return rows
        return MAX_ROWS

    def _columns_width(self, rows: int) -> float:
        columns = self.summary.columns
        return sum(self._column_width(column, rows) for column in columns) + GAP * (len(columns) - 1)

    def _column_width(self, column: Column, rows: int) -> float:
        bars = 2 * BAR_PITCH
        texts = [column.label, *column.ffns, *column.positions]
        if column.state is None:
            return max(bars, *(text_width(text, SMALL_SIZE) for text in (*texts, column.entry)))
        height, width = column.grid
        texts += [f"{height} × {width}", tokens(column.state)]
        return max(bars, self._per_row(column, rows) * PITCH, *(text_width(text, BODY_SIZE) for text in texts))

    def _per_row(self, column: Column, rows: int) -> int:
        return math.ceil((len(column.cells) + column.joins) / rows)

    def _columns(self, left: float) -> list[_Place]:
        """Where the columns stand; what the picture has to spare is spread between them."""
        columns = self.summary.columns
        spare = max(PAPER - MARGIN - left - self._columns_width(self.rows), 0)
        gap = min(GAP + spare / (len(columns) - 1), WIDEST_GAP)
        places = []
        for column in columns:
            places.append(_Place(column, left, self._column_width(column, self.rows)))
            left = places[-1].right + gap
        return places

    def _map_scale(self) -> float:
        """Units a token: the largest map is MAP_SIDE high, and every map fits into its column."""
        highest = max(place.column.grid[0] for place in self.stages)
        return min(MAP_SIDE / highest, *(place.width / place.column.grid[1] for place in self.stages), MAP_SIDE)

    # Drawing: each takes where it starts and gives where it ends

    def _heading(self, canvas: Canvas, y: float) -> float:
        for line in wrapped(self.title, self.width - 2 * MARGIN, TITLE_SIZE, bold=True):
            y += TITLE_SIZE
            canvas.text(MARGIN, y, line, size=TITLE_SIZE, bold=True)
            y += 3
        y += SMALL_SIZE + 3
        canvas.text(MARGIN, y, self.facts, size=SMALL_SIZE, fill=FADED)
        return y + LINE

    def _maps(self, canvas: Canvas, y: float) -> float:
        """Column heads, the maps with what stands between them, and its name."""
        y += SMALL_SIZE
        for place in self.places:
            canvas.text(place.middle, y, place.column.label, size=SMALL_SIZE, anchor="middle", bold=True)
        middle = y + 6 + IMAGE_SIDE / 2
        self._funnels(canvas, middle)
        for place in self.stages:
            height, width = self._map_size(place)
            with canvas.group("map", place.column.tip):
                canvas.rect(place.middle - width / 2, middle - height / 2, width, height, RULE, stroke=FADED)
        return self._entries(canvas, middle + IMAGE_SIDE / 2 + 4)

    def _map_size(self, place: _Place) -> tuple[float, float]:
        height, width = place.column.grid
        return max(height * self.scale, 1), max(width * self.scale, 1)

    def _funnels(self, canvas: Canvas, middle: float) -> None:
        """Between the maps: an outline from the height of one to that of the next."""
        stem, first, last = self.places[0], self.stages[0], self.stages[-1]
        height, width = self._map_size(first)
        _funnel(canvas, (stem.left, IMAGE_SIDE), (first.middle - width / 2, height), middle)
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            start = before.middle + self._map_size(before)[1] / 2
            end = after.middle - self._map_size(after)[1] / 2
            if after.column.entry:
                _funnel(canvas, (start, self._map_size(before)[0]), (end, self._map_size(after)[0]), middle)
            else:
                canvas.line(start, middle, end, middle, FADED)
        if self.summary.head:
            height, width = self._map_size(last)
            _funnel(canvas, (last.middle + width / 2, height), (self.places[-1].right, HEAD_SIDE), middle)

    def _entries(self, canvas: Canvas, y: float) -> float:
        """The names of stem, downsamples and head, each under its funnel."""
        names = list(self._named_funnels())
        lines = 1
        for (x, name), room in zip(names, _rooms([x for x, _ in names], self.width), strict=True):
            parts = wrapped(name, room, SMALL_SIZE)
            lines = max(lines, len(parts))
            for row, part in enumerate(parts):
                canvas.text(x, y + SMALL_SIZE + 11 * row, part, size=SMALL_SIZE, anchor="middle", fill=FADED)
        return y + 11 * lines + 4

    def _named_funnels(self) -> Iterator[tuple[float, str]]:
        yield self.places[0].middle, self.summary.stem.entry
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            if after.column.entry:
                start = before.middle + self._map_size(before)[1] / 2
                end = after.middle - self._map_size(after)[1] / 2
                yield (start + end) / 2, after.column.entry
        if self.summary.head:
            yield self.places[-1].middle, self.summary.head.entry

    def _table(self, canvas: Canvas, y: float) -> float:
        for label in ("width", "H × W", "tokens", "blocks"):
            y += LINE
            self._label(canvas, y, label)
            for place in self.stages:
                canvas.text(place.middle, y, _figure(place.column, label), anchor="middle")
        return y + 5

    def _label(self, canvas: Canvas, y: float, text: str) -> None:
        canvas.text(MARGIN, y, text, size=SMALL_SIZE, fill=FADED)

    def _cells(self, canvas: Canvas, y: float) -> float:
        rows = 1
        for place in self.stages:
            column = place.column
            slots = len(column.cells) + column.joins
            per_row = max(1, min(int(place.width / PITCH + 1e-6), slots))
            per_row = math.ceil(slots / math.ceil(slots / per_row))  # rows of one length look better than a rest
            rows = max(rows, math.ceil(slots / per_row))
            left = place.middle - (per_row * PITCH - (PITCH - CELL_WIDTH)) / 2
            with canvas.group("blocks", column.tip):
                for slot in range(slots):
                    at = (left + PITCH * (slot % per_row), y + ROW_PITCH * (slot // per_row))
                    if column.joins and slot == 0:
                        _class_token(canvas, *at)
                    else:
                        self._cell(canvas, *at, column.cells[slot - column.joins])
        return y + ROW_PITCH * rows

    def _cell(self, canvas: Canvas, x: float, y: float, cell: Cell) -> None:
        self._swatch(canvas, x, y, cell.mixer, tip=cell.tip)
        marked = cell.modifiers[:MARKS]
        for index, name in enumerate(marked):
            share = (index + 1) / (len(marked) + 1)
            _mark(canvas, x + CELL_WIDTH / 2, y + CELL_HEIGHT * share, self.summary.modifiers.index(name))

    def _swatch(self, canvas: Canvas, x: float, y: float, mixer: str, *, tip: str = "") -> None:
        """A cell's colour; past the end of the palette its hues come again, with a white core."""
        fill, hollow = self.fills[mixer]
        canvas.rect(x, y, CELL_WIDTH, CELL_HEIGHT, fill, tip=tip, kind="cell")
        if hollow:
            canvas.rect(x + 2, y + 2, CELL_WIDTH - 4, CELL_HEIGHT - 4, WHITE, tip=tip)

    def _kinds(self, canvas: Canvas, y: float) -> float:
        """Feed-forward networks and positions, by name."""
        for label in ("ffn", "position"):
            if label not in self.labels:
                continue
            lines = 1
            for place in self.stages:
                names = place.column.ffns if label == "ffn" else place.column.positions
                lines = max(lines, len(names))
                for row, name in enumerate(names):
                    canvas.text(place.middle, y + 11 + 11 * row, name, size=SMALL_SIZE, anchor="middle")
            self._label(canvas, y + 11, label)
            y += 11 * lines + 3
        return y + 4

    def _bars(self, canvas: Canvas, y: float) -> float:
        """Two bars a column; the numbers stand on them."""
        ground = y + SMALL_SIZE + 4 + BAR_HEIGHT
        most = max(max(column.macs_share, column.params_share) for column in self.summary.columns) or 1
        self._bar_key(canvas, ground)
        for place in self.places:
            column = place.column
            with canvas.group("bars", column.tip):
                for side, share, fill, kind in (
                    (-1, column.macs_share, DARK_BAR, "macs"),
                    (1, column.params_share, LIGHT_BAR, "params"),
                ):
                    middle = place.middle + side * BAR_PITCH / 2
                    height = BAR_HEIGHT * share / most
                    canvas.rect(middle - BAR_WIDTH / 2, ground - height, BAR_WIDTH, height, fill, kind=kind)
                    canvas.text(middle, ground - height - 3, percent(share), size=SMALL_SIZE, anchor="middle")
        canvas.line(self.places[0].left, ground, self.places[-1].right, ground, FADED)
        return ground

    def _bar_key(self, canvas: Canvas, ground: float) -> None:
        self._label(canvas, ground - 2 * LINE, "share of")
        for row, (text, fill) in enumerate((("MACs", DARK_BAR), ("params", LIGHT_BAR))):
            y = ground - LINE * (1 - row)
            canvas.rect(MARGIN, y - 7, 7, 7, fill)
            canvas.text(MARGIN + 10, y, text, size=SMALL_SIZE)

    def _legend(self, canvas: Canvas, y: float) -> float:
        y += LINE
        x = MARGIN
        for key in self._keys():
            width = CELL_WIDTH + 4 + text_width(key.text, BODY_SIZE)
            if x > MARGIN and x + width > self.width - MARGIN:
                x, y = MARGIN, y + ROW_PITCH + 2
            if key.mixer:
                self._swatch(canvas, x, y, key.mixer)
            elif key.modifier:
                canvas.rect(x, y, CELL_WIDTH, CELL_HEIGHT, WASH)
                index = self.summary.modifiers.index(key.modifier)
                _mark(canvas, x + CELL_WIDTH / 2, y + CELL_HEIGHT / 2, index)
            else:
                _class_token(canvas, x, y)
            canvas.text(x + CELL_WIDTH + 4, y + 11, key.text)
            x += width + 14
        return y + CELL_HEIGHT

    def _keys(self) -> Iterator[_Key]:
        for mixer in self.summary.mixers:
            yield _Key(mixer, mixer=mixer)
        for modifier in self.summary.modifiers:
            yield _Key(f"with {modifier}", modifier=modifier)
        if any(column.joins for column in self.summary.stages):
            yield _Key("class token joins")


def _fills(mixers: Sequence[str]) -> dict[str, tuple[str, bool]]:
    """Colour of each mixer, and whether it is drawn hollow."""
    named = [mixer for mixer in mixers if mixer != NO_MIXER]
    size = len(PALETTE)
    fills = {mixer: (PALETTE[i % size], i // size % 2 == 1) for i, mixer in enumerate(named)}
    return {**fills, NO_MIXER: (RULE, False)}


def _figure(column: Column, label: str) -> str:
    assert column.state is not None
    height, width = column.grid
    return {
        "width": str(column.state.width),
        "H × W": f"{height} × {width}",
        "tokens": tokens(column.state),
        "blocks": str(len(column.cells)),
    }[label]


def _funnel(canvas: Canvas, start: tuple[float, float], end: tuple[float, float], middle: float) -> None:
    """start and end: (x, height)."""
    (left, high), (right, low) = start, end
    points = [
        (left, middle - high / 2),
        (right, middle - low / 2),
        (right, middle + low / 2),
        (left, middle + high / 2),
    ]
    canvas.polygon(points, WASH)


def _class_token(canvas: Canvas, x: float, y: float) -> None:
    canvas.circle(x + CELL_WIDTH / 2, y + CELL_HEIGHT / 2, CELL_WIDTH / 2 - 0.4, WHITE, stroke=INK)


def _mark(canvas: Canvas, x: float, y: float, index: int) -> None:
    """Modifiers by shape: a dot, a square, a diamond, a triangle, and again."""
    size = 2.2
    if index % 4 == 0:
        canvas.circle(x, y, size, WHITE, stroke=INK)
    elif index % 4 == 1:
        canvas.rect(x - size, y - size, 2 * size, 2 * size, WHITE, stroke=INK)
    elif index % 4 == 2:
        canvas.polygon(
            [(x, y - size - 0.6), (x + size + 0.6, y), (x, y + size + 0.6), (x - size - 0.6, y)], WHITE, stroke=INK
        )
    else:
        canvas.polygon([(x, y - size), (x + size, y + size), (x - size, y + size)], WHITE, stroke=INK)


def _rooms(centres: Sequence[float], width: float) -> list[float]:
    """How wide a text around each centre may be so that it meets neither its neighbours nor the margins."""
    rooms = []
    for index, x in enumerate(centres):
        left = x - MARGIN if index == 0 else (x - centres[index - 1]) / 2
        right = width - MARGIN - x if index == len(centres) - 1 else (centres[index + 1] - x) / 2
        rooms.append(2 * min(left, right) - 4)
    return rooms
