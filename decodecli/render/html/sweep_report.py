"""A sweep as one HTML file: table, pictures, texts coloured by surprisal, what was asked.

It stands alone: no network, no library, the one small script sorts the table and filters. Everything
that comes from outside is escaped, and a content security policy forbids the rest.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappush, heappushpop
from itertools import groupby
from pathlib import Path
from typing import Any

from decodecli.records.sweep import CellRecord, Estimate, SettingSummary, SweepSummary
from decodecli.render.escaping import clip, model_title, one_line
from decodecli.render.html.environment import asset, render
from decodecli.render.html.notebook import Span
from decodecli.render.number_format import count, percent
from decodecli.render.plots.sweep_data import (
    Metric,
    axis_name,
    constants,
    facts,
    frozen,
    group_heading,
    groups,
    layout,
    numeric,
    readable,
    shown_metrics,
    told_intervals,
    value_name,
)
from decodecli.render.text_comparison import MARK, Block, blocks, parting, text_facts
from decodecli.render.theme import LEVELS, css, level

CELLS = 400  # texts, shared among the settings
ROWS = 1000  # of the table
TOKENS = 300  # of a text
LONGEST_PROMPT = 300  # cells
_OPEN_BLOCKS = 12  # up to which every prompt's texts are unfolded
_MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


def report_html(
    summary: SweepSummary,
    records: Iterable[CellRecord],
    plots: Sequence[Path | str] = (),
    toml: str = "",
    *,
    most: int = CELLS,
) -> str:
    """The page.

    Args:
        records: finished cells in any order; of each setting the first ones of the grid are shown.
        plots: PNG or SVG files to take in; others are left out.
        toml: what was asked, shown as it is.
        most: texts at most.

    Raises:
        OSError: a plot cannot be read.
    """
    prompts: dict[str, tuple[int, str]] = {}
    sample = chosen(summary, _collect_prompts(records, prompts), most)
    summary = readable(summary)
    script = asset("sweep_report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render(
        "sweep_report.html",
        title=f"Sweep of {model_title(summary.name)}",
        css=asset("sweep_report.css", css()),
        script=script,
        script_hash=f"sha256-{digest}",
        summary=summary,
        facts=" · ".join(facts(summary)[1:]),
        constants=" · ".join(constants(summary.constant)),
        prompts=[
            (one_line(name), clip(one_line(text), LONGEST_PROMPT) or "(empty)")
            for name, (_, text) in sorted(prompts.items(), key=lambda item: item[1])
        ],
        table=_table(summary),
        pictures=[_picture(path, summary) for path in map(Path, plots) if _media_type(path)],
        texts=_texts(sample, summary),
        levels=LEVELS,
        mark=MARK,
        toml=toml,
    )


def _collect_prompts(
    records: Iterable[CellRecord], prompts: dict[str, tuple[int, str]]
) -> Iterator[CellRecord]:
    """Pass the records on, noting each prompt by its id with the index of its first cell."""
    for record in records:
        first = prompts.get(record.prompt_id, (record.index, ""))[0]
        prompts[record.prompt_id] = min(first, record.index), record.prompt
        yield record


def _media_type(path: Path) -> str | None:
    return _MEDIA_TYPES.get(path.suffix.lower())


def _picture(path: Path, summary: SweepSummary) -> dict[str, str]:
    data = base64.b64encode(path.read_bytes()).decode()
    caption, alt = _caption(path.stem, summary)
    return {"source": f"data:{_media_type(path)};base64,{data}", "caption": caption, "alt": alt}


def _caption(name: str, summary: SweepSummary) -> tuple[str, str]:
    """A picture's caption, and what it says to those who cannot see it."""
    placed = layout(summary)
    across, line = one_line(placed.across or "the settings"), one_line(placed.line or "")
    kind, _, rest = name.partition("-")
    each = f", a line for each {line} ({_span(summary, placed.line)})" if placed.line else ""
    over = f"{across} ({_span(summary, placed.across)})" if placed.across else across
    numbers = "the table above has the numbers"
    if kind == "metrics":
        caption = f"{'More numbers' if rest else 'The numbers'} over {across}, with 95 % intervals"
        return caption, f"Line charts of the numbers over {over}{each}; {numbers}"
    if kind == "heatmap":
        caption = f"The numbers over {across} and {line}" + (f": {rest}" if rest else "")
        down = f"{line} ({_span(summary, placed.line)})"
        return caption, f"Heat maps of the numbers over {over} and {down}; {numbers}"
    if name == "quality-diversity":
        caption = f"Quality against diversity: a point a setting, labelled by {across}"
        return caption, f"Points of quality over diversity, joined along {over}{each}; {numbers}"
    return name, f"{name}; {numbers}"


