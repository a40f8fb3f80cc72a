"""A `DistributionReport` as a table: a row a token, a column a temperature, totals underneath."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

from decodecli.records.distribution import DistributionReport, Entry
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, pad
from decodecli.render.number_format import bar, count, decimal, percent, percent_cell
from decodecli.render.terminal.step_table import Style, stage_name

_GAP = "  "
_BAR_MAX, _TOKEN_MAX = 24, 28
INFINITY = float("inf")
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
    def column(self) -> int:
        return (
            numbers.CELL + (1 + self.bar if self.bar else 0) + (1 + _REMOVED if self.final else 0)
        )


def distribution_lines(report: DistributionReport, style: Style) -> list[str]:
    """The whole report, as many blocks as its temperatures need at this width."""
    lines: list[str] = []
    for number, block in enumerate(_blocks(report, style)):
        if number:
            lines.append("")
        lines.append(_heading(report, block, style))
        lines += [_row(report, row, block, style) for row in report.rows]
        rest = report.size - len(report.rows)
        if rest > 0:
            lines.append(_rest(report, rest, block, style))
        lines += _totals(report, block, style)
    return lines


def _blocks(report: DistributionReport, style: Style) -> list[_Layout]:
    tokens = [cell_len(style.token(row.token)) for row in report.rows]
    token = min(max([5, *tokens]), _TOKEN_MAX)
    rank = max(len(str(max((row.rank for row in report.rows), default=1))), 2)
    ids = max((len(str(row.token_id)) for row in report.rows), default=1) if report.model else 0
    indexes = tuple(range(len(report.spreads)))

    def room(layout: _Layout, columns: int) -> int:
        fixed = 2 + layout.rank + 2 + layout.token + (2 + layout.id if layout.id else 0)
        fixed += 2 + layout.score if layout.score else 0
        ends = 2 * (2 + numbers.CELL) if layout.limits else 0
        return style.width - fixed - ends - columns * (2 + layout.column)

    widest = _Layout(rank, token, ids, 8, 0, report.filtered, True, indexes)
    names = [widest]
    for change in ({"limits": False}, {"id": 0}, {"token": min(token, 12)}, {"score": 0}):
        names.append(_Layout(**{**vars(names[-1]), **change}))
    chosen = next((layout for layout in names if room(layout, len(indexes)) >= 0), None)
    if chosen is None:  # several blocks
        chosen = names[1]
        if room(chosen, 1) < 0:
            chosen = names[-1]
    fit = 1
    while fit < len(indexes) and room(chosen, fit + 1) >= 0:
        fit += 1
    spare = room(chosen, fit) // fit - 1
    width = min(spare, _BAR_MAX) if spare >= 3 else 0
    return [
        _Layout(**{**vars(chosen), "bar": width, "temperatures": indexes[start : start + fit]})
        for start in range(0, len(indexes), fit)
    ]


def _heading(report: DistributionReport, block: _Layout, style: Style) -> str:
    cells = ["  " + "#".rjust(block.rank), pad("token", block.token)]
    if block.id:
        cells.append("id".rjust(block.id))
    if block.score:
        cells.append(_SHORT.get(report.score_name, report.score_name).rjust(block.score))
    for index in block.temperatures:
        name = f"T={report.spreads[index].temperature:g}".rjust(numbers.CELL - 1) + " "
        cells.append(_column(name, "", "final" if block.final else "", block))
    if block.limits:
        cells += ["T→0".rjust(numbers.CELL - 1) + " ", "T→∞".rjust(numbers.CELL - 1)]
    return style.theme.paint(style.theme.dim, _GAP.join(cells).rstrip())


def _column(cell: str, drawn: str, final: str, block: _Layout) -> str:
    parts = [cell]
    if block.bar:
        parts.append(drawn + " " * (block.bar - cell_len(drawn)))
    if block.final:
        parts.append(final.ljust(_REMOVED))
    return " ".join(parts)


def _row(report: DistributionReport, row: Entry, block: _Layout, style: Style) -> str:
    theme, target = style.theme, row.token == report.target
    token = pad(clip(style.token(row.token), block.token), block.token)
    cells = [("▸ " if target else "  ") + str(row.rank).rjust(block.rank)]
    cells.append(theme.paint(theme.accent if target else theme.bold, token))
    if block.id:
        cells.append(str(row.token_id).rjust(block.id))
    if block.score:
        cells.append(("−inf" if row.score is None else decimal(row.score)).rjust(block.score))
    for index in block.temperatures:
        probability = row.probability[index]
        drawn = bar(probability, block.bar, style.ascii_only)
        painted = theme.paint(theme.bar, drawn)
        painted += " " * (block.bar - cell_len(drawn))
        parts = [percent_cell(probability)] + ([painted] if block.bar else [])
        if block.final:
            parts.append(_final(row, index, style))
        cells.append(" ".join(parts))
    if block.limits:
        cells += [percent_cell(row.at_zero), percent_cell(row.at_infinity)]
    return _GAP.join(cells).rstrip()


def _final(row: Entry, index: int, style: Style) -> str:
    removed_by = row.removed_by[index]
    if removed_by is None:
        return percent(row.final[index]).ljust(_REMOVED)
    return style.theme.paint(style.theme.dim, stage_name(removed_by, _REMOVED).ljust(_REMOVED))


def _rest(report: DistributionReport, rest: int, block: _Layout, style: Style) -> str:
    name = f"+ {count(rest)} more"
    left = 2 + block.rank + 2 + block.token + (2 + block.id if block.id else 0)
    left += 2 + block.score if block.score else 0
    cells = [pad(" " * block.rank + "  " + name, left)]
    for index in block.temperatures:
        mass = 1 - sum(row.probability[index] for row in report.rows)
        cells.append(_column(numbers.rest_cell(mass), "", "", block))
    if block.limits:
        for name in ("at_zero", "at_infinity"):
            mass = 1 - sum(getattr(row, name) for row in report.rows)
            cells.append(numbers.rest_cell(mass) if mass > 1e-9 else percent_cell(0))
    return style.theme.paint(style.theme.dim, _GAP.join(cells).rstrip())


def _totals(report: DistributionReport, block: _Layout, style: Style) -> list[str]:
    left = 2 + block.rank + 2 + block.token + (2 + block.id if block.id else 0)
    left += 2 + block.score if block.score else 0
    shown = [report.spreads[index] for index in block.temperatures]
    ends = list(report.limits) if block.limits else []
    lines = []
    for name, value in _facts(report):
        cells = [pad(clip("    " + name, left), left)]
        # A long value takes the cell, the bar and the final column of its temperature.
        cells += [value(spread).rjust(numbers.CELL - 1).ljust(block.column) for spread in shown]
        cells += [value(spread).rjust(numbers.CELL - 1).ljust(numbers.CELL) for spread in ends]
        lines.append(style.theme.paint(style.theme.dim, _GAP.join(cells).rstrip()))
    return lines


def _facts(report: DistributionReport) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        ("entropy, nats", lambda s: numbers.entropy(s.entropy)),
        ("perplexity", lambda s: _large(s.perplexity)),
        ("top-1 margin", lambda s: percent(s.margin)),
        ("tokens for 50 %", lambda s: count(s.covering[0])),
        ("tokens for 90 %", lambda s: count(s.covering[1])),
        ("tokens for 99 %", lambda s: count(s.covering[2])),
    ]
    if report.target is not None:
        facts.append(
            (
                "cross-entropy",
                lambda s: "∞" if s.cross_entropy == INFINITY else decimal(s.cross_entropy),
            )
        )
    if report.filtered:
        facts.append(("kept", lambda s: count(s.kept)))
        facts.append(("final entropy", lambda s: numbers.entropy(s.final_entropy)))
    return facts


def _large(value: float) -> str:
    return f"{value:.2f}" if value < 100 else count(round(value))
