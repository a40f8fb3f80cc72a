"""What every view of a sweep starts from: names, numbers as they are spelt, and which axis goes where.

The axis across is temperature where it varies, else the first axis of numbers. An axis that goes
along with it (zipped) is no line of its own; the next one is, and what is left makes panels.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

from decodecli.records.metrics import METRICS
from decodecli.records.sweep import Estimate, SettingSummary, SweepSummary
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, encodable, model_title, one_line
from decodecli.render.terminal.step_table import Style

_LONGEST = 32  # cells of a value's name
_LOG_SPAN = 4.0  # values that lie nearer together are read as well on a linear axis
_LOG_SPAN_OF_TWO = 50.0


@dataclass(frozen=True)
class Metric:
    """How a number is called and spelt.

    heading: for a table. title: for an axis, with its unit. decimals: behind the point; a share is
    shown as a percentage.
    """

    name: str
    heading: str
    title: str
    decimals: int = 2
    share: bool = False

    def text(self, value: float) -> str:
        """The number as it stands in a table, with a real minus sign."""
        if not math.isfinite(value):
            return "∞"
        if abs(value) >= 1e5:
            return numbers.scientific(value).replace("-", "−")
        text = f"{100 * value:.1f}%" if self.share else f"{value:,.{self.decimals}f}"
        return text.replace("-", "−") if re.search("[1-9]", text) else text.lstrip("-")

    def brief(self, value: float) -> str:
        """The number for a cell of a map."""
        if self.share:
            return f"{100 * value:.0f}%"
        if self.decimals == 3:
            return f"{value:.2f}"
        if abs(value) >= 1000:
            return f"{value:,.0f}" if abs(value) < 10_000 else numbers.scientific(value)
        return self.text(value)


METRIC: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("mean_logprob", "logprob", "mean logprob (nats a token)"),
        Metric("perplexity", "perplexity", "perplexity", 1),
        Metric("mean_entropy", "entropy", "mean entropy (nats)"),
        Metric("distinct_1", "distinct-1", "distinct-1", 3),
        Metric("distinct_2", "distinct-2", "distinct-2", 3),
        Metric("distinct_3", "distinct-3", "distinct-3", 3),
        Metric("self_bleu_4", "self-BLEU", "self-BLEU-4", 3),
        Metric("repetition_rate", "repetition", "texts that end in a loop", share=True),
        Metric("zipf", "Zipf", "Zipf coefficient"),
        Metric("identical", "identical", "identical texts over seeds", share=True),
        Metric("divergence_step", "divergence", "first step at which seeds differ", 1),
        Metric("accuracy", "accuracy", "right answers", share=True),
        Metric("new_tokens", "tokens", "tokens of a text", 1),
        Metric("ended", "ended", "texts that came to an end", share=True),
    )
}


def shown_metrics(summary: SweepSummary) -> list[Metric]:
    """The metrics that some setting has, in the order of `METRICS`."""
    had = {name for setting in summary.settings for name in setting.numbers}
    return [METRIC[name] for name in METRICS if name in had]


def told_intervals(summary: SweepSummary) -> frozenset[str]:
    """The metrics of which an interval says something: not those that are 0 everywhere, or the same at
    every setting. What right answers are judged by is told all the same."""
    values: dict[str, set[float]] = {}
    for setting in summary.settings:
        for name, estimate in setting.numbers.items():
            values.setdefault(name, set()).add(estimate.value)
    flat = {name for name, distinct in values.items() if len(distinct) == 1}
    if len(summary.settings) == 1:
        flat = {name for name in flat if values[name] == {0.0}}
    return frozenset(values) - (flat - {"accuracy"})


def axis_name(axis: str) -> str:
    """An axis in a heading: `T` for temperature, else the option's name."""
    return "T" if axis == "temperature" else one_line(axis)


def value_name(value: Any) -> str:
    """An axis' value on one line: `0.9`, `on`, `auto`, and strings made safe."""
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return numbers.plain(value)
    if isinstance(value, str):
        return clip(one_line(value), _LONGEST) or "(empty)"
    if isinstance(value, Sequence):
        return clip(", ".join(value_name(part) for part in value), _LONGEST) or "none"
    return clip(one_line(str(value)), _LONGEST)


def setting_name(setting: Mapping[str, Any]) -> str:
    """`T 0.2 · top_p 0.9`; for a sweep in which nothing varies, `all cells`."""
    return " · ".join(f"{axis_name(k)} {value_name(v)}" for k, v in setting.items()) or "all cells"


