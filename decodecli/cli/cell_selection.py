"""The cells of a sweep that `compare` and `sweep --show` show: those that fit, in grid order."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from decodecli.cli import streams
from decodecli.cli.output import style_of, write_json, write_lines
from decodecli.errors import DecodecliError, UsageError
from decodecli.records.sweep import CellRecord, varying_options
from decodecli.settings import LoadParams
from decodecli.sweeps.axes import parse_axis, shortened
from decodecli.sweeps.cell_lines import read_lines, read_records
from decodecli.sweeps.folder import MANIFEST, RUNS
from decodecli.sweeps.manifest import manifest_grid, read_manifest


def wanted_values(conditions: Sequence[str]) -> dict[str, set[Any]]:
    """The values that are wanted of each axis.

    Raises:
        UsageError: an unknown axis, or no value of its kind.
    """
    wanted: dict[str, set[Any]] = {}
    for condition in conditions:
        name, sign, values = condition.partition("=")
        if not sign:
            raise UsageError(
                f"--at {condition} names no value", "write it like --at temperature=0.2,1.4"
            )
        axis = name.strip().lstrip("-").replace("-", "_")
        axis = "seed" if axis == "seeds" else axis
        wanted.setdefault(axis, set()).update(parse_axis(axis, values))
    return wanted


@dataclass
class Selection:
    """Cells that are to be shown, and what is known of the others.

    records: the first in grid order. count: how many finished cells fit. failed: those that fit and ended
    in an error. settings: the parameters of every finished cell, chosen or not, by how each is written.
    prompts, seeds: of every finished cell. model: the options that say which it was, None if unknown.
    """

    records: list[CellRecord] = field(default_factory=list)
    count: int = 0
    failed: list[CellRecord] = field(default_factory=list)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    prompts: dict[str, None] = field(default_factory=dict)
    seeds: dict[Any, None] = field(default_factory=dict)
    model: dict[str, Any] | None = None

    @property
    def varying(self) -> list[str]:
        """The options of which the sweep has several values."""
        return list(varying_options(self.settings.values()))

    def tell(self) -> None:
        """Say on stderr what is not shown."""
        if self.count > len(self.records):
            streams.tell(
                f"Note: {len(self.records):,} of {self.count:,} cells are shown; choose with --prompt, "
                "--at and --seed, or --limit 0 for all"
            )
        if self.failed:
            first, more = self.failed[0], len(self.failed) - 1
            streams.tell(
                f"Note: cell {first.index} of {first.prompt_id} failed and is not shown"
                + (f", nor {more:,} more" if more else "")
                + f": {first.error}"
            )


def select_cells(
    path: Path, prompts: Sequence[str], wanted: dict[str, set[Any]], most: int
) -> Selection:
    """The cells of a folder, or of a file, that fit; at most `most` of them (0: all).

    Raises:
        UsageError: `path` has no sweep's cells.
        DecodecliError: they are damaged.
    """
    selection = Selection()
    is_folder = os.path.isdir(path)  # unlike Path's, never raises
    manifest = read_manifest(path if is_folder else path.parent)
    if manifest is not None and (is_folder or path.name == RUNS):
        options = {item.name for item in fields(LoadParams)}
        selection.model = {k: v for k, v in manifest.values.items() if k in options}
    for record in _cells(path):
        fits = not prompts or record.prompt_id in prompts
        for name, values in wanted.items():
            value = record.params.get(name)
            fits = fits and (tuple(value) if isinstance(value, list) else value) in values
        if record.error is not None:
            selection.failed += [record] if fits else []
            continue
        setting = {name: value for name, value in record.params.items() if name != "seed"}
        selection.settings.setdefault(repr(setting), setting)
        selection.prompts[record.prompt_id] = None
        selection.seeds[record.params.get("seed")] = None
        if fits:
            selection.count += 1
            selection.records.append(record)
        if most and len(selection.records) >= 2 * most:
            selection.records = _first(selection.records, most)
    selection.records = _first(selection.records, most)
    selection.failed = _first(selection.failed, 0)
    return selection


def _first(records: list[CellRecord], most: int) -> list[CellRecord]:
    return sorted(records, key=lambda record: record.index)[: most or None]


def _cells(path: Path) -> Iterator[CellRecord]:
    """The cells of a sweep's folder, or of a file of cells."""
    if os.path.isfile(path):
        if path.name == RUNS and (path.parent / MANIFEST).is_file():
            yield from _cells(path.parent)
            return
        records = read_lines(path)
        try:
            first = next(records, None)
        except DecodecliError as error:
            hint = "give a sweep's folder, or what --format jsonl wrote"
            raise UsageError(error.message, hint) from None
        if first is not None:
            yield first
        yield from records
        return
    if not os.path.isdir(path) or read_manifest(path) is None:
        what = "is not the folder of a sweep" if os.path.lexists(path) else "is not there"
        raise UsageError(f"{shortened(path)} {what}", "give what decodecli sweep --out made")
    yield from read_records(path, manifest_grid(path))


def nothing_fits(
    path: Path, selection: Selection, prompts: Sequence[str], wanted: dict[str, set[Any]]
) -> Exception:
    """What to say where no cell fits: why those that do failed, or the values that there are."""
    if selection.failed:
        first = selection.failed[0]
        count = len(selection.failed)
        return DecodecliError(
            f"{'the only cell' if count == 1 else f'each of the {count:,} cells'} that fits failed",
            f"cell {first.index}: {first.error}"[:160],
        )
    if not selection.settings:
        return DecodecliError(f"{path} has no finished cell yet", "decodecli sweep goes on there")
    axes = [f"prompts are {', '.join(list(selection.prompts)[:8])}"] if prompts else []
    for name in wanted:
        values = dict.fromkeys(repr(setting.get(name)) for setting in selection.settings.values())
        values = dict.fromkeys(map(repr, selection.seeds)) if name == "seed" else values
        axes.append(f"{name} is {', '.join(sorted(values, key=_by_number)[:8])}")
    return UsageError("no finished cell fits", f"in this sweep {'; '.join(axes)}"[:160])


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def show_texts(selection: Selection, columns: str, format: str = "text") -> None:
    """The cells on standard output."""
    from decodecli.render.terminal.compare_texts import compare_lines
    from decodecli.render.text_comparison import blocks, parting

    records = selection.records
    if format == "text":
        style = style_of(sys.stdout)
        lines = compare_lines(
            records, style, columns, varying=selection.varying, model=selection.model
        )
        write_lines(lines, style)
        return
    entries = []
    for block in blocks(records, columns):
        first = block.records[0]
        cells = [
            {
                "label": label,
                "parts_at": parting(first, record) if block.prompt is not None else None,
                **record.as_dict(),
            }
            for label, record in zip(block.labels, block.records, strict=True)
        ]
        entries.append({"name": block.name, "prompt": block.prompt, "cells": cells})
    write_json({"blocks": entries})
