"""`decodecli compare`: the texts of a sweep's cells side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.records.metrics import METRICS

if TYPE_CHECKING:
    from pathlib import Path

    from decodecli.records.sweep import CellRecord

FORMATS = ("text", "json")
COLUMNS = ("auto", "settings", "seeds", "prompts")
CELLS = "Cells"
MOST_SHOWN = 60

Folder = Annotated[
    str,
    typer.Argument(
        metavar="DIR_OR_FILE",
        show_default=False,
        help="The folder of a sweep, or its cells as JSON lines.",
    ),
]
PromptId = Annotated[
    list[str] | None,
    o.option("--prompt", panel=CELLS, default="all", metavar="ID",
    help="Only the cells of this prompt (repeatable)."),
]  # fmt: skip
At = Annotated[
    list[str] | None,
    o.option("--at", panel=CELLS, default="all", metavar="AXIS=V…",
    help="Only cells with these values, as temperature=0.2,1.4 (repeatable)."),
]  # fmt: skip
Seed = Annotated[
    str | None,
    o.option("--seed", panel=CELLS, default="all", metavar="S…",
    help="Only the cells of these seeds, as 0,3 or 0..4."),
]  # fmt: skip
Limit = Annotated[
    int | None,
    o.option("--limit", panel=CELLS, default=str(MOST_SHOWN), metavar="N",
    help="Show N cells at most; 0 shows all."),
]  # fmt: skip
Columns = Annotated[
    str | None,
    o.option("--columns", panel=o.OUTPUT, default="auto: settings where they differ",
    help="What stands side by side.", **o.choices(*COLUMNS)),
]  # fmt: skip
Plot = Annotated[
    str | None,
    o.option("--plot", panel=o.OUTPUT, default=None, metavar="FILE",
    help="Draw one number to a .png, .svg or .pdf instead of showing texts."),
]  # fmt: skip
METRIC_NAMES = tuple(name.replace("_", "-").removesuffix("-4") for name in METRICS)
MetricName = Annotated[
    str | None,
    o.option("--metric", panel=o.OUTPUT, default="mean-logprob",
    help=f"The number that --plot draws: {', '.join(METRIC_NAMES)}.",
    **o.choices(*METRIC_NAMES) | {"metavar": "MANIFEST"}),
]  # fmt: skip


def compare(
    folder: Folder,
    prompt: PromptId = None,
    at: At = None,
    seed: Seed = None,
    limit: Limit = None,
    columns: Columns = None,
    plot: Plot = None,
    metric: MetricName = None,
    format: o.text_or(*FORMATS) = None,  # type: ignore[valid-type]
    color: o.Color = None,
    debug: o.Debug = None,
) -> None:
    """Show the texts of a sweep side by side, coloured by probability, the place marked where they part.

    A folder is only read: it may belong to a sweep that still runs. A file is a
    runs.jsonl, or what sweep --format jsonl wrote.

    [bold]Examples[/bold]

      decodecli compare runs

      decodecli compare runs --prompt p0 --at temperature=0.2,1.4 --seed 0

      decodecli compare runs --columns seeds --at top_p=0.9

      decodecli compare runs --columns prompts --seed 0

      decodecli compare runs --plot bleu.png --metric self-bleu

      decodecli compare runs --format json | jq '.blocks[0].cells[] | [.label, .parts_at]'
    """
    import os
    from pathlib import Path

    from decodecli.errors import UsageError
    from decodecli.settings import check_choice, check_positive

    form, side = format or "text", columns or "auto"
    check_choice("format", form, FORMATS)
    check_choice("columns", side, COLUMNS)
    most = MOST_SHOWN if limit is None else check_positive("limit", limit, "0 shows all", lowest=0)
    place = Path(os.path.expanduser(folder))
    wanted = wanted_values([*(at or ()), *([f"seed={seed}"] if seed is not None else [])])
    if plot is not None:
        from decodecli.cli.commands.compare_plot import plot_cells

        plot_cells(place, prompt or (), wanted, plot, metric)
        return
    if metric is not None:
        raise UsageError("--metric goes with --plot", "add --plot FILE.png")
    chosen = chosen_cells(place, prompt or (), wanted, most)
    if not chosen.records:
        raise nothing_found(place, chosen, prompt or (), wanted)
    chosen.tell()
    show_texts(chosen, "" if side == "auto" else side, form)


def wanted_values(conditions: Sequence[str]) -> dict[str, set[Any]]:
    """The values that are wanted of each axis.

    Raises:
        UsageError: an unknown axis, or no value of its kind.
    """
    from decodecli.errors import UsageError
    from decodecli.sweeps.axes import parse_axis

    found: dict[str, set[Any]] = {}
    for condition in conditions:
        name, sign, values = condition.partition("=")
        if not sign:
            raise UsageError(
                f"--at {condition} names no value", "write it like --at temperature=0.2,1.4"
            )
        axis = name.strip().lstrip("-").replace("-", "_")
        axis = "seed" if axis == "seeds" else axis
        found.setdefault(axis, set()).update(parse_axis(axis, values))
    return found


@dataclass
class Chosen:
    """Cells that are to be shown, and what is known of the others.

    records: the first in grid order. count: how many finished cells fit. failed: those that fit and ended
    in an error. settings: the parameters of every finished cell, chosen or not, each setting once.
    prompts, seeds: of every finished cell. model: the options that say which it was, None if unknown.
    """

    records: list[CellRecord] = field(default_factory=list)
    count: int = 0
    failed: list[CellRecord] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    prompts: dict[str, None] = field(default_factory=dict)
    seeds: dict[Any, None] = field(default_factory=dict)
    model: dict[str, Any] | None = None

    @property
    def varying(self) -> list[str]:
        """The options of which the sweep has several values; `greedy` says again what T 0 says."""
        values: dict[str, set[str]] = {}
        for setting in self.settings:
            for name, value in setting.items():
                values.setdefault(name, set()).add(repr(value))
        return [name for name, found in values.items() if len(found) > 1 and name != "greedy"]

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


def chosen_cells(
    place: Path, prompts: Sequence[str], wanted: dict[str, set[Any]], most: int
) -> Chosen:
    """The cells of a folder, or of a file, that fit; at most `most` of them (0: all).

    Raises:
        UsageError: `place` has no sweep's cells.
        DecodecliError: they are damaged.
    """
    found = Chosen(model=_model_of(place))
    seen: set[str] = set()
    for record in _cells(place):
        fits = not prompts or record.prompt_id in prompts
        fits = fits and all(_has(record, name, values) for name, values in wanted.items())
        if record.error is not None:
            found.failed += [record] if fits else []
            continue
        setting = {name: value for name, value in record.params.items() if name != "seed"}
        key = repr(setting)
        if key not in seen:
            seen.add(key)
            found.settings.append(setting)
        found.prompts[record.prompt_id] = None
        found.seeds[record.params.get("seed")] = None
        if fits:
            found.count += 1
            found.records.append(record)
        if most and len(found.records) >= 2 * most:
            found.records = _first(found.records, most)
    found.records = _first(found.records, most)
    found.failed = _first(found.failed, 0)
    return found


def _first(records: list[CellRecord], most: int) -> list[CellRecord]:
    return sorted(records, key=lambda record: record.index)[: most or None]


def _has(record: CellRecord, name: str, values: set[Any]) -> bool:
    value = record.params.get(name)
    return (tuple(value) if isinstance(value, list) else value) in values


def _model_of(place: Path) -> dict[str, Any] | None:
    import os
    from dataclasses import fields

    from decodecli.settings import LoadParams
    from decodecli.sweeps.manifest import read_manifest

    is_folder = os.path.isdir(place)  # unlike Path's, never raises
    asked = read_manifest(place if is_folder else place.parent)
    if asked is None or not (is_folder or place.name == "runs.jsonl"):
        return None
    options = {item.name for item in fields(LoadParams)}
    return {name: value for name, value in asked.values.items() if name in options}


def _cells(place: Path) -> Iterator[CellRecord]:
    """The cells of a sweep's folder, or of a file of cells."""
    import os

    from decodecli.errors import DecodecliError, UsageError
    from decodecli.sweeps.axes import shortened
    from decodecli.sweeps.cell_lines import read_lines, read_records
    from decodecli.sweeps.extend import MANIFEST
    from decodecli.sweeps.grid import with_requested_bos
    from decodecli.sweeps.manifest import manifest_grid, read_manifest
    from decodecli.sweeps.store import RUNS

    if os.path.isfile(place):
        if place.name == RUNS and (place.parent / MANIFEST).is_file():
            yield from _cells(place.parent)
            return
        first = True
        try:
            for record in read_lines(place):
                first = False
                yield record
        except DecodecliError as error:
            if not first:
                raise
            hint = "give a sweep's folder, or what --format jsonl wrote"
            raise UsageError(error.message, hint) from None
        return
    if not os.path.isdir(place) or read_manifest(place) is None:
        what = "is not the folder of a sweep" if os.path.lexists(place) else "is not there"
        raise UsageError(f"{shortened(place)} {what}", "give what decodecli sweep --out made")
    grid = manifest_grid(place)
    yield from with_requested_bos(grid, read_records(place, grid))


