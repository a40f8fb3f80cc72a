"""Reading a trace: every record comes back as it was written, and damage is named by its line."""

from __future__ import annotations

import io
import json
import tracemalloc
from dataclasses import replace

import pytest

from decodecli.errors import DecodecliError
from decodecli.records.json_lines import step_json_line, to_json_line
from decodecli.records.run import (
    Candidate,
    ModelInfo,
    RunHeader,
    RunSummary,
    Step,
)
from decodecli.records.trace import TraceReader

MODEL = ModelInfo("builtin", None, 6_000_000, 4096, "float32", "cpu", "none")
HEADER = RunHeader(
    "0.1.0", {"python": "3.12"}, MODEL, "Hi\u2028", (1, 2), {"temperature": 0.7, "stop": ["."]},
    {"temperature": "flag"}, ("temperature", "top_p"), 3,
)  # fmt: skip
ROWS = (
    Candidate(1, 5, "▁a", 2.5, -0.5, -0.25, 0.75, -0.0, None),
    Candidate(2, 7, 'x"\x1b', 1e-7, -3.0, -4.5, 0.8, None, "top_p"),
)
STEP = Step(0, 2, 5, "▁a", " a", 1, 2.5, -0.5, -0.25, -0.0, 1.25, 0.0, 1, ROWS)
SUMMARY = RunSummary(" a", (5,), "length", 2, 1, -0.5, 1.6, {"load": 0.1, "decode": 0.2}, None)


def line_of(record) -> bytes:
    text = step_json_line(record) if isinstance(record, Step) else to_json_line(record.as_dict())
    return text.encode() + b"\n"


TRACE = [line_of(record) for record in (HEADER, STEP, replace(STEP, index=1), SUMMARY)]


def read(data: bytes):
    reader = TraceReader(io.BytesIO(data), "run.jsonl")
    return list(reader), reader


def test_every_record_comes_back_as_it_was_written():
    records, reader = read(b"".join(TRACE * 2))
    assert records == [HEADER, STEP, replace(STEP, index=1), SUMMARY] * 2
    assert [line_of(record) for record in records] == TRACE * 2
    assert reader.truncated is None


def test_a_byte_order_mark_and_windows_line_ends_are_read():
    assert len(read(b"\xef\xbb\xbf" + b"".join(TRACE).replace(b"\n", b"\r\n"))[0]) == 4


def test_a_last_line_that_was_cut_off_is_left_out():
    whole = b"".join(TRACE[:2])
    for length in range(1, len(TRACE[2]) - 1):
        records, reader = read(whole + TRACE[2][:length])
        assert (len(records), reader.truncated) == (2, 3)
    records, reader = read(b"".join(TRACE)[:-1])  # only the line end is missing
    assert (len(records), reader.truncated) == (4, None)


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"hello\n", b"{}\n", b"[]\n", b"\x89PNG\r\n", b"\xff\n", b"[" * 100_000 + b"\n",
     TRACE[1], TRACE[3], b'{"type":"run"', b'{"type":"run","schema":1}\n', b"1" * 5000 + b"\n"],
)  # fmt: skip
def test_what_is_no_trace_is_told(data):
    with pytest.raises(DecodecliError, match=r"run\.jsonl is (not a trace|empty)"):
        read(data)


def test_another_schema_is_told():
    with pytest.raises(DecodecliError, match=r"schema 2.*reads schema 1"):
        read(TRACE[0].replace(b'"schema":1', b'"schema":2'))


@pytest.mark.parametrize(
    ("name", "value"),
    [("index", -1), ("index", True), ("rank", 1.5), ("logit", "2"), ("logit", None), ("token", 5),
     ("logprob", 1), ("entropy", -3), ("token_id", 6), ("candidates", {}), ("candidates", [5]),
     ("logit", 10**400), ("text", None), ("type", "steps"), ("type", "summary")],
)  # fmt: skip
def test_a_damaged_value_is_named_by_its_line(name, value):
    step = json.dumps(json.loads(TRACE[1]) | {name: value}).encode() + b"\n"
    with pytest.raises(DecodecliError, match=r"run\.jsonl, line 3: ") as error:
        read(TRACE[0] + b"\n" + step + TRACE[2])
    assert error.value.line == 3


@pytest.mark.parametrize(
    "lines",
    [(0, 1, 1), (0, 2, 1), (0, 1, 3, 2), (0, 1, 3, 3)],
    ids=["twice", "backwards", "a step after the end", "two ends"],
)
def test_a_record_out_of_place_is_named_by_its_line(lines):
    with pytest.raises(DecodecliError, match=f"line {len(lines)}: "):
        read(b"".join(TRACE[number] for number in lines))


@pytest.mark.parametrize("bad", [b"NaN", b"Infinity", b"1e999"])
def test_numbers_that_are_not_finite_are_refused(bad):
    with pytest.raises(DecodecliError, match="line 2"):
        read(TRACE[0] + TRACE[1].replace(b'"logit":2.5', b'"logit":' + bad))


def test_parameters_out_of_range_are_refused():
    for params in (
        {"temperature": "hot"},
        {"stop": 3},
        {"num_samples": 0},
        {"bos": "yes"},
        {"system": 5},
    ):
        with pytest.raises(DecodecliError, match="params"):
            read(line_of(replace(HEADER, params=params)))


def test_a_long_trace_takes_no_more_memory_than_a_short_one():
    class Endless(io.RawIOBase):
        """A trace of `steps` steps that nobody holds."""

        def __init__(self, steps: int) -> None:
            self.index, self.steps = -1, steps

        def readline(self, size=-1):
            self.index += 1
            if self.index == 0:
                return TRACE[0]
            if self.index > self.steps:
                return b""
            return TRACE[1].replace(b'"index":0', b'"index":%d' % self.index)

    def peak(steps: int) -> int:
        tracemalloc.start()
        try:
            assert sum(1 for _ in TraceReader(Endless(steps), "x")) == steps + 1
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)
    assert peak(5000) < peak(500) + 50_000
