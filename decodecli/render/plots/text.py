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
from typing import TYPE_CHECKING

from rich.cells import cell_len

from decodecli.errors import UsageError, WriteError
from decodecli.records.distribution import TextReport
from decodecli.records.run import Run, RunHeader
from decodecli.render.escaping import model_title
from decodecli.render.html.notebook import Page, Span, page, standalone, text_spans
from decodecli.render.number_format import count
from decodecli.render.plots.figure_file import (
    SUFFIXES,
    check_matplotlib,
    save_figure,
    style,
    write_file,
)
from decodecli.render.plots.figure_layout import fonts_for
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.summary import header_lines, text_tail
from decodecli.render.theme import LEGEND, LEVELS, SCALE, UNSCORED, Surprise, hex_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    return Page(header=tuple(lines), spans=spans, unscored="the prompt" if header.prompt else "")


def plot_run(run: Run, path: str | None) -> Figure | None:
    """What `Run.plot` is."""
    content = run_text_page(
        run.header, [(step.text, step.logprob, step.rank) for step in run.steps]
    )
    if path is None:
        with style():
            return text_figure(content)
    check_text_plot(path)
    draw_page(content, path)
    return None


def draw_report(report: TextReport, path: str) -> None:
    """Write a text under the model to `path`; raises as `draw_page` does."""
    draw_page(replace(page(report), tables=()), path)


def draw_page(content: Page, path: str) -> None:
    """Write a page's header, coloured text and legend to `path`, in the format of its suffix.

    Raises:
        UsageError: an unknown suffix, or matplotlib is missing.
        WriteError: the file cannot be written.
    """
    if Path(path).suffix.lower() != HTML:
        save_figure(path, lambda: text_figure(content))
        return
    page = standalone(content, content.header[0] if content.header else "decodecli")
    write_file(path, page.encode())


@dataclass(frozen=True)
class _Piece:
    """A part of one span on one line; a word may be made of several."""

    text: str
    level: int | None
    width: float  # inches
    first: bool = False  # whether a token begins here: a gap shows where


def text_figure(content: Page) -> Figure:
    """The matplotlib figure; call inside `figure_file.style()`."""
    import matplotlib
    from matplotlib.figure import Figure

    texts = [*content.header, *content.facts, content.unscored, LEGEND, *LEVELS, "…"]
    fonts = fonts_for((*texts, *(span.text for span in content.spans)))
    figure = Figure(figsize=(_WIDTH, _SLIDE), dpi=150, facecolor="white")
    matplotlib.rcParams["font.family"] = list(fonts.families)
    pen = _Pen(figure)
    small = [Span(fonts.spell(line)) for line in (*content.header, *content.facts)]
    head = [row for line in small for row in _wrapped([line], _SMALL, pen)]
    spans = [replace(span, text=fonts.spell(span.text)) for span in content.spans]
    around = 2 * _EDGE + (len(head) + 2.5) * _line(_SMALL)
    for points in _TYPES:
        rows = list(_wrapped(spans, points, pen))
        if around + len(rows) * _line(points) <= _SLIDE:
            break
    most = int((_TALLEST - around) / _line(points))
    if len(rows) > most:
        left = sum(len(piece.text) for row in rows[most - 1 :] for piece in row)
        rest = f"… {count(left)} more characters"
        rows = [*rows[: most - 1], [_Piece(rest, None, 0.0)]]
    height = around + len(rows) * _line(points)
    figure.set_size_inches(_WIDTH, height)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    for row in head:
        pen.write(axes, row, _SMALL, _QUIET)
    pen.y += 0.5 * _line(_SMALL)
    for row in rows:
        pen.write(axes, row, points, _INK)
    pen.y += 0.5 * _line(_SMALL)
    plain = len(LEVELS) - 1
    keys: list[tuple[str, int | None]] = [(f"{LEGEND}  ", plain)]
    for number, name in enumerate(LEVELS):
        keys += [(f" {name} ", number), ("  ", plain)]
    keys += [(content.unscored, None)] if content.unscored else []
    pen.write(axes, [pen.piece(text, level, _SMALL) for text, level in keys], _SMALL, _INK)
    return figure