def _span(summary: SweepSummary, axis: str | None) -> str:
    """An axis' values: all where they are few, else the first and the last."""
    names = [value_name(value) for value in summary.axes.get(axis or "", ())]
    return ", ".join(names) if len(names) <= 6 else f"{names[0]} to {names[-1]}"


@dataclass(frozen=True)
class _Cell:
    """A cell of the table. key: what the script sorts by. word: whether it is text, not a number."""

    text: str = ""
    key: str = ""
    word: bool = False
    interval: str = ""

    @classmethod
    def of(cls, text: str, value: Any, interval: str = "") -> _Cell:
        if numeric([value]):
            return cls(text, repr(float(value)), interval=interval)
        return cls(text, one_line(str(value)), word=True)


def _table(summary: SweepSummary) -> dict[str, Any]:
    """Every number with its interval, a row a setting and task."""
    same, with_interval = _same_everywhere(summary), told_intervals(summary)
    metrics = [metric for metric in shown_metrics(summary) if metric.name not in same]
    grouped = bool(groups(summary))

    def row(setting: SettingSummary) -> list[_Cell]:
        values = [setting.setting.get(axis) for axis in summary.axes]
        cells = [_Cell.of(value_name(v), v if numeric([v]) else value_name(v)) for v in values]
        if grouped:
            cells.append(_Cell.of(one_line(setting.group or ""), setting.group or ""))
        cells.append(_Cell.of(count(setting.cells), setting.cells))
        estimates = [(metric, setting.numbers.get(metric.name)) for metric in metrics]
        return cells + [_number(m, estimate, m.name in with_interval) for m, estimate in estimates]

    heads = [
        {"name": axis_name(a), "word": not numeric(s.setting.get(a) for s in summary.settings)}
        for a in summary.axes
    ]
    heads += [{"name": group_heading(summary), "word": True}] if grouped else []
    heads.append({"name": "cells", "word": False})
    heads += [{"name": m.heading, "title": m.title, "word": False} for m in metrics]
    axis = next(iter(summary.axes), "")
    value = value_name(summary.axes[axis][0]) if axis else "a value"
    return {
        "heads": [{"title": ""} | head for head in heads],
        "rows": [row(setting) for setting in summary.settings[:ROWS]],
        "same": ", ".join(same.values()),
        "left_out": len(summary.settings) - ROWS,
        "example": f"{axis_name(axis)} {value}".strip(),
    }


def _same_everywhere(summary: SweepSummary) -> dict[str, str]:
    """The numbers that need no column, by name: `repetition 0.0%`."""
    constant = {}
    for metric in shown_metrics(summary):
        estimates = [setting.numbers.get(metric.name) for setting in summary.settings]
        values = {None if estimate is None else estimate.value for estimate in estimates}
        if len(values) == 1 and len(estimates) > 1:
            constant[metric.name] = f"{metric.heading} {metric.text(values.pop() or 0.0)}"
    return constant


