"""A small plotting area in characters: braille dots (or `.`), signs, dashes and axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.cells import cell_len

from decodecli.render.escaping import clip
from decodecli.render.theme import Theme

# A braille cell's bits, by column and by row from the top.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_MIN_COLUMNS = 8  # below which there is nothing to see

Ticks = Iterable[tuple[float, str]]


@dataclass(frozen=True)
class Series:
    """How one curve is told: a sign on it, and a colour ("" for none)."""

    sign: str
    colour: str = ""


@dataclass
class Grid:
    """Curves, points and levels over two axes, each with its limits and ticks; `lines` prints."""

    width: int
    height: int
    ascii_only: bool
    theme: Theme
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    x_ticks: Ticks
    y_ticks: Ticks
    log: bool = False  # of the horizontal axis
    _dots: dict[tuple[int, int], tuple[int, str]] = field(default_factory=dict)
    _signs: dict[tuple[int, int], Series] = field(default_factory=dict)
    _levels: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._margin = max((cell_len(name) for _, name in self.y_ticks), default=0) + 2
        self._columns = self.width - self._margin - 3

    def _x_share(self, x: float) -> float:
        """Where x stands, 0 to 1."""
        low, high = self.x_limits
        if self.log:
            low, high, x = math.log(low), math.log(high), math.log(x)
        return min(max((x - low) / (high - low), 0.0), 1.0)

    def _y_share(self, y: float) -> float:
        low, high = self.y_limits
        return min(max((y - low) / (high - low), 0.0), 1.0)

    def _column(self, x: float) -> int:
        return round(self._x_share(x) * (self._columns - 1))

    def _row(self, y: float) -> int:
        """From the top."""
        return self.height - 1 - round(self._y_share(y) * (self.height - 1))

    def curve(self, xs: Any, ys: Any, series: Series) -> None:
        """Join the points, every dot column of the way."""
        if self._columns < _MIN_COLUMNS or not len(xs):
            return
        wide, high = (self._columns - 1) * 2 + 1, (self.height - 1) * 4 + 3
        columns = np.array([self._x_share(float(x)) for x in xs]) * wide
        rows = np.array([self._y_share(float(y)) for y in ys]) * high
        across = np.arange(math.ceil(columns[0]), math.floor(columns[-1]) + 1)
        heights = np.rint(np.interp(across, columns, rows)).astype(int).tolist()
        for x, y, before in zip(across.tolist(), heights, [None, *heights], strict=False):
            start = y if before is None else before + (1 if y > before else -1 if y < before else 0)
            for height in range(min(start, y), max(start, y) + 1):
                dot = high - height
                cell = (x // 2, dot // 4)
                bits = self._dots.get(cell, (0, ""))[0]
                self._dots[cell] = (bits | _DOTS[x % 2][dot % 4], series.colour)

    def points(self, points: Sequence[tuple[float, float]], series: Series) -> None:
        """A sign at each point; one that is there already stays."""
        for x, y in points:
            self._signs.setdefault((self._column(x), self._row(y)), series)

    def level(self, y: float) -> None:
        """A dashed line from side to side, behind everything."""
        self._levels.add(self._row(y))

    def lines(self, y_name: str, x_name: str) -> list[str]:
        """The area with its axes, each line at most `width` cells."""
        if self._columns < _MIN_COLUMNS:
            return [clip("(too narrow to plot)", self.width).replace("…", ".")]
        corner, bar, edge = ("+", "-", "|") if self.ascii_only else ("└", "─", "│")
        dim = self.theme.dim
        names = {self._row(y): name for y, name in self.y_ticks}
        lines = [self.theme.paint(dim, clip(y_name, self.width))]
        for row in range(self.height):
            name = names.get(row, "").rjust(self._margin - 2)
            cells = "".join(self._cell(column, row) for column in range(self._columns))
            lines.append(self.theme.paint(dim, f"{name} {edge}") + cells.rstrip())
        indent = " " * (self._margin - 1)
        lines.append(self.theme.paint(dim, indent + corner + bar * self._columns))
        marks = [(self._column(x), name) for x, name in self.x_ticks]
        axis = axis_names(marks, self._columns, self.width - self._margin)
        lines.append(self.theme.paint(dim, indent + " " + axis))
        middle = max(self._margin + (self._columns - len(x_name)) // 2, 0)
        lines.append(self.theme.paint(dim, clip(" " * middle + x_name, self.width)))
        return lines

    def _cell(self, column: int, row: int) -> str:
        if series := self._signs.get((column, row)):
            return self.theme.paint(series.colour or self.theme.bold, series.sign)
        if (column, row) in self._dots:
            bits, colour = self._dots[column, row]
            return self.theme.paint(colour, "." if self.ascii_only else chr(0x2800 + bits))
        if row in self._levels:
            return self.theme.paint(self.theme.dim, "-" if self.ascii_only else "╌")
        return " "


def axis_names(marks: Sequence[tuple[int, str]], columns: int, width: int) -> str:
    """Names centred under their columns in `width` cells, those left out that would touch another."""
    line, used = [" "] * max(columns, width), -2
    for column, name in marks:
        start = min(max(column - len(name) // 2, 0), max(width - len(name), 0))
        if start > used + 1 and start + len(name) <= width:
            line[start : start + len(name)] = name
            used = start + len(name)
    return "".join(line)[: max(width, 0)].rstrip()
