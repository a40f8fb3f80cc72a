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
from decodecli.render.plots.data import (
    Picture,
    log_ticks,
    percent_name,
    picture,
    subtitle,
    thinned,
    tick_name,
    ticks,
    title,
)
from decodecli.render.plots.grid import Grid, Series
from decodecli.render.theme import PLAIN, Theme

_SIGNS = ("●", "■", "▲", "◆", "○", "□", "△", "◇")
_ASCII_SIGNS = ("o", "x", "+", "*", "a", "b", "c", "d")
_LABEL, _BAR, _NARROW = 20, 40, 8
_HEIGHT = 15


@dataclass(frozen=True)
class _Screen:
    """How wide the terminal is and what it can show."""

    width: int
    ascii_only: bool
    theme: Theme

    def fit(self, text: str) -> str:
        return clip(self.plain(text), self.width)

    def plain(self, text: str) -> str:
        if not self.ascii_only:
            return text
        for sign, spelt in (("“", '"'), ("”", '"'), ("·", "-"), ("→", "->"), ("∞", "inf")):
            text = text.replace(sign, spelt)
        return encodable(text, "ascii")

    def sign(self, place: int) -> str:
        signs = _ASCII_SIGNS if self.ascii_only else _SIGNS
        return signs[place % len(signs)]

    def colour(self, place: int, count: int) -> str:
        """One of the theme's colours for a curve; "" without colours."""
        return self.theme.lines[place % len(self.theme.lines)]

    def series(self, place: int, count: int) -> Series:
        return Series(self.sign(place), self.colour(place, count))


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
    shown = picture(report, kind, tokens, scores, byte_level)
    screen = _Screen(max(console_width, 1), ascii_only, theme)
    makers = {"lines": _lines, "tokens": _tokens, "cumulative": _cumulative, "entropy": _entropy}
    body = makers.get(shown.kind, _bars)(shown, screen)
    head = [
        theme.paint(theme.bold, screen.fit(title(report, screen.width))),
        theme.paint(theme.dim, screen.fit(subtitle(report, screen.width))),
    ]
    text = "\n".join(line.rstrip() for line in [*head, "", *body]) + "\n"
    return text.replace("…", "~") if ascii_only else text  # where something was clipped


def _labels(shown: Picture, screen: _Screen, width: int) -> list[str]:
    """The rows' tokens in equal cells, the target marked."""
    labels = [screen.plain(label) for label in shown.labels]
    widest = min(max(map(cell_len, labels)), max(width, 1))
    marks = [
        ("> " if screen.ascii_only else "▸ ") if shown.is_target(row) else "  "
        for row in shown.rows
    ]
    return [mark + pad(label, widest) for mark, label in zip(marks, labels, strict=True)]


