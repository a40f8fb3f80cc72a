"""Texts of a sweep's cells side by side: coloured by surprisal, the place marked where they part.

What is compared stands in columns: settings of one prompt and seed, or seeds of one prompt and
setting. Where columns would be too narrow the texts stand below one another, in the same colours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from rich.cells import cell_len

from decodecli.records.sweep import CellRecord
from decodecli.render.escaping import clip, one_line, safe_text
from decodecli.render.number_format import count, decimal
from decodecli.render.plots.sweep_common import constant_lines, shortened
from decodecli.render.plots.sweep_data import frozen, joined, seeds_name, setting_name, spelt
from decodecli.render.repro_command import cell_command
from decodecli.render.terminal.step_table import Style, legend_lines
from decodecli.render.terminal.wrap import RunningText
from decodecli.render.theme import level

MARK = "▸"  # in front of the first token that differs
_NARROWEST, _WIDEST = 22, 72  # cells of a column
_BETWEEN = " │ "
_LABEL = 24  # cells of a label beside a text
_FACT = 14  # cells of the longest usual fact: `first 12 alike`
_PROMPT_ROWS = 3
_PROMPT = 200  # characters of a prompt in front of its text
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Block:
    """Texts that are compared, the first one being what the others are held against.

    name: what they have in common. prompt: theirs, None where it is what differs. labels: what each is,
    one for each record.
    """

    name: str
    prompt: str | None
    records: tuple[CellRecord, ...]
    labels: tuple[str, ...]


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
        lines += [
            *([""] if lines else []),
            style.bold(clip(_plain(block.name, style), style.width)),
        ]
        if block.prompt is not None and block.prompt != prompt:
            lines += _prompt_rows(block.prompt, style)
        prompt = block.prompt
        width = (style.width + len(_BETWEEN)) // len(block.records) - len(_BETWEEN)
        beside = len(block.records) > 1 and width >= _NARROWEST
        lines += _beside(block, min(width, _WIDEST), style) if beside else _below(block, style)
        if model is not None:  # not wrapped, so that it can be copied
            which = f"repeat {block.labels[0]}:" if len(block.records) > 1 else "repeat:"
            command = cell_command(block.records[0], model)
            lines.append(f"{style.dim(_plain(which, style))} {command}")
    marked = any(block.prompt is not None and len(block.records) > 1 for block in groups)
    return spelt([*lines, "", *_legend(style, marked)], style)


def common(records: Sequence[CellRecord]) -> dict[str, Any]:
    """The decoding values that are the same in all `records`, seeds aside."""
    apart = {*_varying(records), "seed", "greedy"}
    return {k: v for k, v in records[0].params.items() if k not in apart} if records else {}


def blocks(records: Sequence[CellRecord], columns: str = "") -> list[Block]:
    """What stands together, in the order of the records; the arguments are those of `compare_lines`."""
    varying = _varying(records)
    short = {name: shortened(record.params.get(name) for record in records) for name in varying}
    if not columns:
        columns = "settings" if varying else "seeds"

    def parts(record: CellRecord) -> dict[str, str]:
        values = _setting(record, varying)
        for name, value in values.items():
            values[name] = short[name].get(value, value) if isinstance(value, float) else value
        return {
            "prompts": record.prompt_id,
            "settings": setting_name(values),
            "seeds": f"seed {record.params.get('seed')}",
        }

    groups: dict[object, list[CellRecord]] = {}
    for record in records:
        keys = {
            "prompts": record.prompt_id,
            "settings": frozen(_setting(record, varying)),
            "seeds": record.params.get("seed"),
        }
        del keys[columns]
        groups.setdefault(tuple(keys.items()), []).append(record)
    result = []
    for members in groups.values():
        names = parts(members[0])
        del names[columns]
        if not varying:
            names.pop("settings", None)
        prompt = None if columns == "prompts" else members[0].prompt
        labels = tuple(parts(record)[columns] for record in members)
        result.append(Block(one_line(" · ".join(names.values())), prompt, tuple(members), labels))
    return result


def folded(blocks: Sequence[Block]) -> list[Block]:
    """The blocks, greedy texts that every seed repeats shown once: within a block, or whole blocks."""
    groups: dict[object, list[Block]] = {}
    for k, block in enumerate(map(_without_repeats, blocks)):
        same = (block.labels, *(_same_text(record, k) for record in block.records))
        greedy = all(map(_is_greedy, block.records))
        groups.setdefault(same if greedy else k, []).append(block)
    return [_as_one(group) for group in groups.values()]


def _as_one(same: Sequence[Block]) -> Block:
    """Blocks that differ in the seed alone as one."""
    if len(same) == 1:
        return same[0]
    first, seeds = same[0], _seeds(block.records[0] for block in same)
    name = first.name.removesuffix(f"seed {first.records[0].params.get('seed')}")
    return replace(first, name=f"{name}{seeds}: the same")


def _without_repeats(block: Block) -> Block:
    """The block, greedy records that differ in the seed alone being one."""
    groups: dict[object, list[int]] = {}
    for k, record in enumerate(block.records):
        groups.setdefault(_same_text(record, k), []).append(k)
    labels = [
        block.labels[first]
        if not others
        else f"{_seeds(block.records[k] for k in (first, *others))}: the same"
        for first, *others in groups.values()
    ]
    records = tuple(block.records[first] for first, *_ in groups.values())
    return replace(block, records=records, labels=tuple(labels))


def _same_text(record: CellRecord, index: int) -> object:
    """What greedy records that differ in the seed alone have in common; of others their `index`."""
    if not _is_greedy(record):
        return index
    setting = {name: value for name, value in record.params.items() if name != "seed"}
    return record.prompt_id, frozen(setting), record.token_ids


def _seeds(records: Iterable[CellRecord]) -> str:
    return seeds_name([record.params["seed"] for record in records]).replace("–", " to ")


def _is_greedy(record: CellRecord) -> bool:
    return record.params.get("temperature") == 0


def _varying(records: Sequence[CellRecord]) -> list[str]:
    """The options of which the records have several values, seeds aside."""
    names = dict.fromkeys(name for record in records for name in record.params)
    values = {name: {frozen({name: r.params.get(name)}) for r in records} for name in names}
    # `greedy` says again what temperature 0 says.
    apart = {"seed", *(["greedy"] if len(values.get("temperature", ())) > 1 else [])}
    return [name for name in names if name not in apart and len(values[name]) > 1]


def _setting(record: CellRecord, varying: Iterable[str]) -> dict[str, Any]:
    return {name: record.params.get(name) for name in varying}


def parting(first: CellRecord, other: CellRecord) -> int | None:
    """The index of the first token at which `other` is unlike `first`, None for equal ones.

    A text that ends where the other goes on parts from it there.
    """
    pairs = zip_longest(first.token_ids, other.token_ids)
    return next((index for index, (one, two) in enumerate(pairs) if one != two), None)


def _prompt_rows(prompt: str, style: Style) -> list[str]:
    """The end of the prompt, in a few rows."""
    running = RunningText(_PROMPT_ROWS)
    running.add(_plain(safe_text(prompt[-2000:]), style), style.theme.dim)
    return running.rows(style.width, style.theme.reset) or ["(empty prompt)"]


def _beside(block: Block, width: int, style: Style) -> list[str]:
    """Columns of equal width."""
    heads, texts = [], []
    for record, label in zip(block.records, block.labels, strict=True):
        facts = joined(text_facts(_compared_with(block, record), record), width)
        heads.append([style.bold(clip(_plain(label, style), width)), *map(style.dim, facts)])
        texts.append(_text_rows(block, record, width, style))
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
        facts = text_facts(_compared_with(block, record), record)
        rows = _text_rows(block, record, max(style.width - indent, 1), style)
        if beside:
            gutter = [style.bold(label), *(style.dim(clip(fact, indent - 2)) for fact in facts)]
            pairs = zip_longest(gutter, rows, fillvalue="")
            lines += [f"{_padded(left, indent)}{row}".rstrip() for left, row in pairs]
        else:
            lines.append(style.bold(clip(" · ".join([label, *facts]), style.width)))
            lines += [f"  {row}".rstrip() for row in rows]
    return lines


def _compared_with(block: Block, record: CellRecord) -> CellRecord:
    """The first record, or the record itself where the prompts differ."""
    return record if block.prompt is None else block.records[0]


def text_facts(first: CellRecord, record: CellRecord) -> list[str]:
    """How long it is like the first one, whether it is right, how likely it was."""
    if record.error is not None:
        return ["failed"]
    facts = []
    if record is not first:
        index = parting(first, record)
        alike = f"first {count(index)} alike" if index else "parts at once"
        facts = ["the same" if index is None else alike]
    if record.correct is not None:
        facts.append("right" if record.correct else "wrong")
    if record.mean_logprob is not None:
        facts.append(f"logprob {decimal(record.mean_logprob)}")
    return facts


def _text_rows(block: Block, record: CellRecord, width: int, style: Style) -> list[str]:
    """The text in its colours, wrapped, the mark where it parts; after its own prompt, if it has one."""
    theme, running, first = style.theme, RunningText(), _compared_with(block, record)
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
    return running.rows(max(width, 1), theme.reset)


def _legend(style: Style, marked: bool) -> list[str]:
    """What the colours and the mark mean, where there is room."""
    lines = [style.accent(MARK) + " the first token unlike the first text's"] if marked else []
    lines += legend_lines(style)
    return [line for line in lines if cell_len(_ESCAPE.sub("", line)) <= style.width]


def _padded(row: str, width: int) -> str:
    """A row that may hold escape sequences, filled up to `width` cells."""
    return row + " " * (width - cell_len(_ESCAPE.sub("", row)))


def _plain(text: str, style: Style) -> str:
    """Text from outside in characters that the stream can carry, before it is measured."""
    return spelt([text], style)[0]
