"""What the cells of a sweep have in common, in words; and values of many digits in few."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from decodecli.records.sweep import SweepSummary
from decodecli.render.escaping import clip, one_line
from decodecli.render.plots.sweep_data import axis_name, frozen, joined, value_name
from decodecli.settings import SamplingParams

_LAST = ("max_new_tokens", "bos")  # in this order, and always told
_FEWEST, _LONG = (
    3,
    5,
)  # digits that a long number has at the least; that a short one has at the most
_QUOTED = 48  # cells of a prompt in a row of facts


def constants(params: Mapping[str, Any], always_named: Collection[str] = ()) -> list[str]:
    """Values in a few words each: `T 1.4`, `top_p 0.9`, `up to 40 tokens`, `BOS auto`.

    Args:
        params: the common values by name. Of those that change nothing only the temperature is named.
        always_named: options that are named whatever their value.
    """
    neutral = SamplingParams().as_dict()
    always = ("temperature", *_LAST, *always_named)
    kept = {
        name: value
        for name, value in params.items()
        if name not in ("seed", "greedy")
        and (name in always or frozen({name: value}) != frozen({name: neutral.get(name)}))
    }
    middle = [name for name in kept if name not in ("temperature", *_LAST)]
    return [_constant(n, kept[n]) for n in ("temperature", *middle, *_LAST) if n in kept]


def _constant(name: str, value: Any) -> str:
    value = shortened([value]).get(value, value) if isinstance(value, float) else value
    if name == "max_new_tokens":
        return f"up to {value_name(value)} token{'' if value == 1 else 's'}"
    if name == "temperature" and value == 0:
        return "T 0 (greedy)"
    return f"{'BOS' if name == 'bos' else axis_name(name)} {value_name(value)}"


def constant_lines(
    params: Mapping[str, Any], width: int, always_named: Collection[str] = ()
) -> list[str]:
    """`constant: T 1.4 · up to 40 tokens`, wrapped between values."""
    return _headed("constant: ", constants(params, always_named), width)


def _headed(heading: str, parts: list[str], width: int) -> list[str]:
    rows = joined(parts, max(width - len(heading), 1))
    indented = [(" " * len(heading) if k else heading) + row for k, row in enumerate(rows)]
    return [clip(row, width) for row in indented]


def common_lines(summary: SweepSummary, width: int) -> list[str]:
    """What all cells have in common, and the prompt where there is one only, shortened."""
    lines = constant_lines(summary.constant, width)
    if summary.prompt is not None:
        lines.append(clip(f"prompt: {one_line(summary.prompt) or '(empty)'}", width))
    return lines


def common_facts(summary: SweepSummary) -> list[str]:
    """The same in parts, for one line."""
    prompt = summary.prompt
    quoted = [] if prompt is None else [f"“{clip(one_line(prompt), _QUOTED)}”"]
    return [*constants(summary.constant), *quoted]


def shortened(values: Iterable[Any]) -> dict[float, float]:
    """A number of few digits for each that has many; the others by themselves.

    The digits are as many as it takes that no two become one, three at the least.
    """
    numbers = {value for value in values if isinstance(value, float) and math.isfinite(value)}
    for digits in range(_FEWEST, 18):
        short = {v: float(f"{v:.{digits}g}") if _digits(v) > _LONG else v for v in numbers}
        if len(set(short.values())) == len(numbers):
            return short
    return {value: value for value in numbers}


def _digits(value: float) -> int:
    return len(repr(value).partition("e")[0].replace(".", "").strip("-0"))


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
