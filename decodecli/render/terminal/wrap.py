"""Running text wrapped as it grows, so that its last rows can be drawn at any width."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from rich.cells import cell_len

ZERO_WIDTH_JOINER = "\u200d"
_KEPT = 20_000  # characters that the last rows are sought in, should the width change


@dataclass(slots=True)
class _Cell:
    """One character with the marks on it, its escape sequence and its width in cells."""

    text: str
    code: str
    width: int


class RunningText:
    """Coloured text and its last `rows` rows at the current width.

    Wraps at spaces, beside wide characters, and anywhere when a word is longer than a row. Rows are
    kept between steps; only a new width wraps the text again, from as far back as its last rows
    need. Without a number of `rows` it keeps all of them, and empty ones too.
    """

    def __init__(self, rows: int | None = None) -> None:
        self._spans: deque[tuple[str, str]] = deque()
        self._kept = 0  # characters in the spans
        self._width = 0
        self._full: deque[list[_Cell]] = deque(maxlen=rows)
        self._row: list[_Cell] = []
        self._row_width = 0
        self.ended = 0  # rows that have come to their end

    def add(self, text: str, code: str = "") -> None:
        """Append `text` (already safe) under the escape sequence `code`."""
        self._spans.append((text, code))
        self._kept += len(text)
        while self._full.maxlen is not None and self._kept - len(self._spans[0][0]) >= _KEPT:
            self._kept -= len(self._spans.popleft()[0])
        if self._width:
            self._feed(text, code)

    def rows(self, width: int, reset: str) -> list[str]:
        """The last rows, each at most `width` cells wide."""
        self.fit(width)
        rows = [*self._full, self._row] if self._row else list(self._full)
        return [_joined(row, reset) for row in rows[-(self._full.maxlen or len(rows)) :]]

    def fit(self, width: int) -> None:
        """Wrap at this width from here on, and what there is already."""
        if width != self._width:
            self._width = width
            self._full.clear()
            self._row, self._row_width = [], 0
            for text, code in self._spans:
                self._feed(text, code)

    def last(self, count: int, reset: str) -> list[str]:
        """The last `count` rows that have ended, and the one that goes on, at the width last told."""
        ended = list(self._full)[len(self._full) - count :] if count else []
        return [_joined(row, reset) for row in (*ended, self._row)]

    def _feed(self, text: str, code: str) -> None:
        for character in text:
            if character == "\n":
                self._end_row([])
                continue
            if character == "\t":
                for _ in range(4):
                    self._put(_Cell(" ", code, 1))
                continue
            width, cell = cell_len(character), self._row[-1] if self._row else None
            # A mark, a selector, or what follows a joiner is part of the character before it; joiners
            # without sense join nothing.
            joins = cell is not None and (not width or cell.text[-1] == ZERO_WIDTH_JOINER)
            if cell is None or not joins or (both := cell_len(cell.text + character)) > 2:
                self._put(_Cell(character, code, width))
                continue
            self._row_width += both - cell.width
            cell.text, cell.width = cell.text + character, both
            if self._row_width > self._width and len(self._row) > 1:  # a selector made it wide
                self._row_width -= self._row.pop().width
                self._put(cell)

    def _put(self, cell: _Cell) -> None:
        row, carried = self._row, [cell]
        if self._row_width + cell.width <= self._width or not row:
            row.append(cell)
            self._row_width += cell.width
            return
        if cell.text == " ":
            self._end_row([])
            return
        for index in range(
            len(row) - 1, 0, -1
        ):  # the last good place to end the row, if there is one
            last = row[index]
            if last.text == " " or last.width > 1:
                carried = [*row[index + 1 :], cell]
                self._row = row[: index + (last.text != " ")]
                break
        self._end_row(carried)

    def _end_row(self, carried: list[_Cell]) -> None:
        if self._row or self._full.maxlen is None:
            self._full.append(self._row)
            self.ended += 1
        self._row = carried
        self._row_width = sum(cell.width for cell in carried)


def _joined(row: list[_Cell], reset: str) -> str:
    """A row as a string, an escape sequence only where the colour changes. A loop: `groupby` takes
    longer, and rows are joined at every step."""
    parts: list[str] = []
    code = ""
    for cell in row:
        if cell.code != code:
            parts.append((reset if code else "") + cell.code)
            code = cell.code
        parts.append(cell.text)
    return "".join(parts) + (reset if code else "")


def wrap_parts(
    parts: Iterable[str], width: int, separator: str = " · ", indent: str = ""
) -> list[str]:
    """Parts with a separator between, on as many lines as they need; `indent` stands before all but the
    first. A part that begins with an arrow needs no other separator."""
    lines: list[str] = []
    for part in parts:
        joint = " " if part.startswith("→ ") else separator
        if lines and cell_len(lines[-1]) + cell_len(joint) + cell_len(part) <= width:
            lines[-1] += joint + part
        else:
            lines.append((indent if lines else "") + part)
    return lines
