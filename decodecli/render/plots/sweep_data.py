"""What every view of a sweep starts from: names, numbers as they are spelt, and which axis goes where.

The axis across is temperature where it varies, else the first axis of numbers. An axis that goes
along with it (zipped) is no line of its own; the next one is, and what is left makes panels.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from decodecli.records.metrics import METRICS
from decodecli.records.sweep import Estimate, SettingSummary, SweepSummary
from decodecli.render import number_format as numbers
from decodecli.render.escaping import DRAWING_SIGNS, clip, encodable, model_title, one_line
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.wrap import wrap_parts
from decodecli.settings import SamplingParams

_LONGEST = 32  # cells of a value's name
_PANEL = 28  # cells of a panel's name
_QUOTED = 48  # cells of a prompt in a row of facts
_ORDER = {"temperature": 0, "max_new_tokens": 2, "bos": 3}  # of the constants that are always named
_LONG, _FEWEST = 5, 3  # digits beyond which a number is shortened, and of which it keeps so many
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
    told = set()
    for metric in shown_metrics(summary):
        name = metric.name
        values = {s.numbers[name].value for s in summary.settings if name in s.numbers}
        alone = len(summary.settings) == 1 and values != {0.0}
        if name == "accuracy" or alone or len(values) > 1:
            told.add(name)
    return frozenset(told)


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
    unfinished = summary.finished != summary.cells
    parts = [
        model_title(summary.name),
        numbers.count(len({frozen(setting.setting) for setting in summary.settings}), "setting"),
        numbers.count(summary.prompts, "prompt"),
        seeds_name(summary.seeds),
        (f"{numbers.count(summary.finished)} of " if unfinished else "")
        + numbers.count(summary.cells, "cell"),
    ]
    return parts + ([f"{numbers.count(summary.failed)} failed"] if summary.failed else [])


def constants(params: Mapping[str, Any], always_named: Collection[str] = ()) -> list[str]:
    """Values in a few words each: `T 1.4`, `top_p 0.9`, `up to 40 tokens`, `BOS auto`.

    Args:
        params: the common values by name. Of those that change nothing only the temperature is named.
        always_named: options that are named whatever their value.
    """
    neutral = SamplingParams().as_dict()
    parts = []
    for name in sorted(params, key=lambda name: _ORDER.get(name, 1)):
        value = params[name]
        changes_nothing = hashable(value) == hashable(neutral.get(name))
        is_named = name in _ORDER or name in always_named or not changes_nothing
        if name in ("seed", "greedy") or not is_named:
            continue
        text = value_name(
            shortened([value]).get(value, value) if isinstance(value, float) else value
        )
        if name == "max_new_tokens":
            parts.append(f"up to {text} token{'' if value == 1 else 's'}")
        elif name == "temperature" and value == 0:
            parts.append("T 0 (greedy)")
        else:
            parts.append(f"{'BOS' if name == 'bos' else axis_name(name)} {text}")
    return parts


def constant_lines(
    params: Mapping[str, Any], width: int, always_named: Collection[str] = ()
) -> list[str]:
    """`constant: T 1.4 · up to 40 tokens`, wrapped between values."""
    heading = "constant: "
    rows = wrap_parts(constants(params, always_named), max(width - len(heading), 1))
    return [clip((" " * len(heading) if k else heading) + row, width) for k, row in enumerate(rows)]


def common_lines(summary: SweepSummary, width: int) -> list[str]:
    """What all cells have in common, and the only prompt or those that have rows, shortened."""
    prompts = summary.prompt_texts if summary.prompt is None else {"prompt": summary.prompt}
    named = [f"{one_line(name)}: {one_line(text) or '(empty)'}" for name, text in prompts.items()]
    return constant_lines(summary.constant, width) + [clip(line, width) for line in named]


def common_facts(summary: SweepSummary) -> list[str]:
    """The same in parts, for one line."""
    prompts = summary.prompt_texts if summary.prompt is None else {"": summary.prompt}
    cells = min(_QUOTED, max(2 * _QUOTED // max(len(prompts), 1), _QUOTED // 4))
    quoted = [f"{name} “{clip(one_line(text), cells)}”".strip() for name, text in prompts.items()]
    return [*constants(summary.constant), *map(one_line, quoted)]


def shortened(values: Iterable[Any]) -> dict[float, float]:
    """A number of few digits for each that has many; the others by themselves.

    The digits are as many as it takes that no two become one, three at the least.
    """
    finite = {value for value in values if isinstance(value, float) and math.isfinite(value)}
    long = {v for v in finite if len(re.sub("e.*|[.]", "", repr(v)).strip("-0")) > _LONG}
    for digits in range(_FEWEST, 18):
        short = {v: float(f"{v:.{digits}g}") if v in long else v for v in finite}
        if len(set(short.values())) == len(finite):
            return short
    return {value: value for value in finite}


def readable(summary: SweepSummary) -> SweepSummary:
    """The summary as it is shown: values of axes that have many digits are rounded."""
    short = {axis: shortened(values) for axis, values in summary.axes.items()}

    def rounded(axis: str, value: Any) -> Any:
        return short[axis].get(value, value) if isinstance(value, float) else value

    return replace(
        summary,
        axes={
            axis: tuple(rounded(axis, v) for v in values) for axis, values in summary.axes.items()
        },
        settings=tuple(
            replace(one, setting={axis: rounded(axis, v) for axis, v in one.setting.items()})
            for one in summary.settings
        ),
    )


def frozen(setting: Mapping[str, Any]) -> tuple[Any, ...]:
    """A setting as something that can be a key."""
    return tuple((name, hashable(value)) for name, value in setting.items())


def hashable(value: Any) -> Any:
    """A value as something that can be a key; True is no 1 here."""
    if isinstance(value, list | tuple):
        return tuple(value)
    return ("bool", value) if isinstance(value, bool) else value


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
    unevenness = []
    for positions in ([math.log(value) for value in ordered], ordered):
        steps = [b - a for a, b in itertools.pairwise(positions)]
        unevenness.append(statistics.pstdev(steps) / statistics.fmean(steps))
    return unevenness[0] < unevenness[1] - 1e-9


def spelt(lines: Sequence[str], style: Style) -> list[str]:
    """Lines in characters that the stream can carry."""
    if not style.ascii_only:
        return list(lines)
    return [encodable(line.translate(DRAWING_SIGNS), style.encoding) for line in lines]


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
    numbers_only = [name for name in axes if numeric(summary.axes[name])]
    across = "temperature" if "temperature" in numbers_only else (numbers_only or axes)[0]
    pairs: dict[str, set[Any]] = {}  # of values of `across` and of each other axis
    for setting in summary.settings:
        value = hashable(setting.setting.get(across))
        for name in axes:
            pairs.setdefault(name, set()).add((value, hashable(setting.setting.get(name))))
    rest = [name for name in axes if name != across]
    along = tuple(n for n in rest if len(pairs.get(n, ())) == len(pairs.get(across, ())))
    free = [name for name in rest if name not in along]
    return Layout(across, along, free[0] if free else None, tuple(free[1:]))


class Panel(NamedTuple):
    """A task or prompt, as `SettingSummary.group`, and values of the axes that have neither the x axis
    nor lines."""

    group: str | None
    values: dict[str, Any]

    @property
    def name(self) -> str:
        """`knowledge · bos on`."""
        parts = [one_line(self.group)] if self.group is not None else []
        parts += [setting_name(self.values)] if self.values else []
        return clip(" · ".join(parts), _PANEL)


@dataclass(frozen=True)
class Line:
    """The settings that differ in the axis across only, in its order.

    value: of the line's axis, None without one. across: the axis, "" where nothing varies.
    """

    panel: Panel
    value: Any
    settings: tuple[SettingSummary, ...]
    across: str

    def points(self, metric: str) -> list[tuple[Any, Estimate]]:
        """The axis' values where the metric is known, with its estimates."""
        known = [setting for setting in self.settings if metric in setting.numbers]
        return [(one.setting.get(self.across), one.numbers[metric]) for one in known]


def lines(summary: SweepSummary, layout: Layout) -> list[Line]:
    """Every line of the plots, by panel and group and then by the line's value, as the axes have them."""
    together: dict[Any, list[SettingSummary]] = {}
    for setting in summary.settings:
        values = [setting.setting.get(name) for name in (*layout.panels, layout.line) if name]
        key = (setting.group, *map(hashable, values))
        together.setdefault(key, []).append(setting)
    across, result = layout.across or "", []
    for members in together.values():
        first = members[0].setting
        if numeric(member.setting.get(across) for member in members):
            members.sort(key=lambda member: member.setting[across])
        panel = Panel(members[0].group, {name: first.get(name) for name in layout.panels})
        result.append(Line(panel, first.get(layout.line or ""), tuple(members), across))
    return result
