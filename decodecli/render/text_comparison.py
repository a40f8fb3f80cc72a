"""Cells of a sweep grouped for a comparison: which texts stand together, what they are called, and where
they part. The terminal and the report draw these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from decodecli.records.sweep import CellRecord, varying_options
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
    apart = {*varying_options(record.params for record in records), "seed", "greedy"}
    return {k: v for k, v in records[0].params.items() if k not in apart} if records else {}


def blocks(records: Sequence[CellRecord], columns: str = "") -> list[Block]:
    """Group records for comparison, in their order; the arguments are those of `compare_lines`."""
    varying = varying_options(record.params for record in records)
    short = {name: shortened(record.params.get(name) for record in records) for name in varying}
    columns = columns or ("settings" if varying else "seeds")
    groups: dict[object, list[tuple[CellRecord, dict[str, str]]]] = {}
    for record in records:
        setting = {name: record.params.get(name) for name in varying}
        seed = record.params.get("seed")
        keys = {"prompts": record.prompt_id, "settings": frozen(setting), "seeds": seed}
        for name, value in setting.items():
            setting[name] = short[name].get(value, value) if isinstance(value, float) else value
        names = {
            "prompts": record.prompt_id,
            "settings": setting_name(setting),
            "seeds": f"seed {seed}",
        }
        key = tuple(keys[part] for part in keys if part != columns)
        groups.setdefault(key, []).append((record, names))
    result = []
    for members in groups.values():
        first, names = members[0]
        unnamed = (columns,) if varying else (columns, "settings")
        name = one_line(" · ".join(names[part] for part in names if part not in unnamed))
        prompt = None if columns == "prompts" else first.prompt
        labels = tuple(names[columns] for _, names in members)
        result.append(Block(name, prompt, tuple(record for record, _ in members), labels))
    return result


def folded(blocks: Sequence[Block]) -> list[Block]:
    """The blocks, greedy texts that every seed repeats shown once: within a block, or whole blocks."""
    groups: dict[object, list[Block]] = {}
    for k, block in enumerate(blocks):
        same: dict[object, list[int]] = {}
        for n, record in enumerate(block.records):
            same.setdefault(_same_text(record, (k, n)), []).append(n)
        labels = tuple(
            block.labels[first]
            if not others
            else f"{_seeds(block.records[n] for n in (first, *others))}: the same"
            for first, *others in same.values()
        )
        records = tuple(block.records[first] for first, *_ in same.values())
        once = replace(block, records=records, labels=labels)
        groups.setdefault((labels, *same), []).append(once)
    result = []
    for first, *others in groups.values():
        if others:  # blocks that differ in the seed alone
            name = first.name.removesuffix(f"seed {first.records[0].params.get('seed')}")
            seeds = _seeds(block.records[0] for block in (first, *others))
            first = replace(first, name=f"{name}{seeds}: the same")
        result.append(first)
    return result


def _same_text(record: CellRecord, key: object) -> object:
    """What greedy records that differ in the seed alone have in common; of others their `key`."""
    if record.params.get("temperature") != 0:
        return key
    setting = {name: value for name, value in record.params.items() if name != "seed"}
    return record.prompt_id, frozen(setting), record.token_ids


def _seeds(records: Iterable[CellRecord]) -> str:
    return seeds_name([record.params["seed"] for record in records]).replace("–", " to ")


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
