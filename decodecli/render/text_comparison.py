"""Cells of a sweep grouped for a comparison: which texts stand together, what they are called, and where
they part. The terminal and the report draw these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from decodecli.records.sweep import CellRecord
from decodecli.render.escaping import one_line
from decodecli.render.number_format import count, decimal
from decodecli.render.plots.sweep_data import frozen, seeds_name, setting_name, shortened

MARK = "▸"  # in front of the first token that differs


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


def common(records: Sequence[CellRecord]) -> dict[str, Any]:
    """The decoding values that are the same in all `records`, seeds aside."""
    apart = {*_varying(records), "seed", "greedy"}
    return {k: v for k, v in records[0].params.items() if k not in apart} if records else {}


def blocks(records: Sequence[CellRecord], columns: str = "") -> list[Block]:
    """Group records for comparison, in their order; the arguments are those of `compare_lines`."""
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


def text_facts(first: CellRecord, record: CellRecord) -> list[str]:
    """The tokens shared with the first text, whether the answer is right, and the mean logprob."""
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
