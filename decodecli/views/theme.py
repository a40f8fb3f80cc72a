"""Styles as escape sequences made once, from what a console can do.

One accent for the chosen token, one scale for probability, dim for what was removed. The scale runs
from orange (improbable) over grey to blue (probable): an axis that colour-blind people see too, in
tones of middle luminance with a contrast of at least 3 : 1 against white and against black.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from rich.console import Console

RESET, BOLD, DIM, UNDERLINE = "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[4m"

# Upper edges of the levels of probability; the last level is open.
EDGES = (0.01, 0.05, 0.2, 0.5, 0.8)
LEVELS = ("<1%", "<5%", "<20%", "<50%", "<80%", "≥80%")
_UNSURE = 3  # levels that are underlined where there is no colour: below 20 %

_HEAT_256 = tuple(f"\x1b[38;5;{code}m" for code in (166, 137, 102, 67, 68, 32))
_HEAT_16 = ("\x1b[1;31m", "\x1b[31m", "\x1b[35m", "\x1b[35m", "", "")
_NONE = ("",) * len(LEVELS)


@dataclass(frozen=True)
class Theme:
    """Escape sequences to put in front of a text, and `reset` behind it; all "" where there may be
    none. `heat` colours bars, `text` the running text, one entry for each of `LEVELS`."""

    accent: str = ""
    bold: str = ""
    dim: str = ""
    reset: str = ""
    prompt: str = ""  # dim where the text after it has no colours to stand out by
    heat: tuple[str, ...] = _NONE
    text: tuple[str, ...] = _NONE

    @classmethod
    def of(cls, console: Console) -> Theme:
        """The theme for a console: nothing off a terminal or on a dumb one, no colour under
        NO_COLOR, 256 colours or 16 as the terminal has them."""
        system = console.color_system
        dumb = not console.is_terminal or console.is_dumb_terminal or console.legacy_windows
        if dumb:
            return cls()
        if console.no_color or system is None:
            unsure = (UNDERLINE,) * _UNSURE + ("",) * (len(LEVELS) - _UNSURE)
            return cls(accent=BOLD, bold=BOLD, dim=DIM, reset=RESET, prompt=DIM, text=unsure)
        if system == "standard":
            return cls("\x1b[1;35m", BOLD, DIM, RESET, "", _HEAT_16, _HEAT_16)
        return cls.full()

    @classmethod
    def full(cls) -> Theme:
        """The theme of a terminal with 256 colours or more."""
        return cls("\x1b[1;38;5;162m", BOLD, DIM, RESET, "", _HEAT_256, _HEAT_256)

    def paint(self, code: str, text: str) -> str:
        """`text` under `code`, if there is a code."""
        return f"{code}{text}{self.reset}" if code and text else text


def level(probability: float) -> int:
    """Which of `LEVELS` a probability falls in."""
    return bisect_right(EDGES, probability)


PLAIN = Theme()
