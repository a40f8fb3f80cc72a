"""Read a JSONL trace (docs/TRACE.md) one record at a time, in constant memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, BinaryIO

from decodecli.errors import DecodecliError, UsageError
from decodecli.records.field_checks import build_record, decode_line
from decodecli.records.run import SCHEMA, RunHeader, RunSummary, Step
from decodecli.settings import SamplingParams

LONGEST_LINE = 2**27  # bytes; a step that lists a vocabulary of 256 k tokens takes about half of it

Record = RunHeader | Step | RunSummary


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

    def __iter__(self) -> Iterator[Record]:
        header: RunHeader | None = None
        open_run, last = False, -1
        while line := self._file.readline(LONGEST_LINE):
            self.line += 1
            if not line.strip():
                continue
            try:
                record = _parse(line if self.line > 1 else line.removeprefix(b"\xef\xbb\xbf"))
                if isinstance(record, Step) and not open_run:
                    raise ValueError("a step that follows no run")
                if isinstance(record, RunSummary) and not open_run:
                    raise ValueError("a summary that follows no run")
                if isinstance(record, Step) and record.index <= last:
                    raise ValueError(f"index {record.index} after index {last}")
            except ValueError as error:
                whole = line.endswith(b"\n")
                if not whole and len(line) < LONGEST_LINE and header is not None:
                    self.truncated = self.line
                    return
                raise self._damaged(str(error), header is None) from None
            if isinstance(record, RunHeader):
                header, open_run, last = record, True, -1
            elif isinstance(record, Step):
                last = record.index
            else:
                open_run = False
            yield record
        if header is None:
            raise TraceError(f"{self.name} is empty", _HINT)

    def _damaged(self, what: str, first: bool) -> TraceError:
        if first and not what.startswith("schema "):
            return TraceError(f"{self.name} is not a trace: line {self.line} is {what}", _HINT)
        hint = "mend or delete the line, or record the run again"
        hint = f"this version reads schema {SCHEMA}" if what.startswith("schema ") else hint
        return TraceError(f"{self.name}, line {self.line}: {what}", hint, self.line)


_HINT = "give what generate --trace FILE or --format jsonl wrote"


def _parse(line: bytes) -> Record:
    """The record in one line; raises ValueError, with what is wrong."""
    if len(line) >= LONGEST_LINE:
        raise ValueError("longer than any record")
    found = decode_line(line)
    if not isinstance(found, dict):
        raise ValueError("no record of a run")
    return record_from_dict(found)


def record_from_dict(found: dict[str, Any]) -> Record:
    """A header, step or summary from its JSON form, as its `as_dict` gives it. Keys that this version
    does not know are left out.

    Raises:
        ValueError: a field is missing, of another type or out of range, or the schema is another.
    """
    kind = found.get("type")
    if kind == "step":
        return _step(found)
    if kind == "summary":
        return build_record(RunSummary, found)
    if kind != "run":
        raise ValueError("no record of a run")
    if found.get("schema") != SCHEMA:
        raise ValueError(f"schema {json.dumps(found.get('schema'))[:20]}")
    header = build_record(RunHeader, found)
    known = {field.name for field in fields(SamplingParams)}
    try:
        SamplingParams(**{name: v for name, v in header.params.items() if name in known})
    except UsageError as error:
        raise ValueError(f"params: {error.message.removeprefix('--')}") from None
    params = header.params
    samples = params.get("num_samples", 1)
    for name, fits in (
        ("num_samples", type(samples) is int and samples > 0),
        ("bos", params.get("bos") in (None, True, False)),
        ("system", isinstance(params.get("system"), str | None)),
    ):
        if not fits:
            raise ValueError(f"params: {name} is out of range")
    return header


def _step(found: dict[str, Any]) -> Step:
    step: Step = build_record(Step, found)
    if all(row.token_id != step.token_id for row in step.candidates):
        raise ValueError("the chosen token is not among the candidates")
    return step
