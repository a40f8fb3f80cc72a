"""`compare --plot`: one number of a sweep's chosen cells as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decodecli.cli import streams
from decodecli.cli.commands.compare import chosen_cells, nothing_found
from decodecli.config import nearest
from decodecli.errors import UsageError
from decodecli.records.metrics import METRICS
from decodecli.records.sweep import CellRecord, SweepSummary
from decodecli.render.plots.distribution import check_suffix
from decodecli.render.plots.sweep import draw_metric, metric_option
from decodecli.sweeps.manifest import read_manifest
from decodecli.sweeps.summary import summarise

DEFAULT = "mean-logprob"


def metric_named(option: str) -> str:
    """The number of `METRICS` that `--metric` names.

    Raises:
        UsageError: there is none.
    """
    names = {metric_option(name): name for name in METRICS}
    if option not in names:
        near = nearest(option, names)
        hint = f"did you mean {near}? " if near else ""
        raise UsageError(f"--metric {option}: no such number", f"{hint}compare --help names them")
    return names[option]


def plot_cells(
    place: Path, prompts: Sequence[str], wanted: dict[str, set[Any]], path: str, metric: str | None
) -> None:
    """Draw a number of the cells that fit, of all of them, over the first option that varies.

    Raises:
        UsageError: an unknown number or suffix; no cell fits, or they do not have the number.
        DecodecliError: the cells are damaged, or the picture cannot be written.
    """
    name = metric_named(metric or DEFAULT)
    check_suffix(path, "for example self-bleu.png")
    chosen = chosen_cells(place, prompts, wanted, 0)
    if not chosen.records:
        raise nothing_found(place, chosen, prompts, wanted)
    draw_metric(_summary(place, chosen.records), path, name)
    streams.tell(f"{metric or DEFAULT} of {len(chosen.records):,} cells drawn to {path}")


def _summary(place: Path, records: Sequence[CellRecord]) -> SweepSummary:
    found = read_manifest(place if os.path.isdir(place) else place.parent)
    name = str(found.model.get("name", "")) if found else ""
    axes: dict[str, dict[Any, None]] = {}
    for record in records:
        for option, value in record.params.items():
            key = tuple(value) if isinstance(value, list) else value
            axes.setdefault(option, {})[key] = None
    seeds = list(axes.pop("seed"))
    axes.pop("greedy", None)
    varying = {option: tuple(values) for option, values in axes.items() if len(values) > 1}
    prompts = len({record.prompt_id for record in records})
    return summarise(name or place.name, varying, seeds, prompts, len(records), records)
