"""Texts of a sweep's cells side by side: coloured by surprisal, the place marked where they part.

What is compared stands in columns: settings of one prompt and seed, or seeds of one prompt and
setting. Where columns would be too narrow the texts stand below one another, in the same colours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich.cells import cell_len

from decodecli.records.sweep import CellRecord
from decodecli.render.escaping import clip, safe_text
from decodecli.render.plots.sweep_data import constant_lines, spelt
from decodecli.render.repro_command import cell_command
from decodecli.render.terminal.step_table import Style, legend_lines
from decodecli.render.terminal.wrap import RunningText, wrap_parts
from decodecli.render.text_comparison import (
    MARK,
    Block,
    blocks,
    common,
    folded,
    parting,
    text_facts,
)
from decodecli.render.theme import level

_NARROWEST, _WIDEST = 22, 72  # cells of a column
_BETWEEN = " │ "
_LABEL = 24  # cells of a label beside a text
_FACT = 14  # cells of the longest usual fact: `first 12 alike`
_PROMPT_ROWS = 3
_PROMPT = 200  # characters of a prompt in front of its text
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def compare_lines(
    records: Sequence[CellRecord],
    style: Style,
    columns: str = "",
    *,
    varying: Collection[str] = (),
    model: Mapping[str, Any] | None = None,
) -> list[str]:
    """The texts of `records`, each line at most `style.width` cells, but for commands, which are whole.

    Args:
        records: finished cells in the order in which they are to stand.
        columns: "settings" for texts of one prompt and seed, "seeds" for those of one prompt and
            setting, "prompts" for those of one setting and seed; "" takes settings where they differ.
        varying: the options that vary in the sweep. Where they do not in `records`, their value is told.
        model: the options that say which model it was. With them each group of texts ends in the
            `decodecli generate` command that gives its first one again; None leaves that out.

    What all texts have in common stands above them. A token's colour is its probability at temperature
    1; `MARK` stands before the first token unlike the first text's.
    """
    if not records:
        return ["no cell is finished"]
    lines = [_plain(line, style) for line in constant_lines(common(records), style.width, varying)]
    prompt, groups = None, folded(blocks(records, columns))
    for block in groups:
        lines += [""] if lines else []
        lines.append(style.bold(clip(_plain(block.name, style), style.width)))
        if block.prompt is not None and block.prompt != prompt:
            running = RunningText(_PROMPT_ROWS)
            running.add(_plain(safe_text(block.prompt[-2000:]), style), style.theme.dim)
            lines += running.rows(style.width, style.theme.reset) or ["(empty prompt)"]
        prompt = block.prompt
        width = (style.width + len(_BETWEEN)) // len(block.records) - len(_BETWEEN)
        beside = len(block.records) > 1 and width >= _NARROWEST
        lines += _beside(block, min(width, _WIDEST), style) if beside else _below(block, style)
        if model is not None:  # not wrapped, so that it can be copied
            which = f"repeat {block.labels[0]}:" if len(block.records) > 1 else "repeat:"
            command = cell_command(block.records[0], model)
            lines.append(f"{style.dim(_plain(which, style))} {command}")
    legend = legend_lines(style)
    if any(block.prompt is not None and len(block.records) > 1 for block in groups):
        legend.insert(0, f"{style.accent(MARK)} the first token unlike the first text's")
    legend = [line for line in legend if cell_len(_ESCAPE.sub("", line)) <= style.width]
    return spelt([*lines, "", *legend], style)


def _beside(block: Block, width: int, style: Style) -> list[str]:
    """Columns of equal width."""
    heads, texts = [], []
    for record, label in zip(block.records, block.labels, strict=True):
        facts, rows = _facts_and_rows(block, record, width, style)
        facts = [style.dim(row) for row in wrap_parts(facts, width)]
        heads.append([style.bold(clip(_plain(label, style), width)), *facts])
        texts.append(rows)
    bar = style.dim(_BETWEEN)
    return [
        bar.join(_padded(row, width) for row in rows).rstrip()
        for part in (heads, texts)
        for rows in zip_longest(*part, fillvalue="")
    ]


def _below(block: Block, style: Style) -> list[str]:
    """One text below the other, its label and facts to the left where there is room."""
    labels = [_plain(label, style) for label in block.labels]
    indent = max(_FACT, *map(cell_len, labels)) + 2
    beside = indent <= min(_LABEL + 2, style.width // 2)
    indent = indent if beside else 2
    lines: list[str] = []
    for record, label in zip(block.records, labels, strict=True):
        facts, rows = _facts_and_rows(block, record, max(style.width - indent, 1), style)
        gutter = [style.bold(label), *(style.dim(clip(fact, indent - 2)) for fact in facts)]
        if not beside:
            lines.append(style.bold(clip(" · ".join([label, *facts]), style.width)))
            gutter = []
        pairs = zip_longest(gutter, rows, fillvalue="")
        lines += [f"{_padded(left, indent)}{row}".rstrip() for left, row in pairs]
    return lines


def _facts_and_rows(
    block: Block, record: CellRecord, width: int, style: Style
) -> tuple[list[str], list[str]]:
    """A text's facts, and the text in its colours, wrapped, the mark where it parts from the first one;
    where the prompts differ it is compared with none, and stands after its own prompt."""
    theme, running = style.theme, RunningText()
    first = record if block.prompt is None else block.records[0]
    index = None if record is first else parting(first, record)

    def add(text: str, code: str) -> None:
        running.add(_plain(safe_text(text), style), code)

    if block.prompt is None:
        cut = len(record.prompt) > _PROMPT
        add("…" + record.prompt[-_PROMPT:] if cut else record.prompt, theme.dim)
    for k, (text, logprob) in enumerate(zip(record.segments, record.logprobs, strict=False)):
        if k == index:
            running.add(MARK, theme.accent)
        add(text, theme.text[level(math.exp(logprob))])
    if index is not None and index >= len(record.segments):
        running.add(MARK, theme.accent)
    if record.error is not None or not record.token_ids:
        add(record.error or "(no text)", theme.dim)
    return text_facts(first, record), running.rows(width, theme.reset)


def _padded(row: str, width: int) -> str:
    """A row that may hold escape sequences, filled up to `width` cells."""
    return row + " " * (width - cell_len(_ESCAPE.sub("", row)))


def _plain(text: str, style: Style) -> str:
    """Text from outside in characters that the stream can carry, before it is measured."""
    return spelt([text], style)[0]
