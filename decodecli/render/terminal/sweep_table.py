"""A `SweepSummary` as a table for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len

from decodecli.records.metrics import METRICS
from decodecli.records.sweep import Estimate, SettingSummary, SweepSummary
from decodecli.render.escaping import clip, encodable, one_line, pad
from decodecli.render.number_format import NOTHING, count
from decodecli.render.plots.sweep_common import common_lines, readable
from decodecli.render.plots.sweep_data import (
    METRIC,
    Line,
    axis_name,
    facts,
    group_heading,
    groups,
    joined,
    layout,
    lines,
    numeric,
    shown_metrics,
    spelt,
    value_name,
)
from decodecli.render.terminal.step_table import Style

# The columns in the order in which they find room; the last ones give way first. An interval is a
# column of its own behind its number.
_INTERVAL = "accuracy interval"
IMPORTANCE = (
    *("mean_logprob", "accuracy", "distinct_2", "self_bleu_4", "identical", _INTERVAL),
    *("mean_entropy", "perplexity", "repetition_rate", "divergence_step"),
    *("distinct_1", "distinct_3", "zipf", "new_tokens", "ended"),
)
ROWS = 100  # of the table; the files have every one
_SPARKS, _ASCII_SPARKS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_SPARK_ROWS = 6
_LONGEST_SPARK = 16  # points; a column is made as wide
_SETTING = 16  # cells of a value that is no number


def sweep_lines(summary: SweepSummary, style: Style, rows: int = ROWS) -> list[str]:
    """The sweep's table: facts, what is constant, a row a setting (and task or prompt), curves over the
    first axis.

    Args:
        rows: how many settings are listed; a line tells of the others.

    Every line fits `style.width`; columns give way from the end of `IMPORTANCE`, and a line names them.
    """
    summary = _encodable(readable(summary), style)
    table = [*joined(facts(summary), style.width), *common_lines(summary, style.width), ""]
    if not summary.settings:
        return spelt([*table, "no cell is finished"], style)
    curves = _curves(summary)
    columns = _columns(summary, style.width, max((len(c.settings) for c in curves), default=0))
    table.append(style.dim(_line(columns, [column.heading for column in columns], style.width)))
    listed = summary.settings[:rows]
    table += [_line(columns, [c.text(setting) for c in columns], style.width) for setting in listed]
    if len(summary.settings) > rows:
        more = f"… and {count(len(summary.settings) - rows)} more"
        table.append(style.dim(clip(more, style.width)))
    for curve in curves:
        cells = [_curve_cell(column, curve, curves, summary, style) for column in columns]
        table.append(style.theme.paint(style.theme.bar, _line(columns, cells, style.width)))
    for note in _notes(summary, columns):
        table += map(style.dim, textwrap.wrap(note, max(style.width, 1)))
    return spelt(table, style)


def _notes(summary: SweepSummary, columns: Sequence[_Column]) -> list[str]:
    """Footnotes: what an interval is, and which numbers had no room."""
    notes = []
    if any(column.interval for column in columns):
        notes.append("behind accuracy: its 95 % interval, in per cent")
    listed = {column.metric for column in columns}
    rest = [metric.heading for metric in shown_metrics(summary) if metric.name not in listed]
    return [*notes, f"summary.md has the rest: {', '.join(rest)}"] if rest else notes


def _encodable(summary: SweepSummary, style: Style) -> SweepSummary:
    """The summary with names that the stream can carry."""
    if not style.ascii_only:
        return summary

    def plain(value: Any) -> Any:
        is_text = isinstance(value, str | list | tuple)
        return encodable(value_name(value), style.encoding) if is_text else value

    settings = tuple(
        replace(
            s,
            task=plain(s.task),
            prompt=plain(s.prompt),
            setting={axis: plain(value) for axis, value in s.setting.items()},
        )
        for s in summary.settings
    )
    return replace(summary, name=plain(summary.name), settings=settings)


@dataclass(frozen=True)
class _Column:
    """One column: of an axis, of the task or prompt, or of a metric or its interval."""

    heading: str
    text: Callable[[SettingSummary], str]
    width: int
    right: bool = True
    axis: str | None = None
    metric: str | None = None
    interval: bool = False


def _columns(summary: SweepSummary, width: int, points: int) -> list[_Column]:
    """The setting's columns, then the metrics that fit, in the order of `METRICS`; `points` are those
    of the longest curve."""
    columns = _setting_columns(summary)
    used = sum(column.width + 2 for column in columns)
    known = {metric.name for metric in shown_metrics(summary)}
    fitting: dict[str, _Column] = {}
    for name in IMPORTANCE:
        column = _metric_column(name, summary, points) if name.split()[0] in known else None
        if column is None:
            continue
        used += column.width + (1 if column.interval else 2)
        if used - 2 > width and (fitting or column.interval):
            break
        fitting[name] = column
    for metric in METRICS:
        columns += [fitting[n] for n in (metric, f"{metric} interval") if n in fitting]
    return columns


def _setting_columns(summary: SweepSummary) -> list[_Column]:
    """A column an axis and one for the task; the axis across has room for its curve's name."""
    across = layout(summary).across
    columns = []
    for axis in summary.axes:
        right = numeric(setting.setting.get(axis) for setting in summary.settings)
        text = _axis_text(axis, summary) if right else _plain_text(axis)
        sizes = [cell_len(text(setting)) for setting in summary.settings]
        least = cell_len(axis_name(axis)) + (axis == across)
        width = max([least, *(sizes if right else [min(size, _SETTING) for size in sizes])])
        columns.append(_Column(axis_name(axis), text, width, right, axis))
    names = [one_line(group) for group in groups(summary)]
    if names:
        heading = group_heading(summary)
        width = min(max(cell_len(name) for name in [heading, *names]), _SETTING)
        columns.append(_Column(heading, lambda s: one_line(s.group or ""), width, right=False))
    return columns


