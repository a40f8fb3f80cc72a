"""A terminal of a few escape sequences, enough to see what the view leaves on the screen.

It keeps every row ever shown (`rows`), the last `height` of them on the screen. A sequence that it
does not know is an error, so hostile text that reaches it is found.
"""

from __future__ import annotations

import io
import re

from rich.cells import cell_len

_SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")


class Terminal(io.StringIO):
    """A text stream that is a terminal of `width` by `height`."""

    def __init__(self, width: int = 80, height: int = 24, encoding: str = "utf-8") -> None:
        super().__init__()
        self.width, self.height = width, height
        self.grid: list[list[str]] = [
            []
        ]  # a cell holds a character and its marks; "" follows a wide one
        self.row = self.column = 0
        self.wraps = self.cursor_shown = True
        self.writes: list[str] = []
        self.sequences: set[str] = set()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        text.encode(self._encoding)
        self.writes.append(text)
        place = 0
        while place < len(text):
            character = text[place]
            if character == "\x1b":
                match = _SEQUENCE.match(text, place)
                assert match, f"unknown escape at {text[place : place + 12]!r}"
                self._obey(match[1], match[2])
                place = match.end()
                continue
            self._show(character)
            place += 1
        return len(text)

    def _obey(self, numbers: str, letter: str) -> None:
        self.sequences.add(f"{numbers}{letter}")
        if letter == "m":
            return
        if letter == "A":
            top = max(len(self.grid) - self.height, 0)
            assert self.row - int(numbers) >= top, "the cursor left the screen"
            self.row -= int(numbers)
        elif letter == "J":
            assert numbers == ""
            del self.grid[self.row + 1 :]
            del self.grid[self.row][self.column :]
        elif f"{numbers}{letter}" in ("?25l", "?25h"):
            self.cursor_shown = letter == "h"
        elif f"{numbers}{letter}" in ("?7l", "?7h"):
            self.wraps = letter == "h"
        else:
            raise AssertionError(f"unknown sequence {numbers}{letter}")

    def _show(self, character: str) -> None:
        if character == "\n":
            self._next_row()
        elif character == "\r":
            self.column = 0
        elif character == "\t":
            self.column = min(self.column // 8 * 8 + 8, self.width - 1)
        else:
            code = ord(character)
            assert 32 <= code < 0x7F or code >= 0xA0, f"raw {character!r}"
            self._put(character, cell_len(character))

    def _put(self, character: str, width: int) -> None:
        if width and self.column + width > self.width:
            if not self.wraps:
                return
            self._next_row()
        row = self.grid[self.row]
        row += [" "] * (self.column + width - len(row))
        if not width:
            if self.column:
                row[self.column - 1] += character
            return
        row[self.column : self.column + width] = [character, ""][:width]
        self.column += width

    def _next_row(self) -> None:
        self.row += 1
        self.column = 0
        if self.row == len(self.grid):
            self.grid.append([])

    def narrow(self, width: int) -> None:
        """Resize as terminals do that fold long rows: the cursor stays at its place in the text."""
        assert self.column == 0, "a folded row would carry the cursor away"
        folded: list[list[str]] = []
        cursor = 0
        for number, row in enumerate(self.grid):
            if number == self.row:
                cursor = len(folded)
            folded += [row[i : i + width] for i in range(0, len(row), width)] or [[]]
        self.grid, self.row, self.width = folded, cursor, width

    @property
    def rows(self) -> list[str]:
        """Every row, without trailing blanks."""
        return ["".join(row).rstrip() for row in self.grid]

    @property
    def text(self) -> str:
        """Everything shown so far."""
        return "\n".join(self.rows).rstrip("\n")

    @property
    def written(self) -> str:
        """Everything written, escape sequences and all."""
        return "".join(self.writes)
