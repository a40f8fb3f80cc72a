"""A `DistributionReport` as a table: a row a token, a column a temperature, totals underneath."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.cells import cell_len

from decodecli.records.distribution import DistributionReport, Entry, Spread
from decodecli.render import number_format as numbers
from decodecli.render.escaping import pad
from decodecli.render.number_format import CELL, bar, count, decimal, percent, percent_cell
from decodecli.render.terminal.step_table import Style, stage_name

_GAP = "  "
_BAR_MAX, _TOKEN_MAX = 24, 28
_SHORT = {"probability": "given p"}
_REMOVED = 9  # a stage's short name, or the final probability


@dataclass(frozen=True)
class _Layout:
    """Which columns there are room for, and how wide."""

    rank: int
    token: int
    id: int
    score: int
    bar: int
    final: bool
    limits: bool
    temperatures: tuple[int, ...]  # indexes of the report's spreads in this block

    @property
    def left(self) -> int:
        """The cells in front of the temperatures."""
        optional = sum(2 + width for width in (self.id, self.score) if width)
        return 2 + self.rank + 2 + self.token + optional

    @property
    def column(self) -> int:
        return CELL + (1 + self.bar if self.bar else 0) + (1 + _REMOVED if self.final else 0)

    def spare(self, columns: int, width: int) -> int:
        """The cells that so many temperatures leave free."""
        limits = 2 * (2 + CELL) if self.limits else 0
        return width - self.left - limits - columns * (2 + self.column)


def distribution_lines(report: DistributionReport, style: Style) -> list[str]:
    """The whole report, as many blocks as its temperatures need at this width."""
    lines: list[str] = []
    more = report.size - len(report.rows)
    for block in _blocks(report, style):
        lines += ["", _heading(report, block, style)]
        lines += [_row(report, row, block, style) for row in report.rows]
        lines += [_rest(report, more, block, style)] if more > 0 else []
        lines += _totals(report, block, style)
    return lines[1:]


def _blocks(report: DistributionReport, style: Style) -> list[_Layout]:
    rows, many = report.rows, len(report.spreads)
    token = min(max([5, *(cell_len(style.token(row.token)) for row in rows)]), _TOKEN_MAX)
    rank = max(len(str(max((row.rank for row in rows), default=1))), 2)
    ids = max((len(str(row.token_id)) for row in rows), default=1) if report.model else 0
    layouts = [_Layout(rank, token, ids, 8, 0, report.filtered, True, ())]
    for change in ({"limits": False}, {"id": 0}, {"token": min(token, 12)}, {"score": 0}):
        layouts.append(replace(layouts[-1], **change))
    several = layouts[1] if layouts[1].spare(1, style.width) >= 0 else layouts[-1]
    layout = next((one for one in layouts if one.spare(many, style.width) >= 0), several)
    fit = 1
    while fit < many and layout.spare(fit + 1, style.width) >= 0:
        fit += 1
    room = layout.spare(fit, style.width) // fit - 1
    layout = replace(layout, bar=min(room, _BAR_MAX) if room >= 3 else 0)
    indexes = tuple(range(many))
    return [
        replace(layout, temperatures=indexes[start : start + fit]) for start in range(0, many, fit)
    ]


def _heading(report: DistributionReport, block: _Layout, style: Style) -> str:
    cells = ["  " + "#".rjust(block.rank), pad("token", block.token)]
    if block.id:
        cells.append("id".rjust(block.id))
    if block.score:
        cells.append(_SHORT.get(report.score_name, report.score_name).rjust(block.score))
    for index in block.temperatures:
        name = f"T={report.spreads[index].temperature:g}".rjust(CELL - 1) + " "
        cells.append(_column(name, "final", block))
    if block.limits:
        cells += ["T→0".rjust(CELL - 1) + " ", "T→∞".rjust(CELL - 1)]
    return style.dim(_GAP.join(cells).rstrip())


def _column(cell: str, final: str, block: _Layout, drawn: str = "") -> str:
    """A temperature's cells: probability, bar and what the filters make of it."""
    parts = [cell]
    if block.bar:
        parts.append(drawn or " " * block.bar)
    return " ".join([*parts, final.ljust(_REMOVED)] if block.final else parts)