def _plain_text(axis: str) -> Callable[[SettingSummary], str]:
    return lambda setting: value_name(setting.setting.get(axis))


def _axis_text(axis: str, summary: SweepSummary) -> Callable[[SettingSummary], str]:
    """An axis' numbers, each with its point where the others have theirs."""
    name = _plain_text(axis)
    names = map(name, summary.settings)
    decimals = max((len(n.partition(".")[2]) for n in names if "e" not in n), default=0)

    def text(setting: SettingSummary) -> str:
        whole, point, behind = name(setting).partition(".")
        if "e" in whole + behind:
            return whole + point + behind
        return whole + (point + behind).ljust(decimals + 1 if decimals else 0)

    return text


def _metric_column(name: str, summary: SweepSummary, points: int) -> _Column | None:
    metric = METRIC[name.split()[0]]

    def interval(setting: SettingSummary) -> str:
        return _interval(setting.numbers.get(metric.name))

    def text(setting: SettingSummary) -> str:
        estimate = setting.numbers.get(metric.name)
        return NOTHING if estimate is None else metric.text(estimate.value)

    if name == _INTERVAL:
        width = max(cell_len(interval(setting)) for setting in summary.settings)
        column = _Column("", interval, width, right=False, metric=metric.name, interval=True)
        return column if width else None
    cells = [metric.heading, *map(text, summary.settings)]
    return _Column(
        metric.heading, text, max(points, *(cell_len(cell) for cell in cells)), metric=metric.name
    )


def _interval(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{100 * estimate.low:2.0f}–{100 * estimate.high:.0f}"


def _line(columns: Sequence[_Column], cells: Sequence[str], width: int) -> str:
    """The cells in their columns, cut where not even the settings fit."""
    line = ""
    for column, cell in zip(columns, cells, strict=True):
        gap = " " if column.interval else "  "
        line += (gap if column is not columns[0] else "") + pad(cell, column.width, column.right)
    return clip(line.rstrip(), width)


def _curves(summary: SweepSummary) -> list[Line]:
    """The lines of the plots that get a curve under each number; none where they would be many, or
    long."""
    placed = layout(summary)
    if placed.across is None or len(summary.axes[placed.across]) < 3:
        return []
    curves = [line for line in lines(summary, placed) if len(line.settings) > 2]
    longest = max((len(line.settings) for line in curves), default=0)
    return curves if len(curves) <= _SPARK_ROWS and longest <= _LONGEST_SPARK else []


def _curve_cell(
    column: _Column, curve: Line, curves: Sequence[Line], summary: SweepSummary, style: Style
) -> str:
    if column.interval:
        return ""
    if column.metric is not None:
        estimates = [[s.numbers.get(column.metric) for s in line.settings] for line in curves]
        known = [estimate.value for line in estimates for estimate in line if estimate]
        limits = (min(known), max(known)) if known else (0.0, 1.0)
        row = estimates[curves.index(curve)]
        values = [None if estimate is None else estimate.value for estimate in row]
        return sparkline(values, limits, style.ascii_only)
    placed = layout(summary)
    if column.axis is not None and column.axis == placed.across:
        return column.heading + (">" if style.ascii_only else "→")
    return "" if column.axis in placed.along else column.text(curve.settings[0])


def sparkline(
    values: Sequence[float | None],
    limits: tuple[float, float],
    ascii_only: bool = False,
) -> str:
    """A block a value, of eight heights between `limits`; a blank where nothing is known."""
    signs = _ASCII_SPARKS if ascii_only else _SPARKS
    low, high = limits
    drawn = []
    for value in values:
        if value is None:
            drawn.append(" ")
            continue
        share = (value - low) / (high - low) if high > low else 0.5
        drawn.append(signs[min(int(share * len(signs)), len(signs) - 1)])
    return "".join(drawn)
