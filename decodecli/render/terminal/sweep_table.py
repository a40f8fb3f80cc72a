"""A `SweepSummary` as a table for the terminal, as CSV, and as Markdown."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len

from decodecli.csv_text import csv_text
from decodecli.records.metrics import METRICS
from decodecli.records.sweep import Estimate, SettingSummary, SweepSummary
from decodecli.render.escaping import clip, encodable, model_title, one_line, pad
from decodecli.render.number_format import count
from decodecli.render.plots.sweep_common import common_lines, constants, readable
from decodecli.render.plots.sweep_data import (
    METRIC,
    Layout,
    Line,
    Metric,
    axis_name,
    facts,
    group_heading,
    groups,
    joined,
    layout,
    lines,
    numeric,
    setting_name,
    shown_metrics,
    spelt,
    told_intervals,
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
_PROMPT = 400  # cells of the prompt in the file
_SETTING = 16  # cells of a value that is no number
_NOTHING = "·"


def sweep_lines(summary: SweepSummary, style: Style, rows: int = ROWS) -> list[str]:
    """The sweep's table: facts, what is constant, a row a setting (and task or prompt), curves over the
    first axis.

    Args:
        rows: how many settings are listed; a line tells of the others.

    Every line fits `style.width`; columns give way from the end of `IMPORTANCE`, and a line names them.
    """
    summary = _encodable(readable(summary), style)
    dim = style.theme.dim
    found = [*joined(facts(summary), style.width), *common_lines(summary, style.width), ""]
    if not summary.settings:
        return spelt([*found, "no cell is finished"], style)
    columns = _columns(summary, style.width)
    headings = _line(columns, [column.heading for column in columns], style.width)
    found.append(style.theme.paint(dim, headings))
    for setting in summary.settings[:rows]:
        cells = [column.cell(setting) for column in columns]
        found += [_line(columns, cells, style.width)]
    if len(summary.settings) > rows:
        more = f"… and {count(len(summary.settings) - rows)} more"
        found.append(style.theme.paint(dim, clip(more, style.width)))
    found += _spark_rows(summary, columns, style)
    notes = [textwrap.wrap(note, max(style.width, 1)) for note in _notes(summary, columns)]
    found += [style.theme.paint(dim, line) for lines in notes for line in lines]
    return spelt(found, style)


def _notes(summary: SweepSummary, columns: Sequence[_Column]) -> list[str]:
    """What an interval is, and which numbers had no room."""
    notes = []
    if any(column.interval for column in columns):
        notes.append("behind accuracy: its 95 % interval, in per cent")
    shown = {column.metric for column in columns}
    rest = [metric.heading for metric in shown_metrics(summary) if metric.name not in shown]
    if rest:
        notes.append(f"summary.md has the rest: {', '.join(rest)}")
    return notes


def _encodable(summary: SweepSummary, style: Style) -> SweepSummary:
    """The summary with names that the stream can carry."""
    if not style.ascii_only:
        return summary

    def plain(value: Any) -> Any:
        return encodable(value_name(value), style.encoding) if _is_text(value) else value

    settings = tuple(
        replace(
            s,
            task=plain(s.task),
            prompt=plain(s.prompt),
            setting={k: plain(v) for k, v in s.setting.items()},
        )
        for s in summary.settings
    )
    return replace(summary, name=plain(summary.name), settings=settings)


def _is_text(value: Any) -> bool:
    return isinstance(value, str | list | tuple)


@dataclass(frozen=True)
class _Column:
    """One column: of an axis, of the task, or of a metric; `interval` for a number's interval."""

    heading: str
    width: int
    axis: str | None = None
    metric: str | None = None
    interval: bool = False
    right: bool = True
    decimals: int = 0  # of an axis' values, so that points stand in a line

    def cell(self, setting: SettingSummary) -> str:
        if self.metric is not None:
            estimate = setting.numbers.get(self.metric)
            if self.interval:
                return _interval(estimate)
            return _NOTHING if estimate is None else METRIC[self.metric].text(estimate.value)
        if self.axis is None:
            return one_line(setting.group or "")
        return self.value(setting.setting.get(self.axis))

    def value(self, value: Any) -> str:
        """An axis' value with its point where the others have theirs."""
        text = value_name(value)
        if not self.right or "e" in text:
            return text
        whole, _, behind = text.partition(".")
        room = self.decimals + 1 if self.decimals else 0
        return whole + (f".{behind}" if behind else "").ljust(room)

    def placed(self, text: str) -> str:
        text = clip(text, self.width)
        if not self.right:
            return pad(text, self.width)
        return " " * (self.width - cell_len(text)) + text


