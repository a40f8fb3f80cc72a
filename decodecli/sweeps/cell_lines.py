"""Cells as lines of JSON: read one by one, and checked, since a file may have been edited or come from
elsewhere."""

from __future__ import annotations

import json
import math
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from decodecli.errors import DecodecliError
from decodecli.records.sweep import CellRecord
from decodecli.sweeps.extend import RUNS, current
from decodecli.sweeps.grid import Grid

_LARGEST = sys.float_info.max
_MOST = 2**53  # a count beyond is none that anybody counted


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
        grid: what the folder was asked: each cell must be the one of its number there.

    Raises:
        DecodecliError: a line is no cell, or another one's; the message names the line.
    """
    return read_lines(current(folder, RUNS), grid)


def read_lines(path: Path, grid: Grid | None = None) -> Iterator[CellRecord]:
    """The same from a file of such lines, as a saved `--format jsonl` is one."""
    seen: set[int] = set()
    for line in scan(path, grid):
        if line.record is not None and line.record.index not in seen:
            if line.is_finished:
                seen.add(line.record.index)
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
    why = ""
    try:
        record = CellRecord.from_dict(json.loads(data, parse_constant=_no_number))
        why = _wrong_field(record)
        if why:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise DecodecliError(
            f"{path}: line {number} is no cell of a sweep{f': {why}' if why else ''}",
            "remove that line; its cell runs again",
        ) from None
    if grid is not None and record.index >= len(grid):
        why = f"the grid has {len(grid)}"
    elif grid is not None and (other := grid.differs(record)):
        why = f"that one has another {other}"
    if why:
        raise DecodecliError(
            f"{path}: line {number} is cell {record.index}, but {why}", "remove that line"
        )
    return record


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    value.encode()  # half a character is a ValueError
    return True


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -_LARGEST <= value <= _LARGEST


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _is_option(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_text, value))
    return value is None or isinstance(value, bool) or _is_number(value) or _is_text(value)


def _is_options(value: Any) -> bool:
    options = all(map(_is_text, value)) and all(map(_is_option, value.values()))
    return options and _is_count(value["seed"])


def _are_ids(value: Any) -> bool:
    return min(array("i", value), default=0) >= 0


def _are_logprobs(value: Any) -> bool:
    return all(map(math.isfinite, array("d", value)))


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: any(
        value is one or (type(value) is str and value == one) for one in values
    )


_FIELDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("index", "prompt_tokens", "new_tokens"), _is_count),
    **dict.fromkeys(("prompt_id", "prompt", "text"), _is_text),
    **dict.fromkeys(("task", "error"), _or_none(_is_text)),
    **dict.fromkeys(
        ("mean_logprob", "perplexity", "mean_entropy", "distinct_1", "distinct_2", "distinct_3"),
        _or_none(_is_number),
    ),
    "params": _is_options,
    "finish_reason": _one_of("stop", "length", "error"),
    "repeats": _one_of(True, False),
    "correct": _one_of(True, False, None),
    "token_ids": _are_ids,
    "logprobs": _are_logprobs,
    "segments": lambda value: all(map(_is_text, value)),
}


def _wrong_field(record: CellRecord) -> str:
    """The first field that no sweep has written like this, and what is wrong with it; "" for none."""
    for name, check in _FIELDS.items():
        try:
            fits = check(getattr(record, name))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            fits = False
        if not fits:
            return f"its {name} cannot be read"
    if (record.finish_reason == "error") != (record.error is not None):
        return "its finish_reason and its error disagree"
    lengths = {len(record.token_ids), len(record.segments), len(record.logprobs), record.new_tokens}
    if len(lengths) > 1 and record.error is None:
        return "token_ids, segments, logprobs and new_tokens disagree"
    return ""
