"""A `SweepSummary` as a table for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from decodecli.records.sweep import Estimate, SettingSummary, SweepSummary
from decodecli.render.escaping import clip, one_line
from decodecli.render.number_format import NOTHING, count
from decodecli.render.plots.sweep_data import (
    Line,
    Metric,
    axis_name,
    common_lines,
    facts,
    group_heading,
    groups,
    layout,
    lines,
    numeric,
    readable,
    shown_metrics,
    spelt,
    value_name,
)
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.table import Column, fit, table_lines
from decodecli.render.terminal.wrap import wrap_parts

# The columns in the order in which they find room; the last ones give way first. The interval of the
# accuracy is a column of its own, without a heading.
IMPORTANCE = (
    *("logprob", "accuracy", "distinct-2", "self-BLEU", "identical", ""),
    *("entropy", "perplexity", "repetition", "divergence"),
    *("distinct-1", "distinct-3", "Zipf", "tokens", "ended"),
)
ROWS = 100  # of the table; the files have every one
_SPARKS, _ASCII_SPARKS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_SPARK_ROWS = 6
_LONGEST_SPARK = 16  # points; a column is made as wide
_SETTING = 16  # cells of a value that is no number
_ANY = 1000  # cells of what is not narrowed


def sweep_lines(summary: SweepSummary, style: Style, rows: int = ROWS) -> list[str]:
    """The sweep's table: facts, what is constant, a row a setting (and task or prompt), curves over the
    first axis.

    Args:
        rows: how many settings are listed; a line tells of the others.

    Every line fits `style.width`; columns give way from the end of `IMPORTANCE`, and a line names them.
    """
    summary, width = readable(summary), style.width
    placed, metrics = layout(summary), shown_metrics(summary)
    result = wrap_parts([clip(fact, width) for fact in spelt(facts(summary), style)], width)
    result += [*common_lines(summary, width), ""]
    if not summary.settings:
        return spelt([*result, "no cell is finished"], style)
    curves: list[Line] = []
    if placed.across is not None and len(summary.axes[placed.across]) >= 3:
        curves = [line for line in lines(summary, placed) if len(line.settings) > 2]
        longest = max((len(line.settings) for line in curves), default=0)
        curves = curves if len(curves) <= _SPARK_ROWS and longest <= _LONGEST_SPARK else []
    listed = summary.settings[:rows]
    columns = _setting_columns(summary, listed, curves, style)
    for metric in metrics:
        columns += _metric_columns(metric, listed, curves, style)
    important = [name for name in IMPORTANCE if name in ("", *(m.heading for m in metrics))]
    columns = [column for column, _ in fit(columns, width, important[:0:-1])]
    heads, *table = (clip(line, width) for line in table_lines(columns, Style(width)))
    result += [style.dim(heads), *table[: len(listed)]]
    if len(summary.settings) > rows:
        more = f"… and {count(len(summary.settings) - rows)} more"
        result.append(style.dim(clip(more, width)))
    result += [style.theme.paint(style.theme.bar, line) for line in table[len(listed) :]]
    names = {column.name for column in columns}
    notes = ["behind accuracy: its 95 % interval, in per cent"] if "" in names else []
    rest = [metric.heading for metric in metrics if metric.heading not in names]
    notes += [f"summary.md has the rest: {', '.join(rest)}"] if rest else []
    for note in notes:
        result += map(style.dim, textwrap.wrap(note, max(width, 1)))
    return spelt(result, style)


def _setting_columns(
    summary: SweepSummary, listed: Sequence[SettingSummary], curves: Sequence[Line], style: Style
) -> list[Column]:
    """A column an axis and one for the task or prompt; a curve has the name of the axis across."""
    placed, columns = layout(summary), []
    rows = [*listed, *(curve.settings[0] for curve in curves)]
    for axis in summary.axes:
        cells = [value_name(row.setting.get(axis)) for row in rows]
        right = numeric(setting.setting.get(axis) for setting in summary.settings)
        if right:  # each number's point stands where those of the others do
            parts = [("" if "e" in cell else cell).partition(".") for cell in cells]
            behind = max(len(point + decimals) for _, point, decimals in parts)
            cells = [
                integer + (point + decimals).ljust(behind) if integer else cell
                for cell, (integer, point, decimals) in zip(cells, parts, strict=True)
            ]
        if axis == placed.across:
            cells[len(listed) :] = [f"{axis_name(axis)}→"] * len(curves)
        elif axis in placed.along:
            cells[len(listed) :] = [""] * len(curves)
        cells, most = spelt(cells, style), _ANY if right else _SETTING
        columns.append(Column(axis_name(axis), cells, _ANY, most, right))
    if groups(summary):
        names = spelt([one_line(row.group or "") for row in rows], style)
        columns.append(Column(group_heading(summary), names, _ANY, _SETTING))
    return columns


def _metric_columns(
    metric: Metric, listed: Sequence[SettingSummary], curves: Sequence[Line], style: Style
) -> list[Column]:
    """The metric's numbers with a sparkline for each curve, and for accuracy its intervals."""
    estimates = _estimates(listed, metric)
    cells = [NOTHING if each is None else metric.text(each.value) for each in estimates]
    points = [
        [None if each is None else each.value for each in _estimates(curve.settings, metric)]
        for curve in curves
    ]
    known = [value for values in points for value in values if value is not None]
    limits = (min(known), max(known)) if known else (0.0, 1.0)
    cells += [sparkline(values, limits, style.ascii_only) for values in points]
    columns = [Column(metric.heading, cells, most=_ANY, right=True)]
    intervals = [
        ""
        if each is None or each.low is None or each.high is None
        else f"{100 * each.low:2.0f}–{100 * each.high:.0f}"
        for each in estimates
    ]
    if metric.name == "accuracy" and any(intervals):
        intervals += [""] * len(curves)
        columns.append(Column("", intervals, _ANY, _ANY, gap=1))
    return columns


def _estimates(settings: Iterable[SettingSummary], metric: Metric) -> list[Estimate | None]:
    return [setting.numbers.get(metric.name) for setting in settings]


def sparkline(
    values: Sequence[float | None],
    limits: tuple[float, float],
    ascii_only: bool = False,
) -> str:
    """A block a value, of eight heights between `limits`; a blank where nothing is known."""
    signs = _ASCII_SPARKS if ascii_only else _SPARKS
    low, high = limits
    shares = [
        None if value is None else (value - low) / (high - low) if high > low else 0.5
        for value in values
    ]
    last = len(signs) - 1
    return "".join(" " if s is None else signs[min(int(s * len(signs)), last)] for s in shares)