def seeds_name(seeds: Sequence[int]) -> str:
    """`seed 0`, `seeds 0–4`, `seeds 1, 5, 9` or how many there are."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    ordered = sorted(seeds)
    if len(seeds) > 1 and ordered == list(range(ordered[0], ordered[0] + len(seeds))):
        return f"seeds {ordered[0]}–{ordered[-1]}"
    if len(seeds) <= 5:
        return "seeds " + ", ".join(map(str, seeds))
    return f"{numbers.count(len(seeds))} seeds"


def facts(summary: SweepSummary) -> list[str]:
    """What the sweep was, in a few words each."""
    many = len({frozen(setting.setting) for setting in summary.settings})
    parts = [
        model_title(summary.name),
        f"{numbers.count(many)} setting{'' if many == 1 else 's'}",
        f"{numbers.count(summary.prompts)} prompt{'' if summary.prompts == 1 else 's'}",
        seeds_name(summary.seeds),
    ]
    cells = numbers.count(summary.cells)
    done = summary.finished == summary.cells
    parts.append(
        f"{cells} cell{'' if summary.cells == 1 else 's'}"
        if done
        else f"{numbers.count(summary.finished)} of {cells} cells"
    )
    return parts + ([f"{numbers.count(summary.failed)} failed"] if summary.failed else [])


def frozen(setting: Mapping[str, Any]) -> tuple[Any, ...]:
    """A setting as something that can be a key."""
    return tuple((name, _hashable(value)) for name, value in setting.items())


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(value)
    return ("bool", value) if isinstance(value, bool) else value  # True is no 1 here


def groups(summary: SweepSummary) -> list[str]:
    """The tasks or prompts that have rows of their own, in their order; none where all are one."""
    names = dict.fromkeys(setting.group for setting in summary.settings)
    return [group for group in names if group is not None]


def group_heading(summary: SweepSummary) -> str:
    """What to call `groups`."""
    kinds = {"task" if s.prompt is None else "prompt" for s in summary.settings if s.group}
    return " or ".join(sorted(kinds, reverse=True))


def numeric(values: Iterable[Any]) -> bool:
    """Whether values lie on a line of numbers."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def is_geometric(values: Iterable[float]) -> bool:
    """Whether steps between values are more even as ratios, so that a log axis suits them; 0 aside."""
    ordered = sorted({float(value) for value in values if value})
    if len(ordered) < 2 or ordered[0] < 0 or ordered[-1] < _LOG_SPAN * ordered[0]:
        return False
    if len(ordered) == 2:
        return ordered[-1] >= _LOG_SPAN_OF_TWO * ordered[0]
    logs = [math.log(value) for value in ordered]
    return _unevenness(logs) < _unevenness(ordered) - 1e-9


def _unevenness(positions: Sequence[float]) -> float:
    steps = [b - a for a, b in itertools.pairwise(positions)]
    return statistics.pstdev(steps) / statistics.fmean(steps)


def joined(parts: Sequence[str], width: int) -> list[str]:
    """Parts with dots between, wrapped between parts."""
    rows: list[str] = []
    for part in parts:
        if rows and cell_len(rows[-1]) + 3 + cell_len(part) <= width:
            rows[-1] += f" · {part}"
        else:
            rows.append(clip(part, width))
    return rows


_ASCII = str.maketrans("·→–…−▸─│×", "->-~->-|x")  # the drawing's own signs, cell for cell


def spelt(lines: Sequence[str], style: Style) -> list[str]:
    """Lines in characters that the stream can carry."""
    if not style.ascii_only:
        return list(lines)
    return [encodable(line.translate(_ASCII), style.encoding) for line in lines]


@dataclass(frozen=True)
class Layout:
    """Which axis goes where.

    across: the axis of the plots' x, None where nothing varies. along: axes that take one value for
    each of its values. line: the axis with a line for each value, or None. panels: the axes left.
    """

    across: str | None
    along: tuple[str, ...]
    line: str | None
    panels: tuple[str, ...]


def layout(summary: SweepSummary) -> Layout:
    """Find a place for each axis."""
    axes = [name for name, values in summary.axes.items() if len(values) > 1]
    if not axes:
        return Layout(None, (), None, ())
    lines = [name for name in axes if numeric(summary.axes[name])]
    across = "temperature" if "temperature" in lines else (lines or axes)[0]
    settings = [setting.setting for setting in summary.settings]
    rest = [name for name in axes if name != across]
    along = tuple(name for name in rest if _follows(settings, name, across))
    free = [name for name in rest if name not in along]
    return Layout(across, along, free[0] if free else None, tuple(free[1:]))


def _follows(settings: Sequence[Mapping[str, Any]], name: str, across: str) -> bool:
    """Whether `name` has one value for each of `across`."""
    value_of: dict[Any, Any] = {}
    return all(
        value_of.setdefault(_hashable(s.get(across)), _hashable(s.get(name)))
        == _hashable(s.get(name))
        for s in settings
    )


@dataclass(frozen=True)
class Line:
    """The settings that differ in the axis across only, in its order.

    panel: values of the panels' axes. group: as `SettingSummary.group`. value: of the line's axis,
    None without one.
    """

    panel: dict[str, Any]
    group: str | None
    value: Any
    settings: tuple[SettingSummary, ...]

    def points(self, metric: str, across: str) -> list[tuple[Any, Estimate]]:
        """The axis' values where the metric is known, with its estimates."""
        points = [(s.setting.get(across), s.numbers.get(metric)) for s in self.settings]
        return [(x, estimate) for x, estimate in points if estimate is not None]


def lines(summary: SweepSummary, placed: Layout) -> list[Line]:
    """Every line of the plots, by panel and group and then by the line's value, as the axes have them."""
    together: dict[Any, list[SettingSummary]] = {}
    for setting in summary.settings:
        values = setting.setting
        apart = frozen({name: values.get(name) for name in (*placed.panels, placed.line) if name})
        together.setdefault((apart, setting.group), []).append(setting)
    result = []
    for (_, group), members in together.items():
        first = members[0].setting
        if placed.across is not None and numeric(m.setting.get(placed.across) for m in members):
            members.sort(key=lambda m: m.setting[placed.across])  # type: ignore[index]
        panel = {name: first.get(name) for name in placed.panels}
        result.append(
            Line(panel, group, first.get(placed.line) if placed.line else None, tuple(members))
        )
    return result
