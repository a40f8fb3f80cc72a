"""A `SweepSummary` as the files `summary.csv` and `summary.md`."""

from __future__ import annotations

import html
import re
from dataclasses import astuple
from typing import Any

from decodecli.csv_text import csv_text
from decodecli.records.metrics import METRICS
from decodecli.records.sweep import SweepSummary
from decodecli.render.escaping import clip, model_title, one_line
from decodecli.render.number_format import count
from decodecli.render.plots.sweep_data import (
    axis_name,
    constants,
    facts,
    group_heading,
    groups,
    setting_name,
    shown_metrics,
    told_intervals,
    value_name,
)

_PROMPT = 400  # cells of the prompt in the file


def summary_csv(summary: SweepSummary) -> str:
    """A row a setting and task or prompt with every number in full precision.

    Columns: the axes, `task`, `prompt`, `cells`, and for each of `METRICS` its value, `_low` and `_high`
    of its 95 % interval and `_n`, the number of observations; empty where there is none.
    """
    ends = ("", "_low", "_high", "_n")
    names = [f"{metric}{end}" for metric in METRICS for end in ends]
    rows: list[list[Any]] = [[*summary.axes, "task", "prompt", "cells", *names]]
    for setting in summary.settings:
        axes = [_csv_value(setting.setting.get(axis)) for axis in summary.axes]
        row = [*axes, setting.task, setting.prompt, setting.cells]
        for metric in METRICS:
            estimate = setting.numbers.get(metric)
            row += map(_csv_value, astuple(estimate) if estimate else (None,) * len(ends))
        rows.append(row)
    return csv_text(rows)


def _csv_value(value: Any) -> str:
    """A value as JSON and TOML spell it; a list's parts with spaces between."""
    if isinstance(value, list | tuple):
        return " ".join(map(_csv_value, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def summary_markdown(summary: SweepSummary) -> str:
    """The facts and a table with every number and its 95 % interval."""
    metrics, intervals = shown_metrics(summary), told_intervals(summary)
    named = bool(groups(summary))
    left = [axis_name(axis) for axis in summary.axes] or ["setting"]
    left += [group_heading(summary)] if named else []
    rows = [
        [*map(_markdown, left), "cells", *(metric.heading for metric in metrics)],
        [":---"] * len(left) + ["---:"] * (1 + len(metrics)),
    ]
    for setting in summary.settings:
        names = [value_name(setting.setting.get(axis)) for axis in summary.axes]
        names = names or [setting_name(setting.setting)]
        names += [setting.group or ""] if named else []
        rows.append([*map(_markdown, names), count(setting.cells)])
        for metric in metrics:
            estimate = setting.numbers.get(metric.name)
            cell = "" if estimate is None else metric.text(estimate.value)
            if estimate and metric.name in intervals and estimate.low is not None:
                low, high = metric.text(estimate.low), metric.text(estimate.high or 0.0)
                cell += "" if low == cell == high else f" [{low}, {high}]"
            rows[-1].append(cell)
    parts = [
        f"# Sweep of {_markdown(model_title(summary.name))}",
        _markdown(" · ".join(facts(summary)[1:])),
    ]
    if values := constants(summary.constant):
        parts.append(f"Constant: {_markdown(' · '.join(values))}")
    prompts = summary.prompt_texts if summary.prompt is None else {"Prompt": summary.prompt}
    for name, text in prompts.items():
        parts.append(f"{_markdown(name)}: {_markdown(clip(text, _PROMPT)) or '(empty)'}")
    parts += [
        "\n".join("| " + " | ".join(row) + " |" for row in rows),
        "In brackets: the 95 % interval, where it is wider than the number's last digit. The numbers are "
        "defined in decodecli's `docs/METRICS.md`.",
    ]
    return "\n\n".join(parts) + "\n"


def _markdown(text: str) -> str:
    """Text that stays text, also in a cell of a table."""
    text = re.sub(r"([\\`*_\[\]])", r"\\\1", one_line(text))
    return html.escape(text, quote=False).replace("|", "&#124;")
