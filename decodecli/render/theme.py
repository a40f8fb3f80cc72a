"""Styles as escape sequences made once, from what a console can do; and the one scale of surprise.

The scale colours tokens by their probability at temperature 1, in the terminal, in HTML and in
pictures alike. Surprising tokens stand out and likely ones stay plain: below 1 % white on red, below
5 % black on orange, below 20 % underlined. A filled step brings its own ink, so that it reads the same
on white and on black, and the steps differ in lightness, so that colour-blind people tell them apart.
Other colours that letters or bars take have a contrast of at least 4.5 : 1 against white and black.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from rich.color import Color
from rich.console import Console

RESET, BOLD, DIM, UNDERLINE, REVERSE = "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[4m", "\x1b[7m"

# Upper edges of the levels of probability; the last level is open.
EDGES = (0.01, 0.05, 0.2)
LEVELS = ("<1%", "<5%", "<20%", "≥20%")
LEGEND = "probability at T=1"


@dataclass(frozen=True)
class Surprise:
    """How one of `LEVELS` looks: the fill behind the letters and the ink of the letters, as numbers of
    the 256 colours (None leaves page or terminal as it is), and whether there is a line under them."""

    fill: int | None = None
    ink: int | None = None
    bold: bool = False
    underline: bool = False


SCALE = (Surprise(160, 231, bold=True), Surprise(214, 16), Surprise(underline=True), Surprise())
ACCENT, BAR = 163, 63
UNSCORED = 243  # text without a probability, as a prompt, in HTML and pictures
LINES = (63, 131, 29, 243)  # curves; what tells them apart without colours is their signs
# Cosines, from low to high: each a fill and its ink.
HEAT = ((255, 16), (153, 16), (111, 16), (69, 16), (26, 231), (18, 231))

_TEXT_MONO = (REVERSE, BOLD + UNDERLINE, UNDERLINE, "")
_TEXT_16 = ("\x1b[1;37;41m", "\x1b[30;43m", UNDERLINE, "")
_HEAT_16 = ("", "", "\x1b[30;46m", "\x1b[30;46m", "\x1b[1;37;44m", "\x1b[1;37;44m")


def hex_colour(number: int) -> str:
    """One of the 256 colours from 16 on as `#rrggbb`, for HTML and pictures."""
    return Color.from_ansi(number).get_truecolor().hex


def css(selector: str = ".p") -> str:
    """The scale as CSS: rules for `.p0` and so on, the most surprising first."""
    rules = []
    for number, step in enumerate(SCALE):
        looks = {
            "background": hex_colour(step.fill) if step.fill is not None else "",
            "color": hex_colour(step.ink) if step.ink is not None else "",
            "font-weight": "bold" if step.bold else "",
            "text-decoration": "underline" if step.underline else "",
        }
        declarations = ";".join(f"{name}:{value}" for name, value in looks.items() if value)
        rules += [f"{selector}{number}{{{declarations}}}"] if declarations else []
    return "\n".join(rules)


def _ink(number: int) -> str:
    return f"\x1b[38;5;{number}m"


def _sequence(step: Surprise) -> str:
    filled = "" if step.fill is None else f"\x1b[38;5;{step.ink};48;5;{step.fill}m"
    return BOLD * step.bold + UNDERLINE * step.underline + filled


@dataclass(frozen=True)
class Theme:
    """Escape sequences to put in front of a text, and `reset` behind it; all "" where there may be
    none. `text` is the scale of surprise, one entry for each of `LEVELS`; `bar` colours bars, `lines`
    curves, `heat` fills the cells of a heat map from low to high."""

    accent: str = ""
    bold: str = ""
    dim: str = ""
    reset: str = ""
    prompt: str = ""  # dim where the text after it has no colours to stand out by
    text: tuple[str, ...] = ("",) * len(LEVELS)
    bar: str = ""
    lines: tuple[str, ...] = ("",)
    heat: tuple[str, ...] = ("",) * len(HEAT)

    @classmethod
    def of(cls, console: Console) -> Theme:
        """The theme for a console: nothing off a terminal, on a dumb one or without a colour
        system, no colour under NO_COLOR, 256 colours or 16 as the terminal has them."""
        system = console.color_system
        dumb = not console.is_terminal or console.is_dumb_terminal or console.legacy_windows
        if dumb or system is None:
            return cls()
        if console.no_color:
            return cls(BOLD, BOLD, DIM, RESET, DIM, _TEXT_MONO)
        if system == "standard":
            lines = ("\x1b[34m", "\x1b[31m", "\x1b[32m")
            return cls("\x1b[1;35m", BOLD, DIM, RESET, "", _TEXT_16, "\x1b[34m", lines, _HEAT_16)
        return cls.full()

    @classmethod
    def full(cls) -> Theme:
        """The theme of a terminal with 256 colours or more."""
        return cls(
            accent=BOLD + _ink(ACCENT),
            bold=BOLD,
            dim=DIM,
            reset=RESET,
            text=tuple(map(_sequence, SCALE)),
            bar=_ink(BAR),
            lines=tuple(map(_ink, LINES)),
            heat=tuple(_sequence(Surprise(*pair)) for pair in HEAT),
        )

    def paint(self, code: str, text: str) -> str:
        """`text` under `code`, if there is a code; not around line ends, where a terminal that scrolls
        would fill the whole new line."""
        if not code or not text:
            return text
        if "\n" in text:
            return "\n".join([self.paint(code, line) for line in text.split("\n")])
        return f"{code}{text}{self.reset}"

    def legend(self, name: str = LEGEND, levels: Sequence[str] = LEVELS) -> str:
        """`probability at T=1 <1% <5% <20% ≥20%`, each in its colour; "" where text has none."""
        if not any(self.text):
            return ""
        keys = (self.paint(code, key) for code, key in zip(self.text, levels, strict=True))
        return f"{self.paint(self.dim, name)} {' '.join(keys)}"


def level(probability: float) -> int:
    """Which of `LEVELS` a probability falls in."""
    return bisect_right(EDGES, probability)


PLAIN = Theme()
