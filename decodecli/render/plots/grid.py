"""A small plotting area in characters: braille dots (or `.`), signs, dashes and axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.cells import cell_len

from decodecli.render.escaping import clip
from decodecli.render.theme import Theme

# A braille cell's bits, by column and by row from the top.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_LEAST = 8  # cells across, below which there is nothing to see


@dataclass(frozen=True)
class Series:
    """How one curve is told: a sign on it, and a colour ("" for none)."""

    sign: str
    colour: str = ""


@dataclass
class Grid:
    """`horizontal` and `vertical` set the scales; then curves, points and levels; `lines` prints."""

    width: int
    height: int
    ascii_only: bool
    theme: Theme
    _x: tuple[float, float, bool] = (0.0, 1.0, False)
    _y: tuple[float, float] = (0.0, 1.0)
    _x_ticks: list[tuple[float, str]] = field(default_factory=list)
    _y_ticks: list[tuple[float, str]] = field(default_factory=list)
    _dots: dict[tuple[int, int], tuple[int, str]] = field(default_factory=dict)
    _signs: dict[tuple[int, int], Series] = field(default_factory=dict)
    _levels: set[int] = field(default_factory=set)

    def horizontal(
        self,
        low: float,
        high: float,
        places: Iterable[float],
        name: Callable[[float], str],
        log: bool = False,
    ) -> None:
        self._x = (low, high, log)
        self._x_ticks = [(place, name(place)) for place in places]

    def vertical(
        self, low: float, high: float, named: Callable[[float], list[tuple[float, str]]]
    ) -> None:
        """Call this before anything is drawn: the names of its ticks take their room."""
        self._y = (low, high)
        self._y_ticks = named(high)

    @property
    def _left(self) -> int:
        return max((cell_len(name) for _, name in self._y_ticks), default=0) + 2

    @property
    def _across(self) -> int:
        return self.width - self._left - 3

    def _column(self, x: float) -> float:
        """Where x stands, 0 to 1."""
        low, high, log = self._x
        if log:
            low, high, x = math.log(low), math.log(high), math.log(x)
        return min(max((x - low) / (high - low), 0.0), 1.0)

    def _row(self, y: float) -> float:
        low, high = self._y
        return min(max((y - low) / (high - low), 0.0), 1.0)

    def _place(self, x: float, y: float) -> tuple[int, int]:
        """The cell of a point: column, row from the top."""
        column = round(self._column(x) * (self._across - 1))
        return column, self.height - 1 - round(self._row(y) * (self.height - 1))

    def curve(self, xs: Any, ys: Any, series: Series) -> None:
        """Join the points, every dot column of the way."""
        if self._across < _LEAST or not len(xs):
            return
        wide, high = (self._across - 1) * 2 + 1, (self.height - 1) * 4 + 3
        columns = np.array([self._column(float(x)) for x in xs]) * wide
        rows = np.array([self._row(float(y)) for y in ys]) * high
        across = np.arange(math.ceil(columns[0]), math.floor(columns[-1]) + 1)
        heights = np.interp(across, columns, rows)
        before = None
        for x, y in zip(across.tolist(), np.rint(heights).astype(int).tolist(), strict=True):
            start = y if before is None else before + (1 if y > before else -1 if y < before else 0)
            for dot in range(min(start, y), max(start, y) + 1):
                self._dot(x, high - dot, series.colour)
            before = y

    def _dot(self, x: int, y: int, colour: str) -> None:
        place = (x // 2, y // 4)
        bits = self._dots.get(place, (0, ""))[0]
        self._dots[place] = (bits | _DOTS[x % 2][y % 4], colour)

    def points(self, points: Sequence[tuple[float, float]], series: Series) -> None:
        """A sign at each point; one that is there already stays."""
        if self._across < _LEAST:
            return
        for x, y in points:
            self._signs.setdefault(self._place(x, y), series)

    def level(self, y: float) -> None:
        """A dashed line from side to side, behind everything."""
        self._levels.add(self._place(self._x[0], y)[1])

    def lines(self, y_name: str, x_name: str) -> list[str]:
        """The area with its axes, each line at most `width` cells."""
        if self._across < _LEAST:
            return [clip("(too narrow to plot)", self.width).replace("…", ".")]
        corner, bar, edge = ("+", "-", "|") if self.ascii_only else ("└", "─", "│")
        dim = self.theme.dim
        names = {self._place(self._x[0], y)[1]: name for y, name in self._y_ticks}
        found = [self.theme.paint(dim, clip(y_name, self.width))]
        for row in range(self.height):
            name = names.get(row, "").rjust(self._left - 2)
            cells = "".join(self._cell(column, row) for column in range(self._across))
            found.append(self.theme.paint(dim, f"{name} {edge}") + cells.rstrip())
        indent = " " * (self._left - 1)
        found.append(self.theme.paint(dim, indent + corner + bar * self._across))
        marks = [(self._place(x, 0)[0], name) for x, name in self._x_ticks]
        axis = self.axis_names(marks, self._across, self.width - self._left)
        found.append(self.theme.paint(dim, indent + " " + axis.rstrip()))
        middle = max(self._left + (self._across - len(x_name)) // 2, 0)
        found.append(self.theme.paint(dim, clip(" " * middle + x_name, self.width)))
        return found

    def _cell(self, column: int, row: int) -> str:
        if series := self._signs.get((column, row)):
            return self.theme.paint(series.colour or self.theme.bold, series.sign)
        if found := self._dots.get((column, row)):
            bits, colour = found
            return self.theme.paint(colour, "." if self.ascii_only else chr(0x2800 + bits))
        if row in self._levels:
            return self.theme.paint(self.theme.dim, "-" if self.ascii_only else "╌")
        return " "

    @staticmethod
    def axis_names(marks: Sequence[tuple[int, str]], width: int, room: int) -> str:
        """Names centred under their columns, those left out that would touch another."""
        line, used = [" "] * max(width, room), -2
        for column, name in marks:
            start = min(max(column - len(name) // 2, 0), max(room - len(name), 0))
            if start > used + 1 and start + len(name) <= room:
                line[start : start + len(name)] = name
                used = start + len(name)
        return "".join(line)[:room].rstrip()
