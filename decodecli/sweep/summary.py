"""Cell records → a `SweepSummary`: each setting's numbers with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from decodecli.sweep_reports import CellRecord, SweepSummary


def summarise(
    name: str,
    axes: Mapping[str, tuple[Any, ...]],
    seeds: Sequence[int],
    prompts: int,
    cells: int,
    records: Iterable[CellRecord],
) -> SweepSummary:
    """A sweep in numbers, from its records in any order.

    Args:
        name: of the model.
        axes: the values of each axis that varies, seed and prompt aside, in grid order.
        seeds, prompts, cells: what was asked for.
        records: each cell at most once; those that ended in an error are counted and left out.
    """
    raise NotImplementedError