def nothing_found(
    place: Path, chosen: Chosen, prompts: Sequence[str], wanted: dict[str, set[Any]]
) -> Exception:
    """What to say where no cell fits: why those that do failed, or the values that there are."""
    from decodecli.errors import DecodecliError, UsageError

    if chosen.failed:
        first = chosen.failed[0]
        count = len(chosen.failed)
        return DecodecliError(
            f"{'the only cell' if count == 1 else f'each of the {count:,} cells'} that fits failed",
            f"cell {first.index}: {first.error}"[:160],
        )
    if not chosen.settings:
        return DecodecliError(f"{place} has no finished cell yet", "decodecli sweep goes on there")
    said = [f"prompts are {', '.join(list(chosen.prompts)[:8])}"] if prompts else []
    for name in wanted:
        found = dict.fromkeys(repr(setting.get(name)) for setting in chosen.settings)
        shown = [repr(seed) for seed in chosen.seeds] if name == "seed" else list(found)
        said.append(f"{name} is {', '.join(sorted(shown, key=_by_number)[:8])}")
    return UsageError("no finished cell fits", f"in this sweep {'; '.join(said)}"[:160])


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def show_texts(chosen: Chosen, columns: str, format: str = "text") -> None:
    """The cells on standard output."""
    import sys

    from decodecli.cli.output import style_of, write_json, write_lines
    from decodecli.render.terminal.compare_texts import blocks, compare_lines, parting

    records = chosen.records
    if format == "text":
        style = style_of(sys.stdout)
        lines = compare_lines(records, style, columns, varying=chosen.varying, model=chosen.model)
        write_lines(lines, style)
        return
    found = []
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
        found.append({"name": block.name, "prompt": block.prompt, "cells": cells})
    write_json({"blocks": found})
