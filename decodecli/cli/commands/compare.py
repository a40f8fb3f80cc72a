"""`decodecli compare`: the texts of a sweep's cells side by side, or one of their numbers drawn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.cli.command import OUTPUT, Argument, Option, command
from decodecli.errors import UsageError
from decodecli.ranges import check_choice, check_positive
from decodecli.records.metrics import METRICS

if TYPE_CHECKING:
    from decodecli.records.sweep import CellRecord, SweepSummary

FORMATS = ("text", "json")
COLUMNS = ("auto", "settings", "seeds", "prompts")
CELLS = "Cells"
DEFAULT_METRIC = "mean-logprob"
METRIC_OPTIONS = tuple(name.replace("_", "-").removesuffix("-4") for name in METRICS)

FOLDER = Argument(
    "folder", "DIR_OR_FILE", "The folder of a sweep, or its cells as JSON lines.", required=True
)
CHOICE = (
    Option("prompt", str, CELLS, "Only the cells of this prompt (repeatable).", "ID", "all",
           several=True),
    Option("at", str, CELLS, "Only cells with these values, as temperature=0.2,1.4 (repeatable).",
           "AXIS=V…", "all", several=True),
    Option("seed", str, CELLS, "Only the cells of these seeds, as 0,3 or 0..4.", "S…", "all"),
    Option("limit", int, CELLS, "Show N cells at most; 0 shows all.", "N", str(o.MOST_CELLS)),
)  # fmt: skip
SIDE_BY_SIDE = Option(
    "columns", str, OUTPUT, "What stands side by side.",
    default="auto: settings where they differ", choices=COLUMNS
)  # fmt: skip
PLOT = o.PLOT.but(help="Draw one number to a .png, .svg or .pdf instead of showing texts.")
METRIC = Option(
    "metric", str, OUTPUT, f"The number that --plot draws: {', '.join(METRIC_OPTIONS)}.", "NAME",
    DEFAULT_METRIC, choices=METRIC_OPTIONS
)  # fmt: skip


@command(FOLDER, *CHOICE, SIDE_BY_SIDE, PLOT, METRIC, o.format_of(*FORMATS), o.COLOR, o.DEBUG)
def compare(
    folder: str,
    prompt: tuple[str, ...] = (),
    at: tuple[str, ...] = (),
    seed: str | None = None,
    limit: int = o.MOST_CELLS,
    columns: str = "auto",
    plot: str | None = None,
    metric: str | None = None,
    format: str = "text",
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
    from decodecli.cli.cell_selection import (
        nothing_fits,
        select_cells,
        show_texts,
        wanted_values,
    )

    check_choice("format", format, FORMATS)
    check_choice("columns", columns, COLUMNS)
    check_positive("limit", limit, "0 shows all", lowest=0)
    path = Path(os.path.expanduser(folder))
    wanted = wanted_values([*at, *([f"seed={seed}"] if seed is not None else [])])
    if plot is None and metric is not None:
        raise UsageError("--metric goes with --plot", "add --plot FILE.png")
    metric = metric or DEFAULT_METRIC
    if metric not in METRIC_OPTIONS:
        from decodecli.config import nearest

        near = nearest(metric, METRIC_OPTIONS)
        hint = f"did you mean {near}? " if near else ""
        raise UsageError(f"--metric {metric}: no such number", f"{hint}compare --help names them")
    if plot is not None:
        from decodecli.render.plots.figure_file import check_suffix

        check_suffix(plot, "for example self-bleu.png")
    selection = select_cells(path, prompt, wanted, limit if plot is None else 0)
    if not selection.records:
        raise nothing_fits(path, selection, prompt, wanted)
    if plot is None:
        selection.tell()
        show_texts(selection, "" if columns == "auto" else columns, format)
        return
    from decodecli.render.plots.sweep import draw_metric

    name = METRICS[METRIC_OPTIONS.index(metric)]
    draw_metric(_summary(path, selection.records), plot, name)
    streams.tell(f"{metric} of {len(selection.records):,} cells drawn to {plot}")


def _summary(path: Path, records: Sequence[CellRecord]) -> SweepSummary:
    from decodecli.records.sweep import varying_options
    from decodecli.sweeps.manifest import read_manifest
    from decodecli.sweeps.summary import summarise

    manifest = read_manifest(path if os.path.isdir(path) else path.parent)
    name = str(manifest.model.get("name", "")) if manifest else ""
    varying = varying_options(record.params for record in records)
    seeds = list(dict.fromkeys(record.params["seed"] for record in records))
    prompts = len({record.prompt_id for record in records})
    return summarise(name or path.name, varying, seeds, prompts, len(records), records)
