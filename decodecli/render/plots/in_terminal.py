"""The plots of a distribution in the terminal: bars in eighths, curves in braille (or `.`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rich.cells import cell_len

from decodecli.records.distribution import DistributionReport
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, encodable, pad
from decodecli.render.plots.distribution_view import DistributionView, thinned
from decodecli.render.plots.figure_layout import log_ticks, percent_ticks, tick_name, ticks
from decodecli.render.theme import PLAIN, Theme

_SIGNS, _ASCII_SIGNS = "●■▲◆○□△◇", "ox+*abcd"
_IN_ASCII = str.maketrans({"“": '"', "”": '"', "·": "-", "→": "->", "∞": "inf"})
_LABEL, _BAR, _MIN_BAR = 20, 40, 8  # cells
_HEIGHT = 15  # rows of an area of curves
_MIN_COLUMNS = 8  # below which there is nothing to see
# A braille cell's bits, by column and by row from the top.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


@dataclass(frozen=True)
class Series:
    """How one curve is told: a sign on it, and a colour ("" for none)."""

    sign: str
    colour: str = ""


@dataclass(frozen=True)
class _Screen:
    """How wide the terminal is and what it can show."""

    width: int
    ascii_only: bool
    theme: Theme

    def fit(self, text: str) -> str:
        return clip(self.plain(text), self.width)

    def dim(self, text: str) -> str:
        return self.theme.paint(self.theme.dim, self.fit(text))

    def plain(self, text: str) -> str:
        return encodable(text.translate(_IN_ASCII), "ascii") if self.ascii_only else text

    def series(self, number: int) -> Series:
        signs = _ASCII_SIGNS if self.ascii_only else _SIGNS
        return Series(signs[number % 8], self.theme.lines[number % len(self.theme.lines)])

    @property
    def level(self) -> Series:
        """A dashed line."""
        return Series("-" if self.ascii_only else "╌", self.theme.dim)

    def labels(self, view: DistributionView) -> list[str]:
        """The rows' tokens in equal cells, the target marked."""
        labels = [self.plain(label) for label in view.labels]
        widest = min(max(map(cell_len, labels)), max(min(_LABEL, self.width // 3), 1))
        target = "> " if self.ascii_only else "▸ "
        return [
            (target if view.is_target(row) else "  ") + pad(label, widest)
            for row, label in zip(view.rows, labels, strict=True)
        ]

    def legend(self, entries: Iterable[tuple[Series, str]]) -> list[str]:
        """`● T = 0.4  ■ T = 1`, over as many lines as it takes."""
        lines, used = [""], 0
        for series, name in entries:
            name = clip(self.plain(name), max(self.width - 4, 1))
            cells = cell_len(name) + 4
            if used and used + cells > self.width:
                lines.append("")
                used = 0
            lines[-1] += f"  {self.theme.paint(series.colour, series.sign)} {name}"
            used += cells
        return lines if self.width > 4 else []


def draw_terminal(
    report: DistributionReport,
    console_width: int,
    kind: str = "auto",
    ascii_only: bool = False,
    theme: Theme = PLAIN,
    *,
    tokens: Sequence[str] = (),
    scores: Any = None,
    byte_level: bool | None = None,
) -> str:
    """One plot as lines of at most `console_width` cells, each ended by a newline.

    `kind`, `tokens`, `scores` and `byte_level` mean what they mean to `distribution.figure`. Without
    colours a curve is told by its sign; with `ascii_only` every character is ASCII.

    Raises:
        UsageError: unknown kind or token, or bars of several temperatures.
    """
    view = DistributionView(report, kind, tokens, scores, byte_level)
    screen = _Screen(max(console_width, 1), ascii_only, theme)
    makers = {"lines": _lines, "tokens": _tokens, "cumulative": _cumulative, "entropy": _entropy}
    body = makers.get(view.kind, _bars)(view, screen)
    head = theme.paint(theme.bold, screen.fit(view.title(screen.width)))
    lines = [head, screen.dim(view.subtitle(screen.width)), "", *body]
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    return text.replace("…", "~") if ascii_only else text  # where something was clipped


def _bars(view: DistributionView, screen: _Screen) -> list[str]:
    """Bars, the temperatures side by side while there is room, then below one another."""
    labels = screen.labels(view)
    left, count = cell_len(labels[0]), len(view.report.spreads)
    fit = (screen.width - left) // (2 + numbers.CELL + 1 + _MIN_BAR)
    fit = math.ceil(count / math.ceil(count / max(min(count, fit), 1)))
    bar = min((screen.width - left) // fit - 3 - numbers.CELL, _BAR)
    lines: list[str] = []
    for start in range(0, count, fit):
        lines += [""] if start else []
        lines += _block(view, screen, labels, bar, range(start, min(start + fit, count)))
    if view.report.filtered:
        lines.append(screen.dim(f"  {'-' if screen.ascii_only else '░'} removed by a filter"))
    return lines


def _block(
    view: DistributionView, screen: _Screen, labels: list[str], bar: int, temperatures: range
) -> list[str]:
    """Some temperatures side by side under their names and facts: `61.0% ██████` for each token, the bar
    in shade where a filter removed it."""
    theme, indent = screen.theme, " " * (cell_len(labels[0]) + 2)
    width = numbers.CELL + (1 + bar if bar > 0 else 0)
    names, facts = [], []
    for k in temperatures:
        names.append(pad(view.legends[k].replace(" ", ""), width))
        fact, rest = f"H {numbers.entropy(view.report.spreads[k].entropy)} nats", view.others(k)
        if rest and len(f"{fact}, {rest}") <= width:
            fact += f", {rest}"
        facts.append(pad(screen.plain(fact), width))
    lines = [screen.fit((indent + "  ".join(names)).rstrip())]
    lines.append(screen.dim((indent + "  ".join(facts)).rstrip()))
    fits = len(indent) - 2 + len(temperatures) * (2 + width) <= screen.width
    for label, row in zip(labels, view.rows, strict=True):
        if not fits:
            lines.append(screen.fit(label.rstrip()))
            continue
        colour = theme.accent if view.is_target(row) else ""
        cells = [theme.paint(colour, label)]
        for k in temperatures:
            number = screen.plain(numbers.percent_cell(row.probability[k]))
            drawn = numbers.bar(row.probability[k] / view.limit, bar, screen.ascii_only)
            spare = " " * (bar - cell_len(drawn))
            if bar <= 0:
                cells.append(number)
            elif view.removed(row, k):
                drawn = ("-" if screen.ascii_only else "░") * cell_len(drawn)
                cells.append(theme.paint(theme.dim, f"{number} {drawn}") + spare)
            else:
                cells.append(f"{number} {theme.paint(colour or theme.bar, drawn)}{spare}")
        lines.append("  ".join(cells))
    return lines


def _rounded(limit: float) -> float:
    """Where an axis of probability ends."""
    return 1.0 if 0.75 < limit < 1 else limit


def _lines(view: DistributionView, screen: _Screen) -> list[str]:
    """A row a token, on it a sign a temperature: the lines of the picture, turned to be read."""
    labels = screen.labels(view)
    left = cell_len(labels[0]) + 1
    width = screen.width - left - 4  # half of the last tick's name stands beyond the axis
    if width < _MIN_BAR:
        return [screen.fit(label.rstrip()) for label in labels]
    limit = _rounded(view.limit)
    series = [screen.series(k) for k in range(len(view.legends))]
    lines = screen.legend(zip(series, view.legends, strict=True))
    for label, row in zip(labels, view.rows, strict=True):
        cells = [" "] * (width + 1)
        for one, probability in zip(series, row.probability, strict=True):
            cells[round(probability / limit * width)] = screen.theme.paint(one.colour, one.sign)
        lines.append(f"{label} {'|' if screen.ascii_only else '│'}{''.join(cells)}")
    axis = percent_ticks(limit, max(min(5, width // 9), 1))
    marks = [(round(p / limit * width), name) for p, name in axis]
    names = _axis_names(marks, width + 4, screen.width - left - 1)
    return [*lines, screen.dim(" " * (left + 1) + names)]


def _tokens(view: DistributionView, screen: _Screen) -> list[str]:
    temperatures, curves, _ = view.over_temperature()
    limit = _rounded(max([view.limit, *curves.flat]))
    drawn, entries = [], []
    for number, (row, curve) in enumerate(zip(view.rows, curves, strict=True)):
        marks = [(t, row.probability[k]) for t, k in view.points]
        drawn.append(_Curve(screen.series(number), temperatures, curve, marks))
        entries.append((screen.series(number), view.labels[number]))
    y_axis = _Axis("probability", (0, limit), percent_ticks(limit))
    area = _area(screen, drawn, (), _temperature_axis(view, screen, temperatures), y_axis)
    return [*area, *screen.legend(entries)]


def _entropy(view: DistributionView, screen: _Screen) -> list[str]:
    temperatures, _, nats = view.over_temperature()
    zero, infinity = (limit.entropy for limit in view.report.limits)
    top = max([infinity, *nats]) or 1.0
    before, final = screen.series(0), Series(screen.series(1).sign, screen.theme.accent)
    spreads = [(t, view.report.spreads[k]) for t, k in view.points]
    marks = [(t, spread.entropy) for t, spread in spreads]
    drawn, entries = [_Curve(before, temperatures, nats, marks)], []
    if view.report.filtered:
        marks = [(t, spread.final_entropy) for t, spread in spreads]
        drawn = [_Curve(final, (), (), marks), *drawn]
        entries = [(before, "before the filters"), (final, "final")]
    ends = f"T → 0: {numbers.entropy(zero)}, T → ∞: {numbers.entropy(infinity)} nats"
    entries.append((screen.level, ends))
    y_axis = _Axis("entropy (nats)", (0, top), [(t, tick_name(t)) for t in ticks(0.0, top, 4)])
    x_axis = _temperature_axis(view, screen, temperatures)
    return [*_area(screen, drawn, (zero, infinity), x_axis, y_axis), *screen.legend(entries)]


def _temperature_axis(view: DistributionView, screen: _Screen, temperatures: Any) -> _Axis:
    low, high = view.temperature_span(temperatures)
    values = log_ticks(low, high, max(2, min(9, (screen.width - 10) // 8)))
    marks = [(value, tick_name(value)) for value in values]
    return _Axis("temperature (log)", (low, high), marks, log=True)


def _cumulative(view: DistributionView, screen: _Screen) -> list[str]:
    curves = [view.over_rank(k) for k in range(len(view.report.spreads))]
    longest = max(ranks.size for ranks, _ in curves)
    drawn, entries = [], []
    for number, (ranks, mass) in enumerate(curves):
        series, name, cut = screen.series(number), view.legends[number], view.cut(mass)
        mark = int(np.searchsorted(mass, (mass[0] + mass[-1]) / 2)) if cut is None else cut - 1
        few = thinned(ranks.size)
        drawn.append(_Curve(series, ranks[few], mass[few], [(ranks[mark], mass[mark])]))
        entries.append((series, name if cut is None else f"{name}: {numbers.count(cut)}"))
    if view.top_p is not None:
        entries.append((screen.level, f"top_p {numbers.plain(view.top_p)}, tokens to reach it"))
    log = longest > 60
    marks = log_ticks(1, longest, 5) if log else range(1, longest + 1, math.ceil(longest / 8))
    names = [(float(rank), numbers.count(round(rank))) for rank in marks]
    x_axis = _Axis("rank (log)" if log else "rank", (1, max(longest, 2)), names, log)
    y_axis = _Axis("cumulative probability", (0, 1), percent_ticks(1))
    levels = () if view.top_p is None else (view.top_p,)
    return [*_area(screen, drawn, levels, x_axis, y_axis), *screen.legend(entries)]


class _Curve(NamedTuple):
    """What one series draws: a line through points, and its sign at `marks`."""

    series: Series
    xs: Any
    ys: Any
    marks: list[tuple[float, float]]


class _Axis(NamedTuple):
    """ticks: values and their names."""

    name: str
    limits: tuple[float, float]
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def scaled(self, values: Any, cells: int) -> Any:
        """Where values stand among so many cells, as floats; those beyond the limits at the ends."""
        low, high, values = *self.limits, np.asarray(values)
        if self.log:
            low, high, values = math.log(low), math.log(high), np.log(values)
        return np.clip((values - low) / (high - low), 0, 1) * (cells - 1)

    def cell(self, value: float, cells: int) -> int:
        return round(float(self.scaled(value, cells)))


def _area(
    screen: _Screen, curves: Sequence[_Curve], levels: Sequence[float], x_axis: _Axis, y_axis: _Axis
) -> list[str]:
    """A plotting area with its axes: dashed `levels`, over them curves, over these their signs, of which
    the first curve's stays where two fall together. Each line fits the screen."""
    paint, dim = screen.theme.paint, screen.theme.dim
    margin = max(cell_len(name) for _, name in y_axis.ticks) + 2
    columns = screen.width - margin - 3
    if columns < _MIN_COLUMNS:
        return [screen.fit("(too narrow to plot)")]
    row_of = {y: _HEIGHT - 1 - y_axis.cell(y, _HEIGHT) for y in (*levels, *dict(y_axis.ticks))}
    cells = {
        (column, row_of[y]): paint(dim, screen.level.sign)
        for y in levels
        for column in range(columns)
    }
    dots: dict[tuple[int, int], int] = {}
    for curve in curves:
        for x, height in _dots(curve, x_axis, y_axis, columns):
            dot = _HEIGHT * 4 - 1 - height
            cell = x // 2, dot // 4
            dots[cell] = dots.get(cell, 0) | _DOTS[x % 2][dot % 4]
            sign = "." if screen.ascii_only else chr(0x2800 + dots[cell])
            cells[cell] = paint(curve.series.colour, sign)
    for curve in reversed(curves):
        for x, y in reversed(curve.marks):
            cell = x_axis.cell(x, columns), _HEIGHT - 1 - y_axis.cell(y, _HEIGHT)
            cells[cell] = paint(curve.series.colour or screen.theme.bold, curve.series.sign)

    corner, bar, edge = ("+", "-", "|") if screen.ascii_only else ("└", "─", "│")
    names = {row_of[y]: name for y, name in y_axis.ticks}
    lines = [screen.dim(y_axis.name)]
    for row in range(_HEIGHT):
        name = names.get(row, "").rjust(margin - 2)
        area = "".join(cells.get((column, row), " ") for column in range(columns))
        lines.append(paint(dim, f"{name} {edge}") + area.rstrip())
    indent = " " * (margin - 1)
    marks = [(x_axis.cell(x, columns), name) for x, name in x_axis.ticks]
    lines.append(screen.dim(indent + corner + bar * columns))
    lines.append(screen.dim(f"{indent} {_axis_names(marks, columns, screen.width - margin)}"))
    lines.append(screen.dim(" " * (margin + (columns - len(x_axis.name)) // 2) + x_axis.name))
    return lines


def _dots(curve: _Curve, x_axis: _Axis, y_axis: _Axis, columns: int) -> Iterator[tuple[int, int]]:
    """Columns and heights of the dots, two by four a cell, that join a curve's points."""
    if not len(curve.xs):
        return
    at, up = x_axis.scaled(curve.xs, columns * 2), y_axis.scaled(curve.ys, _HEIGHT * 4)
    across = np.arange(math.ceil(at[0]), math.floor(at[-1]) + 1)
    heights = np.rint(np.interp(across, at, up)).astype(int).tolist()
    for x, y, before in zip(across.tolist(), heights, [None, *heights], strict=False):
        start = y if before is None else before + (1 if y > before else -1 if y < before else 0)
        for height in range(min(start, y), max(start, y) + 1):
            yield x, height


def _axis_names(marks: Sequence[tuple[int, str]], columns: int, width: int) -> str:
    """Names centred under their columns in `width` cells, those left out that would touch another."""
    line, used = [" "] * max(columns, width), -2
    for column, name in marks:
        start = min(max(column - len(name) // 2, 0), max(width - len(name), 0))
        if start > used + 1 and start + len(name) <= width:
            line[start : start + len(name)] = name
            used = start + len(name)
    return "".join(line)[: max(width, 0)].rstrip()