def _row(report: DistributionReport, row: Entry, block: _Layout, style: Style) -> str:
    target = row.token == report.target
    token = pad(style.token(row.token), block.token)
    cells = [("▸ " if target else "  ") + str(row.rank).rjust(block.rank)]
    cells.append(style.accent(token) if target else style.bold(token))
    if block.id:
        cells.append(str(row.token_id).rjust(block.id))
    if block.score:
        cells.append(("−inf" if row.score is None else decimal(row.score)).rjust(block.score))
    for index in block.temperatures:
        probability = row.probability[index]
        drawn = bar(probability, block.bar, style.ascii_only)
        painted = style.theme.paint(style.theme.bar, drawn) + " " * (block.bar - len(drawn))
        final = _final(row, index, style) if block.final else ""
        cells.append(_column(percent_cell(probability), final, block, painted))
    if block.limits:
        cells += [percent_cell(row.at_zero), percent_cell(row.at_infinity)]
    return _GAP.join(cells).rstrip()


def _final(row: Entry, index: int, style: Style) -> str:
    removed_by = row.removed_by[index]
    if removed_by is None:
        return percent(row.final[index]).ljust(_REMOVED)
    return style.dim(stage_name(removed_by, _REMOVED).ljust(_REMOVED))


def _rest(report: DistributionReport, more: int, block: _Layout, style: Style) -> str:
    """The tokens that are not listed, and their mass."""
    cells = [pad(" " * block.rank + f"  + {count(more)} more", block.left)]
    for index in block.temperatures:
        mass = 1 - sum(row.probability[index] for row in report.rows)
        cells.append(_column(numbers.rest_cell(mass), "", block))
    if block.limits:
        for name in ("at_zero", "at_infinity"):
            mass = 1 - sum(getattr(row, name) for row in report.rows)
            cells.append(numbers.rest_cell(mass) if mass > 1e-9 else percent_cell(0))
    return style.dim(_GAP.join(cells).rstrip())


def _totals(report: DistributionReport, block: _Layout, style: Style) -> list[str]:
    spreads = [report.spreads[index] for index in block.temperatures]
    # A long value takes the cell, the bar and the final column of its temperature.
    widths = [block.column] * len(spreads) + [CELL] * 2
    spreads += report.limits if block.limits else ()
    lines = []
    for name, value in _facts(report):
        cells = [pad("    " + name, block.left)]
        cells += [value(s).rjust(CELL - 1).ljust(w) for s, w in zip(spreads, widths, strict=False)]
        lines.append(style.dim(_GAP.join(cells).rstrip()))
    return lines


def _facts(report: DistributionReport) -> list[tuple[str, Callable[[Spread], str]]]:
    facts: list[tuple[str, Callable[[Spread], str]]] = [
        ("entropy, nats", lambda s: numbers.entropy(s.entropy)),
        ("perplexity", lambda s: _perplexity(s.perplexity)),
        ("top-1 margin", lambda s: percent(s.margin)),
        ("tokens for 50 %", lambda s: count(s.covering[0])),
        ("tokens for 90 %", lambda s: count(s.covering[1])),
        ("tokens for 99 %", lambda s: count(s.covering[2])),
    ]
    if report.target is not None:
        facts.append(("cross-entropy", lambda s: _cross_entropy(s.cross_entropy)))
    if report.filtered:
        facts.append(("kept", lambda s: count(s.kept)))
        facts.append(("final entropy", lambda s: numbers.entropy(s.final_entropy)))
    return facts


def _perplexity(value: float) -> str:
    return f"{value:.2f}" if value < 100 else count(round(value))


def _cross_entropy(nats: float | None) -> str:
    return "∞" if nats is None or nats == math.inf else decimal(nats)
