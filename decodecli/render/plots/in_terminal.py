"""The plots of a distribution in the terminal: bars in eighths, curves in braille."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.cells import cell_len

from decodecli.records.distribution import DistributionReport, Entry
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, encodable, pad
from decodecli.render.plots.distribution_view import (
    DistributionView,
    distribution_view,
    subtitle,
    title,
)
from decodecli.render.plots.grid import Grid, Series, Ticks, axis_names
from decodecli.render.plots.ticks import log_ticks, percent_ticks, thinned, tick_name, ticks
from decodecli.render.theme import PLAIN, Theme

_SIGNS = ("●", "■", "▲", "◆", "○", "□", "△", "◇")
_ASCII_SIGNS = ("o", "x", "+", "*", "a", "b", "c", "d")
_LABEL, _BAR, _MIN_BAR = 20, 40, 8  # cells
_HEIGHT = 15


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
        if not self.ascii_only:
            return text
        for sign, spelt in (("“", '"'), ("”", '"'), ("·", "-"), ("→", "->"), ("∞", "inf")):
            text = text.replace(sign, spelt)
        return encodable(text, "ascii")

    def series(self, number: int) -> Series:
        signs = _ASCII_SIGNS if self.ascii_only else _SIGNS
        colours = self.theme.lines
        return Series(signs[number % len(signs)], colours[number % len(colours)])

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

    def legend(self, entries: list[tuple[Series, str]]) -> list[str]:
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

    def grid(
        self,
        x_limits: tuple[float, float],
        y_limits: tuple[float, float],
        x_ticks: Ticks,
        y_ticks: Ticks,
        log: bool = True,
    ) -> Grid:
        size = self.width, _HEIGHT, self.ascii_only, self.theme
        return Grid(*size, x_limits, y_limits, x_ticks, y_ticks, log)


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

    `kind`, `tokens`, `scores` and `byte_level` mean what they mean to `draw`. Without colours a curve
    is told by its sign; with `ascii_only` every character is ASCII.

    Raises:
        UsageError: unknown kind or token, or bars of several temperatures.
    """
    view = distribution_view(report, kind, tokens, scores, byte_level)
    screen = _Screen(max(console_width, 1), ascii_only, theme)
    makers = {"lines": _lines, "tokens": _tokens, "cumulative": _cumulative, "entropy": _entropy}
    body = makers.get(view.kind, _bars)(view, screen)
    head = theme.paint(theme.bold, screen.fit(title(report, screen.width)))
    lines = [head, screen.dim(subtitle(report, screen.width)), "", *body]
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
    """Some temperatures side by side, under their names and facts."""
    theme, left = screen.theme, cell_len(labels[0])
    cell = numbers.CELL + (1 + bar if bar > 0 else 0)
    names = [pad(view.legends[k].replace(" ", ""), cell) for k in temperatures]
    facts = []
    for k in temperatures:
        fact = f"H {numbers.entropy(view.report.spreads[k].entropy)} nats"
        more = view.report.size - len(view.rows)
        rest = f", {numbers.rest_cell(view.others(k)).strip()} on {numbers.count(more)} more"
        if more > 0 and len(fact + rest) <= cell:
            fact += rest
        facts.append(pad(screen.plain(fact), cell))
    indent = " " * (left + 2)
    lines = [screen.fit((indent + "  ".join(names)).rstrip())]
    lines.append(screen.dim((indent + "  ".join(facts)).rstrip()))
    fits = left + len(temperatures) * (2 + cell) <= screen.width
    for label, row in zip(labels, view.rows, strict=True):
        cells = [_cell(view, screen, row, k, bar) for k in temperatures]
        text = theme.paint(theme.accent if view.is_target(row) else "", label)
        lines.append("  ".join([text, *cells]) if fits else screen.fit(label.rstrip()))
    return lines


