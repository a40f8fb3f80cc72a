"""Cells as lines of JSON: read one by one, and checked, since a file may have been edited or come from
elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

from decodecli.errors import DecodecliError
from decodecli.records.field_checks import build_record, decode_line
from decodecli.records.sweep import CellRecord
from decodecli.sweeps.folder import RUNS, current
from decodecli.sweeps.grid import Grid


@dataclass(frozen=True)
class ScannedLine:
    """A line of `runs.jsonl` as it stands there; no record for an end that is torn."""

    record: CellRecord | None
    data: bytes
    end: int

    @property
    def is_finished(self) -> bool:
        return self.record is not None and self.record.error is None


def read_records(folder: Path, grid: Grid | None = None) -> Iterator[CellRecord]:
    """The cells of a sweep that ended, as they lie in its folder; a torn end is passed over.

    Args:
        grid: of the sweep: each cell must be the one of its number there. Where both auto and another
            `bos` were asked for, its records have what was asked, not what auto came to: two settings
            would become one.

    Raises:
        DecodecliError: a line is no cell, or another one's; the message names the line.
    """
    records = read_lines(current(folder, RUNS), grid)
    if grid is None or grid.axes["bos"] == (None,) or None not in grid.axes["bos"]:
        return records
    return (replace(x, params={**x.params, "bos": grid[x.index].bos}) for x in records)


def read_lines(path: Path, grid: Grid | None = None) -> Iterator[CellRecord]:
    """The cells of a file of such lines, as a saved `--format jsonl` is one."""
    finished: set[int] = set()
    for line in scan(path, grid):
        if line.record is not None and line.record.index not in finished:
            if line.is_finished:
                finished.add(line.record.index)
            yield line.record


def scan(path: Path, grid: Grid | None = None) -> Iterator[ScannedLine]:
    """Every line, the torn end last. A line is torn when it does not end, or holds the zeros that a
    power failure leaves; what follows zeros was not synced either."""
    end = 0
    finished: dict[int, tuple[int, int]] = {}  # by cell: the line's number and hash
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would wait for ever
            raise OSError(0, "it is not a file")
        with path.open("rb") as file:
            for number, data in enumerate(file, start=1):
                end += len(data)
                if not data.endswith(b"\n") or b"\0" in data:
                    yield ScannedLine(None, data, end)
                    return
                line = ScannedLine(_parsed(data, path, number, grid), data, end)
                if line.is_finished and line.record is not None:
                    this = number, hash(data)
                    first = finished.setdefault(line.record.index, this)
                    if first[1] != this[1]:
                        raise DecodecliError(
                            f"{path}: line {number} is cell {line.record.index} again, with other "
                            f"values than in line {first[0]}",
                            "remove one of the two lines",
                        )
                yield line
    except FileNotFoundError:
        return
    except OSError as error:
        raise DecodecliError(
            f"{path} cannot be read: {error.strerror}", "check the disk"
        ) from error


def _parsed(data: bytes, path: Path, number: int, grid: Grid | None) -> CellRecord:
    try:
        record = _checked(decode_line(data), b"\\u" in data)
    except ValueError as error:
        raise DecodecliError(
            f"{path}: line {number} is no cell of a sweep: {error}",
            "remove that line; its cell runs again",
        ) from None
    problem = None
    if grid is not None and record.index >= len(grid):
        problem = f"the grid has {len(grid)}"
    elif grid is not None and (difference := grid.differs(record)):
        problem = f"that one has another {difference}"
    if problem:
        raise DecodecliError(
            f"{path}: line {number} is cell {record.index}, but {problem}", "remove that line"
        )
    return record


def _checked(values: Any, has_escapes: bool) -> CellRecord:
    """The record; raises ValueError for values that no sweep has written."""
    if has_escapes:
        json.dumps(values, ensure_ascii=False).encode()  # half a character is a ValueError
    record: CellRecord = build_record(CellRecord, values)
    for name, value in record.params.items():
        if not all(map(_is_option, value if isinstance(value, list) else [value])):
            raise ValueError(f"{name} in its params is out of range")
    if not _is_option(record.params.get("seed"), (int,)):
        raise ValueError("its params have no seed")
    if (record.finish_reason == "error") != (record.error is not None):
        raise ValueError("its finish_reason and its error disagree")
    if record.finish_reason not in ("stop", "length", "error"):
        raise ValueError("finish_reason is out of range")
    lengths = {len(record.token_ids), len(record.segments), len(record.logprobs), record.new_tokens}
    if len(lengths) > 1 and record.error is None:
        raise ValueError("token_ids, segments, logprobs and new_tokens disagree")
    return record


def _is_option(value: Any, kinds: tuple[type, ...] = (int, float, str, bool, NoneType)) -> bool:
    """Whether a value is of these kinds and, if a number, one that can be computed with."""
    return type(value) in kinds and (
        type(value) not in (int, float) or abs(value) <= sys.float_info.max
    )
