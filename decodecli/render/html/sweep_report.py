"""A sweep as one HTML file: table, pictures, texts coloured by surprisal, what was asked.

It stands alone: no network, no library, the one small script sorts the table and filters. Everything
that comes from outside is escaped, and a content security policy forbids the rest.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappush, heappushpop
from pathlib import Path
from typing import Any

from decodecli.records.sweep import CellRecord, Estimate, SweepSummary
from decodecli.render.escaping import clip, model_title, one_line
from decodecli.render.html import asset, render
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
from decodecli.render.text_comparison import MARK, blocks, parting, text_facts
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
    prompts: dict[str, tuple[int, str]] = {}  # each with the index of its first cell

    def collected() -> Iterator[CellRecord]:
        for record in records:
            first = prompts.get(record.prompt_id, (record.index, ""))[0]
            prompts[record.prompt_id] = min(first, record.index), record.prompt
            yield record

    sample = chosen(summary, collected(), most)
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
        pictures=[
            _picture(path, summary)
            for path in map(Path, plots)
            if path.suffix.lower() in _MEDIA_TYPES
        ],
        texts=_texts(sample, summary),
        levels=LEVELS,
        mark=MARK,
        toml=toml,
    )


def _picture(path: Path, summary: SweepSummary) -> dict[str, str]:
    """The picture itself, its caption, and what it says to those who cannot see it."""
    placed = layout(summary)
    across, line = one_line(placed.across or "the settings"), one_line(placed.line or "")

    def span(axis: str | None) -> str:  # an axis' values: all where they are few, else the ends
        names = [value_name(value) for value in summary.axes.get(axis or "", ())]
        return ", ".join(names) if len(names) <= 6 else f"{names[0]} to {names[-1]}"

    kind, _, rest = path.stem.partition("-")
    each = f", a line for each {line} ({span(placed.line)})" if placed.line else ""
    over = f"{across} ({span(placed.across)})" if placed.across else across
    caption = alt = path.stem
    if kind == "metrics":
        caption = f"{'More numbers' if rest else 'The numbers'} over {across}, with 95 % intervals"
        alt = f"Line charts of the numbers over {over}{each}"
    elif kind == "heatmap":
        caption = f"The numbers over {across} and {line}" + (f": {rest}" if rest else "")
        alt = f"Heat maps of the numbers over {over} and {line} ({span(placed.line)})"
    elif path.stem == "quality-diversity":
        caption = f"Quality against diversity: a point a setting, labelled by {across}"
        alt = f"Points of quality over diversity, joined along {over}{each}"
    data = base64.b64encode(path.read_bytes()).decode()
    return {
        "source": f"data:{_MEDIA_TYPES[path.suffix.lower()]};base64,{data}",
        "caption": caption,
        "alt": f"{alt}; the table above has the numbers",
    }


def _table(summary: SweepSummary) -> dict[str, Any]:
    """Every number with its interval, a row a setting and task; numbers that are the same everywhere
    stand below."""
    with_interval, grouped = told_intervals(summary), bool(groups(summary))
    metrics, same = [], []
    for metric in shown_metrics(summary):
        estimates = [setting.numbers.get(metric.name) for setting in summary.settings]
        distinct = {None if estimate is None else estimate.value for estimate in estimates}
        if len(distinct) == 1 and len(estimates) > 1:
            same.append(f"{metric.heading} {metric.text(distinct.pop() or 0.0)}")
        else:
            metrics.append(metric)
    rows = []
    for setting in summary.settings[:ROWS]:
        values = [setting.setting.get(axis) for axis in summary.axes]
        row = [_cell(value_name(v), v if numeric([v]) else value_name(v)) for v in values]
        row += [_cell(one_line(setting.group or ""), setting.group or "")] if grouped else []
        row.append(_cell(count(setting.cells), setting.cells))
        for metric in metrics:
            estimate = setting.numbers.get(metric.name)
            row.append(_number(metric, estimate, metric.name in with_interval))
        rows.append(row)
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
        "rows": rows,
        "same": ", ".join(same),
        "left_out": len(summary.settings) - ROWS,
        "example": f"{axis_name(axis)} {value}".strip(),
    }


def _cell(text: str, value: Any, interval: str = "") -> dict[str, Any]:
    """A cell of the table. key: what the script sorts by. word: whether it is text, not a number."""
    word = not numeric([value])
    key = one_line(str(value)) if word else repr(float(value))
    return {"text": text, "key": key, "word": word, "interval": interval}


def _number(metric: Metric, estimate: Estimate | None, with_interval: bool) -> dict[str, Any]:
    if estimate is None:
        return _cell("", "") | {"word": False}
    text, interval = metric.text(estimate.value), ""
    if with_interval and estimate.low is not None and estimate.high is not None:
        ends = estimate.low, estimate.high
        if {text} != set(map(metric.text, ends)):
            # In a digit less than the number where that has three.
            interval = "…".join(
                f"{100 * end:.0f}"
                if metric.share
                else f"{end:.2f}"
                if metric.decimals == 3
                else metric.text(end)
                for end in ends
            )
    return _cell(text, estimate.value, interval)


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
    """The texts by prompt and seed, a card a setting. A text that another seed gave for the setting
    before, as a greedy one, is not shown again."""
    if not records:
        return None
    every = blocks(records)
    first_seeds: dict[Any, str] = {}
    prompts: dict[str, dict[str, Any]] = {}
    for block in every:
        cards = []
        for record, label in zip(block.records, block.labels, strict=True):
            seed = f"seed {record.params.get('seed')}"
            key = (record.prompt_id, _setting(record, summary), record.token_ids, record.error)
            first_seed = first_seeds.setdefault(key, seed)
            same = first_seed != seed
            card = {"same_as": first_seed} if same else _text(block.records[0], record)
            cards.append({"label": label, "same_as": "", **card})
        first = block.records[0]
        prompt = {"name": one_line(first.prompt_id), "text": one_line(first.prompt), "blocks": []}
        prompts.setdefault(first.prompt_id, prompt)["blocks"].append(
            {"name": block.name, "cards": cards}
        )
    return {
        "count": len(records),
        "example": every[0].labels[0],
        "prompts": list(prompts.values()),
        "open": len(every) <= _OPEN_BLOCKS,
    }


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
