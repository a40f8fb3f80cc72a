"""Read a JSONL trace (docs/TRACE.md) one record at a time, in constant memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, BinaryIO

from decodecli.errors import DecodecliError, UsageError
from decodecli.records.field_checks import build_record, decode_line
from decodecli.records.run import SCHEMA, RunHeader, RunSummary, Step
from decodecli.settings import SamplingParams

LONGEST_LINE = 2**27  # bytes; a step that lists a vocabulary of 256 k tokens takes about half of it

Record = RunHeader | Step | RunSummary
_SAMPLING = {field.name for field in fields(SamplingParams)}


class TraceError(DecodecliError):
    """Something that is no trace, or is damaged; `line` counts from 1."""

    def __init__(self, message: str, hint: str = "", line: int = 0) -> None:
        super().__init__(message, hint)
        self.line = line


class TraceReader:
    """Iterate for the records of the runs in a file, each run's header before its steps.

    A last line that was cut off, as when the writer was killed or is still writing, ends the iteration
    without an error; `truncated` is then its number.

    Args:
        file: opened for reading bytes; a pipe is read as its lines come.
        name: what to call it in messages.

    Iterating raises `TraceError` at a line that is no record or out of place, with its number.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self.name = file, name
        self.line = 0  # read so far
        self.truncated: int | None = None
        self._skips = False  # whether lines are left out until a run begins

    def skip_run(self) -> None:
        """Leave out, unread, what there still is of the present run."""
        self._skips = True

    def __iter__(self) -> Iterator[Record]:
        begun = False
        last: int | None = None  # index of the run's last step; None where no run is open
        while line := self._file.readline(LONGEST_LINE):
            self.line += 1
            if not line.strip() or (self._skips and not _BEGINS_RUN.match(line)):
                continue
            self._skips = False
            try:
                record = _parse(line if self.line > 1 else line.removeprefix(b"\xef\xbb\xbf"))
                if not isinstance(record, RunHeader):
                    if last is None:
                        kind = "step" if isinstance(record, Step) else "summary"
                        raise ValueError(f"a {kind} that follows no run")
                    if isinstance(record, Step) and record.index <= last:
                        raise ValueError(f"index {record.index} after index {last}")
            except ValueError as error:
                if begun and not line.endswith(b"\n") and len(line) < LONGEST_LINE:
                    self.truncated = self.line
                    return
                raise self._damaged(error, first=not begun) from None
            begun = True
            if isinstance(record, Step):
                last = record.index
            else:
                last = -1 if isinstance(record, RunHeader) else None
            yield record
        if not begun:
            raise TraceError(f"{self.name} is empty", _HINT)

    def _damaged(self, error: ValueError, first: bool) -> TraceError:
        where = f"{self.name}, line {self.line}: {error}"
        if isinstance(error, _OtherSchema):
            return TraceError(where, f"this version reads schema {SCHEMA}", self.line)
        if first:
            return TraceError(f"{self.name} is not a trace: line {self.line} is {error}", _HINT)
        return TraceError(where, "mend or delete the line, or record the run again", self.line)


_HINT = "give what generate --trace FILE or --format jsonl wrote"


_BEGINS_RUN = re.compile(rb'\s*\{\s*"type"\s*:\s*"run"')


class _OtherSchema(ValueError):
    """A header of a schema that this version does not read."""


def _parse(line: bytes) -> Record:
    """The record in one line; raises ValueError, with what is wrong."""
    if len(line) >= LONGEST_LINE:
        raise ValueError("longer than any record")
    values = decode_line(line)
    kind = values.get("type") if isinstance(values, dict) else None
    if kind == "run":
        return _header(values)
    if kind not in ("step", "summary"):
        raise ValueError("no record of a run")
    record: Step | RunSummary = build_record(Step if kind == "step" else RunSummary, values)
    if isinstance(record, Step) and record.token_id not in [c.token_id for c in record.candidates]:
        raise ValueError("the chosen token is not among the candidates")
    return record


def sampling_params(header: RunHeader) -> SamplingParams:
    """The decoding settings that a run recorded, its own seed as they have it.

    Raises:
        UsageError: one is out of range.
    """
    return SamplingParams(
        **{name: header.params[name] for name in _SAMPLING & header.params.keys()}
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _header(values: dict[str, Any]) -> RunHeader:
    if values.get("schema") != SCHEMA:
        raise _OtherSchema(f"schema {json.dumps(values.get('schema'))[:20]}")
    header: RunHeader = build_record(RunHeader, values)
    params = header.params
    try:
        sampling_params(header)
    except UsageError as error:
        raise ValueError(f"params: {error.message.removeprefix('--')}") from None
    if params.get("num_beams", 1) != 1:
        raise ValueError("a beam search, of which only generate shows the steps")
    samples = params.get("num_samples", 1)
    for name, fits in (
        ("num_samples", type(samples) is int and samples > 0),
        ("bos", params.get("bos") in (None, True, False)),
        ("system", isinstance(params.get("system"), str | None)),
        ("what_if", _are_texts(params.get("what_if", []))),
        ("watch", _are_texts(params.get("watch", []))),
    ):
        if not fits:
            raise ValueError(f"params: {name} is out of range")
    return header
