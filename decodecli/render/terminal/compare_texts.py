"""Texts of a sweep's cells side by side: coloured by surprisal, the place marked where they part.

What is compared stands in columns: settings of one prompt and seed, or seeds of one prompt and
setting. Where columns would be too narrow the texts stand below one another, in the same colours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
    found = [_plain(line, style) for line in constant_lines(common(records), style.width, varying)]
    prompt, shown = None, folded(blocks(records, columns))
    for block in shown:
        again, prompt = block.prompt == prompt, block.prompt
        found += [*([""] if found else []), *_block_lines(block, again, style)]
        if model is not None:
            found.append(_repeat_line(block, model, style))
    marked = any(block.prompt is not None and len(block.records) > 1 for block in shown)
    return spelt([*found, "", *_legend(style, marked)], style)


def common(records: Sequence[CellRecord]) -> dict[str, Any]:
    """The decoding values that are the same in all `records`, seeds aside."""
    apart = {*_varying(records), "seed", "greedy"}
    return {k: v for k, v in records[0].params.items() if k not in apart} if records else {}


def _repeat_line(block: Block, model: Mapping[str, Any], style: Style) -> str:
    """The command for the block's first text; not wrapped, so that it can be copied."""
    which = f"repeat {block.labels[0]}:" if len(block.records) > 1 else "repeat:"
    command = cell_command(block.records[0], model)
    return f"{style.theme.paint(style.theme.dim, _plain(which, style))} {command}"


def blocks(records: Sequence[CellRecord], columns: str = "") -> list[Block]:
    """What stands together, in the order of the records; the arguments are those of `compare_lines`."""
    varying, names = _varying(records), _names(records)
    if not columns:
        columns = "settings" if varying else "seeds"
    groups: dict[object, list[CellRecord]] = {}
    for record in records:
        parts = {
            "prompts": record.prompt_id,
            "settings": frozen(_setting(record, varying)),
            "seeds": record.params.get("seed"),
        }
        del parts[columns]
        groups.setdefault(tuple(parts.items()), []).append(record)
    found = []
    for members in groups.values():
        first = members[0]
        told = {
            "prompts": [record.prompt_id for record in members],
            "settings": [setting_name(names(record)) for record in members],
            "seeds": [f"seed {record.params.get('seed')}" for record in members],
        }
        labels = told.pop(columns)
        if not varying:
            told.pop("settings", None)
        name = one_line(" · ".join(part for part, *_ in told.values()))
        prompt = None if columns == "prompts" else first.prompt
        found.append(Block(name, prompt, tuple(members), tuple(labels)))
    return found


def folded(found: Sequence[Block]) -> list[Block]:
    """The blocks, greedy texts that every seed repeats shown once: within a block, or whole blocks."""
    kept: dict[object, list[Block]] = {}
    for place, block in enumerate(map(_without_repeats, found)):
        greedy = all(_is_greedy(record) for record in block.records)
        same = tuple((r.prompt_id, frozen(_but_seed(r)), r.token_ids) for r in block.records)
        kept.setdefault((block.labels, same) if greedy else place, []).append(block)
    return [_as_one(blocks) for blocks in kept.values()]


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
    for place, record in enumerate(block.records):
        same = (record.prompt_id, frozen(_but_seed(record)), record.token_ids)
        groups.setdefault(same if _is_greedy(record) else place, []).append(place)
    labels = [
        block.labels[places[0]]
        if len(places) == 1
        else f"{_seeds(block.records[place] for place in places)}: the same"
        for places in groups.values()
    ]
    records = tuple(block.records[places[0]] for places in groups.values())
    return replace(block, records=records, labels=tuple(labels))


def _seeds(records: Iterable[CellRecord]) -> str:
    return seeds_name([record.params["seed"] for record in records]).replace("–", " to ")


def _is_greedy(record: CellRecord) -> bool:
    return record.params.get("temperature") == 0


def _but_seed(record: CellRecord) -> dict[str, Any]:
    return {name: value for name, value in record.params.items() if name != "seed"}


def _varying(records: Sequence[CellRecord]) -> list[str]:
    """The options of which the records have several values, seeds aside."""
    names = dict.fromkeys(name for record in records for name in record.params)
    values = {name: {frozen({name: r.params.get(name)}) for r in records} for name in names}
    # `greedy` says again what temperature 0 says.
    told = {"seed", *(["greedy"] if len(values.get("temperature", ())) > 1 else [])}
    return [name for name in names if name not in told and len(values[name]) > 1]


def _names(records: Sequence[CellRecord]) -> Callable[[CellRecord], dict[str, Any]]:
    """A record's values of the options that vary, as they are shown: in few digits."""
    varying = _varying(records)
    short = {name: shortened(record.params.get(name) for record in records) for name in varying}

    def named(record: CellRecord) -> dict[str, Any]:
        values = _setting(record, varying)
        return {
            name: short[name].get(value, value) if isinstance(value, float) else value
            for name, value in values.items()
        }

    return named


def _setting(record: CellRecord, varying: Iterable[str]) -> dict[str, Any]:
    return {name: record.params.get(name) for name in varying}


def parting(first: CellRecord, other: CellRecord) -> int | None:
    """The place of the first token at which `other` is unlike `first`, from 0; None for equal ones.

    A text that ends where the other goes on parts from it there.
    """
    for place, (one, two) in enumerate(zip_longest(first.token_ids, other.token_ids)):
        if one != two:
            return place
    return None


