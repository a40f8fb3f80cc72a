"""A text in its colours as a picture for slides: .png, .svg and .pdf by matplotlib, .html as a page.

The type is as large as fits a 16 : 9 slide, and smaller for long texts; the picture grows in height only
for texts beyond that, and says so where even then not all of a text has room.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from decodecli.errors import UsageError, WriteError
from decodecli.records.distribution import TextReport
from decodecli.records.run import RunHeader
from decodecli.render.escaping import model_title
from decodecli.render.html.notebook import Page, Span, page, standalone, text_spans
from decodecli.render.number_format import count
from decodecli.render.plots.figure_file import SUFFIXES, check_matplotlib, save_figure
from decodecli.render.plots.fonts import fonts_for
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.summary import header_lines, text_tail
from decodecli.render.theme import GIVEN, LEGEND, LEVELS, SCALE, hex_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HTML = ".html"
_WIDTH, _SLIDE, _TALLEST = 12.0, 6.75, 60.0  # inches
_EDGE, _GAP = 0.5, 0.025
_TYPES = (28.0, 24.0, 20.0, 17.0, 14.0, 12.0)  # points, the first that fits the slide
_SMALL = 13.0  # points of the settings and the legend
_LEADING = 1.5  # lines, in type sizes
_INK, _QUIET = "#1b1f23", "#57606a"
_PARTS = re.compile(r"\n|[ \t]+|[^ \t\n]+")


def check_text_plot(path: str) -> None:
    """Refuse a file that could not be drawn, before anything is loaded.

    Raises:
        UsageError: an unknown suffix, or matplotlib is missing.
        WriteError: there is no such folder.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (*SUFFIXES, HTML):
        raise UsageError(
            f"--plot {path}: the file name must end in .png, .svg, .pdf or .html",
            "the text in its colours is drawn there; on a terminal it is coloured anyway",
        )
    if suffix != HTML:
        check_matplotlib(otherwise="a name in .html, which needs nothing")
    folder = Path(os.path.expanduser(path)).parent
    if not folder.is_dir():
        raise WriteError(f"cannot write {path}: there is no folder {folder}", "make it first")


def run_text_page(
    header: RunHeader, tokens: Sequence[tuple[str, float | None, int | None]]
) -> Page:
    """A run's text, each token (text, logprob, rank), under what it was asked."""
    model = replace(header.model, name=model_title(header.model.name))
    lines = header_lines(replace(header, model=model), Style(width=10_000).of_run(header))
    spans = tuple(text_spans(tokens, text_tail(header.prompt)))
    return Page(header=tuple(lines), spans=spans, given="the prompt" if header.prompt else "")


def draw_report(report: TextReport, path: str) -> None:
    """Write a text under the model to `path`; raises as `draw_page` does."""
    draw_page(replace(page(report), tables=()), path)


def draw_page(shown: Page, path: str) -> None:
    """Write a page's header, coloured text and legend to `path`, in the format of its suffix.

    Raises:
        UsageError: an unknown suffix, or matplotlib is missing.
        WriteError: the file cannot be written.
    """
    if Path(path).suffix.lower() != HTML:
        save_figure(path, lambda: text_figure(shown))
        return
    try:
        text = standalone(shown, shown.header[0] if shown.header else "decodecli")
        Path(os.path.expanduser(path)).write_text(text, encoding="utf-8")
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", "choose another file") from error


@dataclass(frozen=True)
class _Atom:
    """A piece of one span on one line; a word may be made of several."""

    text: str
    level: int | None
    width: float  # inches
    first: bool = False  # whether a token begins here: a gap shows where


def text_figure(shown: Page) -> Figure:
    """The matplotlib figure; call inside `plots.style()`."""
    from matplotlib.figure import Figure

    texts = [*shown.header, *shown.facts, shown.given, LEGEND, *LEVELS, "…"]
    fonts = fonts_for((*texts, *(span.text for span in shown.spans)))
    figure = Figure(figsize=(_WIDTH, _SLIDE), dpi=150, facecolor="white")
    ruler = _Ruler(figure, list(fonts.families))
    small = [Span(fonts.spell(line)) for line in (*shown.header, *shown.facts)]
    head = [row for line in small for row in _wrapped([line], _SMALL, ruler)]
    spans = [replace(span, text=fonts.spell(span.text)) for span in shown.spans]
    around = 2 * _EDGE + (len(head) + 2.5) * _SMALL * _LEADING / 72
    for points in _TYPES:
        rows = list(_wrapped(spans, points, ruler))
        if around + len(rows) * points * _LEADING / 72 <= _SLIDE:
            break
    most = int((_TALLEST - around) * 72 / (points * _LEADING))
    if len(rows) > most:
        left = sum(len(atom.text) for row in rows[most - 1 :] for atom in row)
        rest = f"… {count(left)} more characters"
        rows = [*rows[: most - 1], [_Atom(rest, None, 0.0)]]
    height = around + len(rows) * points * _LEADING / 72
    figure.set_size_inches(_WIDTH, height)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    pen = _Pen(axes, ruler)
    for row in head:
        pen.row(row, _SMALL, _QUIET)
    pen.y += 0.5 * _SMALL * _LEADING / 72
    for row in rows:
        pen.row(row, points, _INK)
    pen.y += 0.5 * _SMALL * _LEADING / 72
    pen.row(_legend(shown, ruler), _SMALL, _INK)
    return figure


