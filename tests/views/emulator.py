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
        self.rows: list[str] = [""]
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
            top = max(len(self.rows) - self.height, 0)
            assert self.row - int(numbers) >= top, "the cursor left the screen"
            self.row -= int(numbers)
        elif letter == "J":
            assert numbers == ""
            self.rows = self.rows[: self.row + 1]
            self.rows[self.row] = kept_cells(self.rows[self.row], self.column)
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
            assert character.isprintable() or cell_len(character) == 0, f"raw {character!r}"
            code = ord(character)
            assert 32 <= code < 0x7F or code >= 0xA0, f"raw {character!r}"
            width = cell_len(character)
            if self.column + width > self.width:
                if not self.wraps:
                    return
                self._next_row()
            line = self.rows[self.row]
            line += " " * (self.column - cell_len(line))
            self.rows[self.row] = (
                kept_cells(line, self.column)
                + character
                + line[len(kept_cells(line, self.column + width)) :]
            )
            self.column += width

    def _next_row(self) -> None:
        self.row += 1
        self.column = 0
        if self.row == len(self.rows):
            self.rows.append("")

    def narrow(self, width: int) -> None:
        """Resize as terminals do that fold long rows: the cursor stays at its place in the text."""
        folded: list[str] = []
        for number, line in enumerate(self.rows):
            if number == self.row:
                assert self.column == 0, "a folded row would carry the cursor away"
                self.row = len(folded)
                number = -1
            folded += [line[i : i + width] for i in range(0, len(line), width)] or [""]
            if number == -1:
                cursor = self.row
        self.rows, self.row, self.width = folded, cursor, width

    @property
    def text(self) -> str:
        """Everything shown so far, without trailing blanks."""
        return "\n".join(line.rstrip() for line in self.rows).rstrip("\n")

    @property
    def written(self) -> str:
        """Everything written, escape sequences and all."""
        return "".join(self.writes)


def kept_cells(line: str, cells: int) -> str:
    """The part of `line` that fills its first `cells` cells."""
    used = 0
    for place, character in enumerate(line):
        if used >= cells and cell_len(character):
            return line[:place]
        used += cell_len(character)
    return line