def _block_lines(block: Block, again: bool, style: Style) -> list[str]:
    """The block's name, its prompt unless it is seen just above, and the texts."""
    name = clip(_plain(block.name, style), style.width)
    lines = [style.theme.paint(style.theme.bold, name)]
    if block.prompt is not None and not again:
        lines += _prompt_rows(block.prompt, style)
    many = len(block.records)
    width = (style.width - (many - 1) * len(_BETWEEN)) // many
    if many > 1 and width >= _NARROWEST:
        return [*lines, *_beside(block, min(width, _WIDEST), style)]
    return [*lines, *_below(block, style)]


def _prompt_rows(prompt: str, style: Style) -> list[str]:
    """The end of the prompt, in a few rows."""
    flow = RunningText(_PROMPT_ROWS)
    flow.add(_plain(safe_text(prompt[-2000:]), style), style.theme.dim)
    return flow.rows(style.width, style.theme.reset) or ["(empty prompt)"]


def _beside(block: Block, width: int, style: Style) -> list[str]:
    """Columns of equal width."""
    theme = style.theme
    heads, texts = [], []
    for record, label in zip(block.records, block.labels, strict=True):
        facts = joined(text_facts(_held_against(block, record), record), width)
        label = clip(_plain(label, style), width)
        heads.append([theme.paint(theme.bold, label), *(theme.paint(theme.dim, f) for f in facts)])
        texts.append(_text_rows(block, record, width, style))
    bar = theme.paint(theme.dim, _BETWEEN)
    return [
        bar.join(_padded(row, width) for row in rows).rstrip()
        for part in (heads, texts)
        for rows in zip_longest(*part, fillvalue="")
    ]


def _below(block: Block, style: Style) -> list[str]:
    """One text below the other, its label and facts to the left where there is room."""
    theme = style.theme
    labels = [_plain(label, style) for label in block.labels]
    widest = max(cell_len(label) for label in labels)
    indent = max(widest, _FACT) + 2
    beside = indent <= min(_LABEL + 2, style.width // 2)
    indent = indent if beside else 2
    lines: list[str] = []
    for record, label in zip(block.records, labels, strict=True):
        facts = text_facts(_held_against(block, record), record)
        rows = _text_rows(block, record, max(style.width - indent, 1), style)
        if beside:
            gutter = [theme.paint(theme.bold, label)]
            gutter += [theme.paint(theme.dim, clip(f, indent - 2)) for f in facts]
            pairs = zip_longest(gutter, rows, fillvalue="")
            lines += [f"{_padded(left, indent)}{row}".rstrip() for left, row in pairs]
        else:
            text = " · ".join([label, *facts])
            lines.append(theme.paint(theme.bold, clip(text, style.width)))
            lines += [f"  {row}".rstrip() for row in rows]
    return lines


def _held_against(block: Block, record: CellRecord) -> CellRecord:
    """What a record is compared with: the first one, or itself where the prompts differ."""
    return record if block.prompt is None else block.records[0]


def text_facts(first: CellRecord, record: CellRecord) -> list[str]:
    """How long it is like the first one, whether it is right, how likely it was."""
    if record.error is not None:
        return ["failed"]
    facts = []
    if record is not first:
        place = parting(first, record)
        alike = f"first {count(place)} alike" if place else "parts at once"
        facts = ["the same" if place is None else alike]
    if record.correct is not None:
        facts.append("right" if record.correct else "wrong")
    if record.mean_logprob is not None:
        facts.append(f"logprob {decimal(record.mean_logprob)}")
    return facts


def _text_rows(block: Block, record: CellRecord, width: int, style: Style) -> list[str]:
    """The text in its colours, wrapped, the mark where it parts; after its own prompt, if it has one."""
    theme, flow, first = style.theme, RunningText(), _held_against(block, record)
    place = None if record is first else parting(first, record)
    if block.prompt is None:
        prompt = record.prompt if len(record.prompt) <= _PROMPT else "…" + record.prompt[-_PROMPT:]
        flow.add(_plain(safe_text(prompt), style), theme.dim)
    for step, (text, logprob) in enumerate(zip(record.segments, record.logprobs, strict=False)):
        if step == place:
            flow.add(MARK, theme.accent)
        flow.add(_plain(safe_text(text), style), theme.text[level(math.exp(logprob))])
    if place is not None and place >= len(record.segments):
        flow.add(MARK, theme.accent)
    if record.error is not None or not record.token_ids:
        flow.add(_plain(safe_text(record.error or "(no text)"), style), theme.dim)
    return flow.rows(max(width, 1), theme.reset)


def _legend(style: Style, marked: bool) -> list[str]:
    """What the colours and the mark mean."""
    theme = style.theme
    mark = theme.paint(theme.accent, MARK) + " the first token unlike the first text's"
    lines = [mark] if marked else []
    lines += legend_lines(style)
    return [line for line in lines if line and cell_len(_ESCAPE.sub("", line)) <= style.width]


def _padded(row: str, width: int) -> str:
    """A row that may hold escape sequences, filled up to `width` cells."""
    return row + " " * (width - cell_len(_ESCAPE.sub("", row)))


def _plain(text: str, style: Style) -> str:
    """Text from outside in characters that the stream can carry, before it is measured."""
    return spelt([text], style)[0]