def _line(points: float) -> float:
    """Inches from one line to the next."""
    return points * _LEADING / 72


class _Pen:
    """Measures texts, and writes rows of them one below the other."""

    def __init__(self, figure: Figure) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self.y = _EDGE
        self._figure = figure
        self._renderer = FigureCanvasAgg(figure).get_renderer()
        self._widths: dict[tuple[str, bool], float] = {}

    def piece(self, text: str, level: int | None, points: float, first: bool = False) -> _Piece:
        """A text with its advance width, measured between bars: its own extent ends where ink does."""
        from matplotlib.text import Text

        bold = level is not None and SCALE[level].bold
        if (text, bold) not in self._widths:
            inches = []
            for framed in (f"|{text}|", "||"):
                weight = "bold" if bold else "normal"
                drawn = Text(0, 0, framed, fontsize=_TYPES[0], weight=weight)
                drawn.set_figure(self._figure)
                inches.append(drawn.get_window_extent(self._renderer, dpi=150).width / 150)
            self._widths[text, bold] = float(inches[0] - inches[1])
        return _Piece(text, level, self._widths[text, bold] * points / _TYPES[0], first)

    def write(self, axes: Axes, row: Sequence[_Piece], points: float, ink: str) -> None:
        """One row; `ink` is the colour of what brings none."""
        from matplotlib.patches import Rectangle

        size, x = points / 72, _EDGE
        base = self.y + 1.05 * size
        self.y += _line(points)
        for piece in row:
            look = Surprise() if piece.level is None else SCALE[piece.level]
            colour = hex_colour(UNSCORED) if piece.level is None and ink == _INK else ink
            gap = _GAP * points / _TYPES[0] if piece.first else 0.0
            left, width = x + gap, piece.width - gap
            if look.fill is not None and look.ink is not None:
                corner = (left, base - 1.0 * size)
                fill = hex_colour(look.fill)
                axes.add_patch(Rectangle(corner, width, 1.28 * size, facecolor=fill, linewidth=0))
                colour = hex_colour(look.ink)
            if look.underline:
                y, thick = base + 0.14 * size, points / 14
                ends = [left, left + width]
                axes.plot(ends, [y, y], color=ink, linewidth=thick, solid_capstyle="butt")
            if text := piece.text.strip():
                indent = piece.text[: len(piece.text) - len(piece.text.lstrip())]
                start = x + (self.piece(indent, piece.level, points).width if indent else 0.0)
                weight = "bold" if look.bold else "normal"
                axes.text(start, base, text, fontsize=points, weight=weight, color=colour)
            x += piece.width


def _wrapped(spans: Sequence[Span], points: float, pen: _Pen) -> Iterator[list[_Piece]]:
    """Rows of pieces: broken at spaces, beside wide characters, and anywhere in a word that is longer
    than a row."""
    room = _WIDTH - 2 * _EDGE
    row: list[_Piece] = []
    used = 0.0
    for word in _words(spans, points, pen):
        width = sum(piece.width for piece in word)
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
            word = [pen.piece(letter, p.level, points) for p in word for letter in p.text]
        for piece in word:
            if used + piece.width > room and row:
                yield row
                row, used = [], 0.0
            row.append(piece)
            used += piece.width
    if row:
        yield row


def _words(spans: Sequence[Span], points: float, pen: _Pen) -> Iterator[list[_Piece]]:
    """What a row must not break in: letters up to a space, one wide character, a space, a line end."""
    word: list[_Piece] = []
    for span in spans:
        first = span.level is not None
        for part in _PARTS.findall(span.text.replace("\t", "    ")):
            for text in [part] if part.isascii() else _between_wide(part):
                piece, first = pen.piece(text, span.level, points, first), False
                if not text.isspace() and cell_len(text[0]) <= 1:
                    word.append(piece)
                    continue
                if word:
                    yield word
                    word = []
                yield [piece]
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