def _bars(shown: Picture, screen: _Screen) -> list[str]:
    """Bars, the temperatures side by side while there is room, then below one another."""
    labels = _labels(shown, screen, min(_LABEL, screen.width // 3))
    left = cell_len(labels[0])
    count = len(shown.report.spreads)
    number = numbers.CELL
    least = 2 + number + 1 + _NARROW
    fit = max(min(count, (screen.width - left) // least), 1)
    fit = math.ceil(count / math.ceil(count / fit))
    bar = min((screen.width - left) // fit - 3 - number, _BAR)
    limit = max(p for row in shown.rows for p in row.probability) or 1.0
    found: list[str] = []
    for start in range(0, count, fit):
        block = range(start, min(start + fit, count))
        if start:
            found.append("")
        found += _block(shown, screen, labels, bar, limit, block)
    if shown.report.filtered:
        sign = "-" if screen.ascii_only else "░"
        found.append(
            screen.theme.paint(screen.theme.dim, screen.fit(f"  {sign} removed by a filter"))
        )
    return found


def _block(
    shown: Picture, screen: _Screen, labels: list[str], bar: int, limit: float, block: range
) -> list[str]:
    theme, left = screen.theme, cell_len(labels[0])
    cell = numbers.CELL + (1 + bar if bar > 0 else 0)
    heads = [pad(shown.legends[k].replace(" ", ""), cell) for k in block]
    facts = []
    for k in block:
        spread = shown.report.spreads[k]
        fact = f"H {numbers.entropy(spread.entropy)} nats"
        more = shown.report.size - len(shown.rows)
        rest = f", {numbers.rest_cell(shown.others(k)).strip()} on {numbers.count(more)} more"
        if more > 0 and len(fact + rest) <= cell:
            fact += rest
        facts.append(pad(screen.plain(fact), cell))
    lines = [_within(" " * left + "  " + "  ".join(heads), screen)]
    lines.append(theme.paint(theme.dim, _within(" " * left + "  " + "  ".join(facts), screen)))
    for label, row in zip(labels, shown.rows, strict=True):
        cells = [_cell(shown, screen, row, k, bar, limit) for k in block]
        width = left + len(block) * (2 + cell)
        text = theme.paint(theme.accent if shown.is_target(row) else "", label)
        line = text + "  " + "  ".join(cells)
        lines.append(line if width <= screen.width else _within(label, screen))
    return lines


def _cell(shown: Picture, screen: _Screen, row: Entry, index: int, bar: int, limit: float) -> str:
    """`  61.0% ██████`, the bar in shade where a filter removed the token."""
    theme, probability = screen.theme, row.probability[index]
    number = screen.plain(numbers.percent_cell(probability))
    if bar <= 0:
        return number
    drawn = numbers.bar(probability / limit, bar, screen.ascii_only)
    spare = " " * (bar - cell_len(drawn))
    if shown.removed(row, index):
        drawn = ("-" if screen.ascii_only else "░") * cell_len(drawn)
        return f"{theme.paint(theme.dim, f'{number} {drawn}')}{spare}"
    colour = theme.accent if shown.is_target(row) else theme.bar
    return f"{number} {theme.paint(colour, drawn)}{spare}"


def _within(text: str, screen: _Screen) -> str:
    return screen.fit(text.rstrip())


def _lines(shown: Picture, screen: _Screen) -> list[str]:
    """A row a token, on it a sign a temperature: the lines of the picture, turned to be read."""
    labels = _labels(shown, screen, min(_LABEL, screen.width // 3))
    left = cell_len(labels[0]) + 1
    width = screen.width - left - 4  # half of the last tick's name stands beyond the axis
    if width < _NARROW:
        return [_within(label, screen) for label in labels]
    count = len(shown.report.spreads)
    limit = max(p for row in shown.rows for p in row.probability) or 1.0
    limit = 1.0 if 0.75 < limit < 1 else limit
    found = _legend(
        [(screen.series(k, count), name) for k, name in enumerate(shown.legends)], screen
    )
    edge = "|" if screen.ascii_only else "│"
    for label, row in zip(labels, shown.rows, strict=True):
        cells = [" "] * (width + 1)
        for k in range(count):
            series = screen.series(k, count)
            place = round(row.probability[k] / limit * width)
            cells[place] = screen.theme.paint(series.colour, series.sign)
        found.append(f"{label} {edge}{''.join(cells)}")
    places = ticks(limit, max(min(5, width // 9), 1))
    step = places[1] if len(places) > 1 else limit
    marks = [(round(p / limit * width), percent_name(p, step)) for p in places]
    axis = " " * (left + 1) + Grid.axis_names(marks, width + 4, screen.width - left - 1)
    found.append(screen.theme.paint(screen.theme.dim, _within(axis, screen)))
    return found


def _legend(entries: list[tuple[Series, str]], screen: _Screen) -> list[str]:
    """`● T = 0.4  ■ T = 1`, over as many lines as it takes."""
    lines, used = [""], 0
    for series, name in entries:
        name = clip(screen.plain(name), max(screen.width - 4, 1))
        cells = cell_len(name) + 4
        if used and used + cells > screen.width:
            lines.append("")
            used = 0
        lines[-1] += f"  {screen.theme.paint(series.colour, series.sign)} {name}"
        used += cells
    return lines if screen.width > 4 else []


def _tokens(shown: Picture, screen: _Screen) -> list[str]:
    temperatures, curves, _ = shown.over_temperature()
    count = len(shown.rows)
    grid = _temperature_grid(shown, screen, temperatures)
    limit = max([*(p for row in shown.rows for p in row.probability), *curves.flat], default=1) or 1
    grid.vertical(0, 1.0 if 0.75 < limit < 1 else limit, _percent_ticks)
    entries = []
    for place, (row, curve) in enumerate(zip(shown.rows, curves, strict=True)):
        series = screen.series(place, count)
        grid.curve(temperatures, curve, series)
        grid.points([(t, row.probability[k]) for t, k in shown.points], series)
        entries.append((series, shown.labels[place]))
    return [*grid.lines("probability", "temperature (log)"), *_legend(entries, screen)]


def _entropy(shown: Picture, screen: _Screen) -> list[str]:
    temperatures, _, nats = shown.over_temperature()
    grid = _temperature_grid(shown, screen, temperatures)
    zero, infinity = (limit.entropy for limit in shown.report.limits)
    top = max([infinity, *nats]) or 1.0
    grid.vertical(0, top, lambda limit: [(t, tick_name(t)) for t in ticks(limit, 4)])
    grid.level(zero)
    grid.level(infinity)
    series, after = screen.series(0, 1), Series(screen.sign(1), screen.theme.accent)
    grid.curve(temperatures, nats, series)
    if shown.report.filtered:
        finals = [(t, shown.report.spreads[k].final_entropy) for t, k in shown.points]
        grid.points(finals, after)
    grid.points([(t, shown.report.spreads[k].entropy) for t, k in shown.points], series)
    entries = [(series, "before the filters"), (after, "final")] if shown.report.filtered else []
    dash = Series("-" if screen.ascii_only else "╌", screen.theme.dim)
    ends = f"T → 0: {numbers.entropy(zero)}", f"T → ∞: {numbers.entropy(infinity)} nats"
    entries.append((dash, ", ".join(ends)))
    return [*grid.lines("entropy (nats)", "temperature (log)"), *_legend(entries, screen)]


def _cumulative(shown: Picture, screen: _Screen) -> list[str]:
    count = len(shown.report.spreads)
    curves = [shown.over_rank(k) for k in range(count)]
    longest = max(ranks.size for ranks, _ in curves)
    grid = Grid(screen.width, _HEIGHT, screen.ascii_only, screen.theme)
    if longest > 60:
        grid.horizontal(1, longest, log_ticks(1, longest, 5), _whole, log=True)
    else:
        step = max(1, math.ceil(longest / 8))
        grid.horizontal(1, max(longest, 2), [float(k) for k in range(1, longest + 1, step)], _whole)
    grid.vertical(0, 1, _percent_ticks)
    entries = []
    if shown.top_p is not None:
        grid.level(shown.top_p)
    for place, (ranks, mass) in enumerate(curves):
        series, cut = screen.series(place, count), shown.cut(mass)
        drawn = thinned(ranks.size).astype(int)
        grid.curve(ranks[drawn], mass[drawn], series)
        name = shown.legends[place]
        if cut is None:
            middle = int(np.searchsorted(mass, (mass[0] + mass[-1]) / 2))
            grid.points([(ranks[middle], mass[middle])], series)
        else:
            grid.points([(float(cut), float(mass[cut - 1]))], series)
            name += f": {numbers.count(cut)}"
        entries.append((series, name))
    if shown.top_p is not None:
        dash = Series("-" if screen.ascii_only else "╌", screen.theme.dim)
        entries.append((dash, f"top_p {numbers.plain(shown.top_p)}, tokens to reach it"))
    name = "rank (log)" if longest > 60 else "rank"
    return [*grid.lines("cumulative probability", name), *_legend(entries, screen)]


def _temperature_grid(shown: Picture, screen: _Screen, temperatures: Any) -> Grid:
    grid = Grid(screen.width, _HEIGHT, screen.ascii_only, screen.theme)
    low, high = shown.grid[0], shown.grid[-1]
    if shown.scores is None and len(temperatures):
        low, high = temperatures[0] / 1.3, temperatures[-1] * 1.3
    most = max(2, min(9, (screen.width - 10) // 8))
    grid.horizontal(low, high, log_ticks(low, high, most), tick_name, log=True)
    return grid


def _percent_ticks(limit: float) -> list[tuple[float, str]]:
    places = ticks(limit, 4)
    step = places[1] if len(places) > 1 else limit
    return [(place, percent_name(place, step)) for place in places]


def _whole(value: float) -> str:
    return numbers.count(round(value))