def _interval(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{100 * estimate.low:2.0f}–{100 * estimate.high:.0f}"


def _columns(summary: SweepSummary, width: int) -> list[_Column]:
    """The setting's columns, then the metrics that fit, in the order of `METRICS`."""
    found = _setting_columns(summary)
    used = sum(column.width + 2 for column in found)
    known = {metric.name for metric in shown_metrics(summary)}
    kept: dict[str, _Column] = {}
    points = _spark_points(summary)
    for name in IMPORTANCE:
        column = _metric_column(name, summary) if name.split()[0] in known else None
        if column is None:
            continue
        if not column.interval:
            column = replace(column, width=max(column.width, points))
        used += column.width + (1 if column.interval else 2)
        if used - 2 > width and (kept or column.interval):
            break
        kept[name] = column
    for metric in METRICS:
        found += [kept[name] for name in (metric, f"{metric} interval") if name in kept]
    return found


def _setting_columns(summary: SweepSummary) -> list[_Column]:
    """A column an axis and one for the task; the axis across has room for its curve's name."""
    across = layout(summary).across
    found = []
    for axis in summary.axes:
        values = [setting.setting.get(axis) for setting in summary.settings]
        right = numeric(values)
        names = [value_name(value) for value in values]
        behind = [len(n.partition(".")[2]) for n in names if right and "e" not in n]
        column = _Column(
            axis_name(axis), 0, axis=axis, right=right, decimals=max(behind, default=0)
        )
        least = cell_len(column.heading) + (axis == across)
        cells = [cell_len(column.value(value)) for value in values]
        widest = max([least, *(cells if right else [min(size, _SETTING) for size in cells])])
        found.append(_Column(column.heading, widest, axis, right=right, decimals=column.decimals))
    heading, names = group_heading(summary), [one_line(group) for group in groups(summary)]
    if names:
        widest = min(max(cell_len(name) for name in [heading, *names]), _SETTING)
        found.append(_Column(heading, widest, right=False))
    return found


def _metric_column(name: str, summary: SweepSummary) -> _Column | None:
    metric = METRIC[name.split()[0]]
    estimates = [s.numbers[metric.name] for s in summary.settings if metric.name in s.numbers]
    if name == _INTERVAL:
        widest = max(cell_len(_interval(estimate)) for estimate in estimates)
        return (
            _Column("", widest, metric=metric.name, interval=True, right=False) if widest else None
        )
    cells = [cell_len(metric.text(estimate.value)) for estimate in estimates]
    return _Column(metric.heading, max([cell_len(metric.heading), *cells]), metric=metric.name)


def _line(columns: Sequence[_Column], cells: Sequence[str], width: int) -> str:
    """The cells in their columns, cut where not even the settings fit."""
    parts: list[str] = []
    for column, cell in zip(columns, cells, strict=True):
        between = "" if not parts else " " if column.interval else "  "
        parts.append(between + column.placed(cell))
    return clip("".join(parts).rstrip(), width)


def _spark_rows(summary: SweepSummary, columns: Sequence[_Column], style: Style) -> list[str]:
    """Under each number its curve over the axis across, a row for each line of the plots."""
    placed, found = layout(summary), _spark_lines(summary)
    if placed.across is None or not found:
        return []
    limits = {c.metric: _limits(found, c.metric, placed.across) for c in columns if c.metric}
    arrow = ">" if style.ascii_only else "→"
    rows = []
    for line in found:
        cells = [_spark_cell(column, line, placed, limits, arrow, style) for column in columns]
        rows.append(style.theme.paint(style.theme.bar, _line(columns, cells, style.width)))
    return rows


def _spark_lines(summary: SweepSummary) -> list[Line]:
    """The lines that get a curve; none where they would be many, or long."""
    placed = layout(summary)
    if placed.across is None or len(summary.axes[placed.across]) < 3:
        return []
    found = [line for line in lines(summary, placed) if len(line.settings) > 2]
    longest = max((len(line.settings) for line in found), default=0)
    return found if len(found) <= _SPARK_ROWS and longest <= _LONGEST_SPARK else []


def _spark_points(summary: SweepSummary) -> int:
    """Settings on the longest line that gets a curve."""
    return max((len(line.settings) for line in _spark_lines(summary)), default=0)


def _spark_cell(
    column: _Column, line: Line, placed: Layout, limits: dict[Any, Any], arrow: str, style: Style
) -> str:
    if column.metric is not None:
        if column.interval:
            return ""
        points = [(float(k), s.numbers.get(column.metric)) for k, s in enumerate(line.settings)]
        values = [None if estimate is None else estimate.value for _, estimate in points]
        return sparkline(values, limits[column.metric], style.ascii_only)
    if column.axis is None:
        return one_line(line.group or "")
    if column.axis == placed.across:
        return column.heading + arrow
    if column.axis in placed.along:
        return ""
    return column.value(line.settings[0].setting.get(column.axis))


def _limits(found: Sequence[Line], metric: str, across: str) -> tuple[float, float]:
    values = [estimate.value for line in found for _, estimate in line.points(metric, across)]
    return (min(values), max(values)) if values else (0.0, 1.0)


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


def summary_csv(summary: SweepSummary) -> str:
    """A row a setting and task or prompt with every number in full precision.

    Columns: the axes, `task`, `prompt`, `cells`, and for each of `METRICS` its value, `_low` and `_high`
    of its 95 % interval and `_n`, the number of observations; empty where there is none.
    """
    names = [f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high", "_n")]
    rows: list[list[Any]] = [[*summary.axes, "task", "prompt", "cells", *names]]
    for setting in summary.settings:
        axes = [_csv_value(setting.setting.get(axis)) for axis in summary.axes]
        row = [*axes, setting.task, setting.prompt, setting.cells]
        for metric in METRICS:
            found = setting.numbers.get(metric)
            row += ["", "", "", ""] if found is None else _csv_estimate(found)
        rows.append(row)
    return csv_text(rows)


def _csv_value(value: Any) -> str:
    """A value as JSON and TOML spell it; a list's parts with spaces between."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return " ".join(map(_csv_value, value))
    return repr(value) if isinstance(value, float) else str(value)


def _csv_estimate(found: Estimate) -> list[str]:
    ends = ["" if end is None else repr(float(end)) for end in (found.low, found.high)]
    return [repr(float(found.value)), *ends, str(found.count)]


def summary_markdown(summary: SweepSummary) -> str:
    """The facts and a table with every number and its 95 % interval."""
    metrics, told = shown_metrics(summary), told_intervals(summary)
    named = bool(groups(summary))
    left = [axis_name(axis) for axis in summary.axes] or ["setting"]
    left += [group_heading(summary)] if named else []
    headings = [*map(_markdown, left), "cells", *(metric.heading for metric in metrics)]
    rules = [":---"] * len(left) + ["---:"] * (1 + len(metrics))
    rows = [headings, rules]
    for setting in summary.settings:
        names = [value_name(setting.setting.get(axis)) for axis in summary.axes]
        names = names or [setting_name(setting.setting)]
        names += [setting.group or ""] if named else []
        found = [
            _with_interval(metric, setting.numbers.get(metric.name), metric.name in told)
            for metric in metrics
        ]
        rows.append([*map(_markdown, names), count(setting.cells), *found])
    parts = [
        f"# Sweep of {_markdown(model_title(summary.name))}",
        _markdown(" · ".join(facts(summary)[1:])),
        *_common(summary),
        "\n".join("| " + " | ".join(row) + " |" for row in rows),
        "In brackets: the 95 % interval, where it is wider than the number's last digit. The numbers are "
        "defined in decodecli's `docs/METRICS.md`.",
    ]
    return "\n\n".join(parts) + "\n"


def _common(summary: SweepSummary) -> list[str]:
    """What is constant, and the only prompt: a paragraph each."""
    found = constants(summary.constant)
    parts = [f"Constant: {_markdown(' · '.join(found))}"] if found else []
    if summary.prompt is not None:
        parts.append(f"Prompt: {_markdown(clip(summary.prompt, _PROMPT)) or '(empty)'}")
    return parts


def _with_interval(metric: Metric, found: Estimate | None, told: bool) -> str:
    if found is None:
        return ""
    value = metric.text(found.value)
    if not told or found.low is None or found.high is None:
        return value
    low, high = metric.text(found.low), metric.text(found.high)
    return value if low == value == high else f"{value} [{low}, {high}]"


def _markdown(text: str) -> str:
    """Text that stays text, also in a cell of a table."""
    text = re.sub(r"([\\`*_\[\]])", r"\\\1", one_line(text))
    return html.escape(text, quote=False).replace("|", "&#124;")