def _legend(shown: Page, ruler: _Ruler) -> list[_Atom]:
    """The key to the colours, as a row."""

    def atom(text: str, level: int | None) -> _Atom:
        return _Atom(text, level, ruler.width(text, _SMALL, _bold(level)))

    plain = len(LEVELS) - 1
    found = [atom(f"{LEGEND}  ", plain)]
    for number, name in enumerate(LEVELS):
        found += [atom(f" {name} ", number), atom("  ", plain)]
    return [*found, *([atom(shown.given, None)] if shown.given else [])]


class _Ruler:
    """Advance widths of texts in inches; those of single letters would lose what is between them."""

    def __init__(self, figure: Figure, families: list[str]) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self.families = families
        self._figure = figure
        self._renderer = FigureCanvasAgg(figure).get_renderer()
        self._known: dict[tuple[str, bool], float] = {}

    def width(self, text: str, points: float, bold: bool = False) -> float:
        key = (text, bold)
        if key not in self._known:
            self._known[key] = self._extent(f"|{text}|", bold) - self._extent("||", bold)
        return self._known[key] * points / _TYPES[0]

    def _extent(self, text: str, bold: bool) -> float:
        from matplotlib.text import Text

        weight = "bold" if bold else "normal"
        drawn = Text(0, 0, text, fontsize=_TYPES[0], family=self.families, weight=weight)
        drawn.set_figure(self._figure)
        box = drawn.get_window_extent(self._renderer, dpi=150)
        return float(box.width) / 150


def _wrapped(spans: Sequence[Span], points: float, ruler: _Ruler) -> Iterator[list[_Atom]]:
    """Rows of atoms: broken at spaces, beside wide characters, and anywhere in a word that is longer
    than a row."""
    room = _WIDTH - 2 * _EDGE
    row: list[_Atom] = []
    used = 0.0
    for word in _words(spans, points, ruler):
        width = sum(atom.width for atom in word)
        if word[0].text == "\n":
            yield row
            row, used = [], 0.0
            continue
        if used + width > room and row:
            yield row[:-1] if row[-1].text.isspace() else row
            row, used = [], 0.0
            if word[0].text.isspace():
                continue
        if width > room:
            word = [
                _Atom(letter, atom.level, ruler.width(letter, points, _bold(atom.level)))
                for atom in word
                for letter in atom.text
            ]
            for letter in word:
                if used + letter.width > room:
                    yield row
                    row, used = [], 0.0
                row.append(letter)
                used += letter.width
            continue
        row += word
        used += width
    if row:
        yield row


def _bold(level: int | None) -> bool:
    return level is not None and SCALE[level].bold


def _words(spans: Sequence[Span], points: float, ruler: _Ruler) -> Iterator[list[_Atom]]:
    """What a row must not break in: letters up to a space, one wide character, a space, a line end."""
    word: list[_Atom] = []
    for span in spans:
        first = span.level is not None
        for part in _PARTS.findall(span.text.replace("\t", "    ")):
            for text in [part] if part.isascii() else _between_wide(part):
                bold = _bold(span.level)
                width = 0.0 if text == "\n" else ruler.width(text, points, bold)
                atom, first = _Atom(text, span.level, width, first), False
                if text.isspace() or cell_len(text[0]) > 1:
                    if word:
                        yield word
                        word = []
                    yield [atom]
                else:
                    word.append(atom)
    if word:
        yield word


def _between_wide(part: str) -> Iterator[str]:
    """`part` cut beside each wide character, marks kept with what they stand on."""
    run = ""
    for character in part:
        width = cell_len(character)
        if run and width and (width > 1 or cell_len(run[0]) > 1):
            yield run
            run = ""
        run += character
    yield run


class _Pen:
    """Writes rows one below the other."""

    def __init__(self, axes: Any, ruler: _Ruler) -> None:
        self._axes, self._ruler = axes, ruler
        self.y = _EDGE

    def row(self, atoms: Sequence[_Atom], points: float, ink: str) -> None:
        """One row; `ink` is the colour of what brings none."""
        from matplotlib.patches import Rectangle

        size, x = points / 72, _EDGE
        base = self.y + 1.05 * size
        for atom in atoms:
            look = None if atom.level is None else SCALE[atom.level]
            colour = hex_colour(GIVEN) if look is None and ink == _INK else ink
            gap = _GAP * points / _TYPES[0]
            left, width = (x + gap, atom.width - gap) if atom.first else (x, atom.width)
            if look is not None and look.fill is not None and look.ink is not None:
                self._axes.add_patch(
                    Rectangle(
                        (left, base - 1.0 * size),
                        width,
                        1.28 * size,
                        facecolor=hex_colour(look.fill),
                        linewidth=0,
                    )
                )
                colour = hex_colour(look.ink)
            if look is not None and look.underline:
                y = base + 0.14 * size
                self._axes.plot(
                    [left, left + width],
                    [y, y],
                    color=ink,
                    linewidth=points / 14,
                    solid_capstyle="butt",
                )
            if atom.text.strip():
                lead = len(atom.text) - len(atom.text.lstrip())
                bold = look is not None and look.bold
                self._axes.text(
                    x + (self._ruler.width(atom.text[:lead], points, bold) if lead else 0.0),
                    base,
                    atom.text.strip(),
                    fontsize=points,
                    family=self._ruler.families,
                    weight="bold" if bold else "normal",
                    color=colour,
                    va="baseline",
                    ha="left",
                )
            x += atom.width
        self.y += _LEADING * size