def _cell(view: DistributionView, screen: _Screen, row: Entry, index: int, bar: int) -> str:
    """`  61.0% ██████`, the bar in shade where a filter removed the token."""
    theme, probability = screen.theme, row.probability[index]
    number = screen.plain(numbers.percent_cell(probability))
    if bar <= 0:
        return number
    drawn = numbers.bar(probability / view.limit, bar, screen.ascii_only)
    spare = " " * (bar - cell_len(drawn))
    if view.removed(row, index):
        drawn = ("-" if screen.ascii_only else "░") * cell_len(drawn)
        return f"{theme.paint(theme.dim, f'{number} {drawn}')}{spare}"
    colour = theme.accent if view.is_target(row) else theme.bar
    return f"{number} {theme.paint(colour, drawn)}{spare}"


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
    lines = screen.legend([(screen.series(k), name) for k, name in enumerate(view.legends)])
    edge = "|" if screen.ascii_only else "│"
    for label, row in zip(labels, view.rows, strict=True):
        cells = [" "] * (width + 1)
        for k, probability in enumerate(row.probability):
            series = screen.series(k)
            sign = screen.theme.paint(series.colour, series.sign)
            cells[round(probability / limit * width)] = sign
        lines.append(f"{label} {edge}{''.join(cells)}")
    axis = percent_ticks(limit, max(min(5, width // 9), 1))
    marks = [(round(p / limit * width), name) for p, name in axis]
    names = axis_names(marks, width + 4, screen.width - left - 1)
    return [*lines, screen.dim(" " * (left + 1) + names)]


def _tokens(view: DistributionView, screen: _Screen) -> list[str]:
    temperatures, curves, _ = view.over_temperature()
    limit = _rounded(max([view.limit, *curves.flat]))
    grid = _over_temperature(view, screen, temperatures, limit, percent_ticks(limit))
    entries = []
    for number, (row, curve) in enumerate(zip(view.rows, curves, strict=True)):
        series = screen.series(number)
        grid.curve(temperatures, curve, series)
        grid.points([(t, row.probability[k]) for t, k in view.points], series)
        entries.append((series, view.labels[number]))
    return [*grid.lines("probability", "temperature (log)"), *screen.legend(entries)]


def _entropy(view: DistributionView, screen: _Screen) -> list[str]:
    temperatures, _, nats = view.over_temperature()
    zero, infinity = (limit.entropy for limit in view.report.limits)
    top = max([infinity, *nats]) or 1.0
    y_ticks = [(t, tick_name(t)) for t in ticks(top, 4)]
    grid = _over_temperature(view, screen, temperatures, top, y_ticks)
    grid.level(zero)
    grid.level(infinity)
    before, final = screen.series(0), Series(screen.series(1).sign, screen.theme.accent)
    grid.curve(temperatures, nats, before)
    spreads = [(t, view.report.spreads[k]) for t, k in view.points]
    entries = []
    if view.report.filtered:
        grid.points([(t, spread.final_entropy) for t, spread in spreads], final)
        entries = [(before, "before the filters"), (final, "final")]
    grid.points([(t, spread.entropy) for t, spread in spreads], before)
    ends = f"T → 0: {numbers.entropy(zero)}, T → ∞: {numbers.entropy(infinity)} nats"
    entries.append((screen.level, ends))
    return [*grid.lines("entropy (nats)", "temperature (log)"), *screen.legend(entries)]


def _over_temperature(
    view: DistributionView, screen: _Screen, temperatures: Any, top: float, y_ticks: Ticks
) -> Grid:
    low, high = view.temperature_span(temperatures)
    most = max(2, min(9, (screen.width - 10) // 8))
    x_ticks = [(t, tick_name(t)) for t in log_ticks(low, high, most)]
    return screen.grid((low, high), (0, top), x_ticks, y_ticks)


def _cumulative(view: DistributionView, screen: _Screen) -> list[str]:
    curves = [view.over_rank(k) for k in range(len(view.report.spreads))]
    longest = max(ranks.size for ranks, _ in curves)
    log = longest > 60
    step = max(1, math.ceil(longest / 8))
    marks = log_ticks(1, longest, 5) if log else range(1, longest + 1, step)
    x_ticks = [(float(rank), numbers.count(round(rank))) for rank in marks]
    grid = screen.grid((1, max(longest, 2)), (0, 1), x_ticks, percent_ticks(1), log)
    entries = []
    if view.top_p is not None:
        grid.level(view.top_p)
    for number, (ranks, mass) in enumerate(curves):
        series, cut = screen.series(number), view.cut(mass)
        drawn = thinned(ranks.size).astype(int)
        grid.curve(ranks[drawn], mass[drawn], series)
        name = view.legends[number]
        if cut is None:
            middle = int(np.searchsorted(mass, (mass[0] + mass[-1]) / 2))
            grid.points([(ranks[middle], mass[middle])], series)
        else:
            grid.points([(float(cut), float(mass[cut - 1]))], series)
            name += f": {numbers.count(cut)}"
        entries.append((series, name))
    if view.top_p is not None:
        level = f"top_p {numbers.plain(view.top_p)}, tokens to reach it"
        entries.append((screen.level, level))
    name = "rank (log)" if log else "rank"
    return [*grid.lines("cumulative probability", name), *screen.legend(entries)]
