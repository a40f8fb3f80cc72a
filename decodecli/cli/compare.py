"""`decodecli compare`: the texts of a sweep's cells side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decodecli.cli import options as o
from decodecli.cli import streams

if TYPE_CHECKING:
    from pathlib import Path

    from decodecli.sweep_reports import CellRecord

FORMATS = ("text", "json")
COLUMNS = ("auto", "settings", "seeds")
CELLS = "Cells"
MOST_SHOWN = 60

Folder = Annotated[
    str, typer.Argument(metavar="DIR", show_default=False, help="The folder of a sweep.")
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


def compare(
    folder: Folder,
    prompt: PromptId = None,
    at: At = None,
    seed: Seed = None,
    limit: Limit = None,
    columns: Columns = None,
    format: o.text_or(*FORMATS) = None,  # type: ignore[valid-type]
    debug: o.Debug = None,
) -> None:
    """Show the texts of a sweep side by side, coloured by probability, the place marked where they part.

    The folder is only read: it may belong to a sweep that still runs.

    [bold]Examples[/bold]

      decodecli compare runs

      decodecli compare runs --prompt p0 --at temperature=0.2,1.4 --seed 0

      decodecli compare runs --columns seeds --at top_p=0.9

      decodecli compare runs --format json | jq '.blocks[0].cells[] | [.label, .parts_at]'
    """
    from pathlib import Path

    from decodecli.settings import check_choice, check_positive

    chosen, side = format or "text", columns or "auto"
    check_choice("format", chosen, FORMATS)
    check_choice("columns", side, COLUMNS)
    most = MOST_SHOWN if limit is None else check_positive("limit", limit, "0 shows all", lowest=0)
    place = Path(folder).expanduser()
    wanted = wanted_values([*(at or ()), *([f"seed={seed}"] if seed is not None else [])])
    records, count = chosen_cells(place, prompt or (), wanted, most)
    if not records:
        raise _nothing_found(place, prompt or (), wanted)
    if count > len(records):
        streams.tell(
            f"Note: {len(records):,} of {count:,} cells are shown; choose with --prompt, --at and "
            "--seed, or --limit 0 for all"
        )
    show_texts(records, "" if side == "auto" else side, chosen)


def wanted_values(conditions: Sequence[str]) -> dict[str, set[Any]]:
    """The values that are wanted of each axis.

    Raises:
        UsageError: an unknown axis, or no value of its kind.
    """
    from decodecli.errors import UsageError
    from decodecli.sweep.axes import parse_axis

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


def chosen_cells(
    folder: Path, prompts: Sequence[str], wanted: dict[str, set[Any]], most: int
) -> tuple[list[CellRecord], int]:
    """The finished cells that fit, the first `most` in grid order (0: all), and how many there are.

    Raises:
        UsageError: `folder` is no sweep's.
        DecodecliError: it is damaged.
    """
    from decodecli.errors import UsageError
    from decodecli.sweep.asked import read_found

    if not folder.is_dir() or read_found(folder) is None:
        what = "is no folder of a sweep" if folder.is_dir() else "is not there"
        raise UsageError(f"{folder} {what}", "give what decodecli sweep --out made")
    found: list[CellRecord] = []
    count = 0
    for record in _fitting(folder, prompts, wanted):
        found.append(record)
        count += 1
        if most and len(found) >= 2 * most:
            found = _first(found, most)
    return _first(found, most), count


def _first(records: list[CellRecord], most: int) -> list[CellRecord]:
    return sorted(records, key=lambda record: record.index)[: most or None]


def _fitting(
    folder: Path, prompts: Sequence[str], wanted: dict[str, set[Any]]
) -> Iterator[CellRecord]:
    from decodecli.sweep.store import read_records

    for record in read_records(folder):
        if record.error is not None or (prompts and record.prompt_id not in prompts):
            continue
        if all(_plain(record.params.get(name)) in values for name, values in wanted.items()):
            yield record


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _nothing_found(folder: Path, prompts: Sequence[str], wanted: dict[str, set[Any]]) -> Exception:
    """What to say where no cell fits: the values that the sweep has."""
    from decodecli.errors import DecodecliError, UsageError
    from decodecli.sweep.grid import read_grid

    if not prompts and not wanted:
        return DecodecliError(f"{folder} has no finished cell yet", "decodecli sweep goes on there")
    asked = read_grid(folder / "sweep.toml")
    said = [", ".join(prompt.id for prompt in asked.prompts[:8])] if prompts else []
    names = ["prompts are "] if prompts else []
    for name in wanted:
        values = asked.values.get(name, ())
        names.append(f"{name} is ")
        said.append(", ".join(str(value) for value in list(values)[:8]))
    hint = "; ".join(f"{name}{values}" for name, values in zip(names, said, strict=True))
    return UsageError("no finished cell fits", f"in this sweep {hint}"[:160])


def show_texts(records: Sequence[CellRecord], columns: str, format: str = "text") -> None:
    """The cells on standard output."""
    import sys

    from decodecli.cli.reporting import style_of, write_json, write_lines
    from decodecli.views.compare import blocks, compare_lines, parting

    if format == "text":
        style = style_of(sys.stdout)
        write_lines(compare_lines(records, style, columns), style)
        return
    found = []
    for block in blocks(records, columns):
        first = block.records[0]
        cells = [
            {"label": label, "parts_at": parting(first, record), **record.as_dict()}
            for label, record in zip(block.labels, block.records, strict=True)
        ]
        found.append({"name": block.name, "prompt": block.prompt, "cells": cells})
    write_json({"blocks": found})