def _number(metric: Metric, estimate: Estimate | None, with_interval: bool) -> _Cell:
    if estimate is None:
        return _Cell()
    value, low, high = metric.text(estimate.value), estimate.low, estimate.high
    if not with_interval or low is None or high is None:
        return _Cell.of(value, estimate.value)
    if metric.text(low) == value == metric.text(high):
        return _Cell.of(value, estimate.value)
    return _Cell.of(value, estimate.value, f"{_bound(metric, low)}…{_bound(metric, high)}")


def _bound(metric: Metric, value: float) -> str:
    """An interval's end, in a digit less than the number where that has three."""
    if metric.share:
        return f"{100 * value:.0f}"
    return f"{value:.2f}" if metric.decimals == 3 else metric.text(value)


def chosen(summary: SweepSummary, records: Iterable[CellRecord], most: int) -> list[CellRecord]:
    """The first cells of each setting in grid order, as many of each as `most` allows."""
    settings = list(dict.fromkeys(frozen(setting.setting) for setting in summary.settings))
    settings = settings[:most]
    each = max(most // max(len(settings), 1), 1)
    kept: dict[Any, list[tuple[int, CellRecord]]] = {setting: [] for setting in settings}
    for record in records:
        heap = kept.get(_setting(record, summary))
        if heap is None:
            continue
        # A heap with the latest cell on top, which an earlier one drives out.
        if len(heap) < each:
            heappush(heap, (-record.index, record))
        elif -record.index > heap[0][0]:
            heappushpop(heap, (-record.index, record))
    return sorted((record for heap in kept.values() for _, record in heap), key=lambda r: r.index)


def _setting(record: CellRecord, summary: SweepSummary) -> tuple[Any, ...]:
    return frozen({axis: record.params.get(axis) for axis in summary.axes})


def _texts(records: Sequence[CellRecord], summary: SweepSummary) -> dict[str, Any] | None:
    """The texts by prompt and seed, a card a setting."""
    if not records:
        return None
    every = blocks(records)
    seeds: dict[Any, str] = {}
    prompts = []
    for prompt_id, of_prompt in groupby(every, lambda block: block.records[0].prompt_id):
        members = list(of_prompt)
        cards = [{"name": b.name, "cards": _cards(b, summary, seeds)} for b in members]
        text = one_line(members[0].records[0].prompt)
        prompts.append({"name": one_line(prompt_id), "text": text, "blocks": cards})
    return {
        "count": len(records),
        "example": every[0].labels[0],
        "prompts": prompts,
        "open": len(every) <= _OPEN_BLOCKS,
    }


def _cards(block: Block, summary: SweepSummary, seeds: dict[Any, str]) -> list[dict[str, Any]]:
    """The block's texts. `seeds` grows by the seed that first gave each text of a setting: such a text,
    as a greedy one, is not shown again."""
    cards = []
    for record, label in zip(block.records, block.labels, strict=True):
        seed = f"seed {record.params.get('seed')}"
        key = (record.prompt_id, _setting(record, summary), record.token_ids, record.error)
        earlier = seeds.setdefault(key, seed)
        card = {"same_as": earlier} if earlier != seed else _text(block.records[0], record)
        cards.append({"label": label, "same_as": "", **card})
    return cards


def _text(first: CellRecord, record: CellRecord) -> dict[str, Any]:
    """A text's facts and tokens, those before and those after it parts from the block's first text."""
    position = None if record is first else parting(first, record)
    tokens = list(zip(record.segments, record.logprobs, strict=False))
    spans = [
        Span(text, level(math.exp(logprob)), percent(math.exp(logprob)))
        for text, logprob in tokens[:TOKENS]
    ]
    left_out = len(tokens) - TOKENS
    note = f" … {count(left_out)} tokens more" if left_out > 0 else ""
    return {
        "facts": " · ".join(text_facts(first, record)),
        "shared": [span for span in spans[:position] if span.text],
        "rest": [] if position is None else [span for span in spans[position:] if span.text],
        "parts": position is not None and (left_out <= 0 or position < TOKENS),
        "note": note + (record.error or ""),
    }
