"""`replay` shows what `generate` showed, on every kind of stream, and only what is asked for."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import decodecli
from decodecli.records.json_lines import to_json_line

RUN = ("generate", "Where?", "-n", "6", "--seed", "5", "--top-p", "0.9", "--num-samples", "2")
WORDS = (" Tokyo", " and", "=1+1", "\r", ",", "é", " 東京")


@pytest.fixture
def recorded(cli, scripted, tmp_path):
    """A recorded run of two samples: what generate said with these options, and the trace."""

    def run(*options: str, terminal: bool = False):
        trace = tmp_path / "run.jsonl"
        words = (*RUN, "-m", scripted(*WORDS), "--trace", trace, *options)
        return cli(*words, terminal=terminal).succeeded(), trace

    return run


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("options", [(), ("--tables", "line"), ("--tables", "none"), ("--quiet",)])
def test_a_run_looks_as_generate_showed_it(cli, recorded, options, terminal):
    shown, trace = recorded(*options, terminal=terminal)
    again = cli("replay", trace, *options, terminal=terminal).succeeded()
    assert (lasting(again.out), again.err) == (lasting(shown.out), shown.err)


def lasting(screen: str) -> str:
    """What stays on a screen: without the running text, which is drawn when there is time."""
    return re.sub(r"\x1b\[\?25l.*?\x1b\[J(\x1b\[\?7h\x1b\[\?25h)?", "", screen, flags=re.DOTALL)


def test_jsonl_is_the_trace_itself(cli, recorded):
    _, trace = recorded()
    assert cli("replay", trace, "--format", "jsonl").succeeded().raw == trace.read_bytes()


def test_standard_input_and_a_pipe_are_read(cli, recorded, shell, tmp_path):
    shown, trace = recorded()
    assert cli("replay", "-", stdin=trace.read_bytes()).succeeded().raw == shown.raw
    os.mkfifo(tmp_path / "pipe")
    line = f"cat {shlex.quote(str(trace))} > pipe & decodecli replay pipe --quiet"
    assert shell(line).succeeded().raw == shown.raw


def test_only_the_steps_asked_for_are_shown(cli, recorded):
    _, trace = recorded()
    steps = cli("replay", trace, "--steps", "2..3,5", "--format", "jsonl").succeeded().steps
    assert [step["index"] for step in steps] == [1, 2, 4] * 2
    text = cli("replay", trace, "--steps", "2..3,5").succeeded().out
    assert text.split("\n")[0] == "".join(step["text"] for step in steps[:3])
    lines = cli("replay", trace, "--steps", "5..", "--tables", "line").succeeded().err
    assert [line.split()[0] for line in lines.split("\n") if "│ H" in line] == ["#5", "#6"] * 2
    assert "least sure" not in lines  # which is of whole runs


@pytest.mark.parametrize("steps", ["0", "..", "", "5..2", "a", "-1", "1...3", "٣", "1,,2", "0..3"])
def test_steps_that_cannot_be_are_refused(cli, recorded, steps):
    _, trace = recorded()
    cli("replay", trace, f"--steps={steps}").refused(2, "--steps")


def test_steps_beyond_the_end_are_told(cli, recorded):
    _, trace = recorded()
    result = cli("replay", trace, "--steps", "7..9")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Error: --steps 7..9")
    assert "6 steps" in result.err


def test_a_run_is_left_after_the_last_step_asked_for(cli, recorded):
    """What comes after it in the file is not read: it may be damaged, or very long."""
    _, trace = recorded()
    lines = trace.read_bytes().split(b"\n")
    lines[4] = b'{"type":"step", broken'
    trace.write_bytes(b"\n".join(lines))
    shown = cli("replay", trace, "--steps", "1..2", "--tables", "line").succeeded().err
    assert [line.split()[0] for line in shown.split("\n") if "│ H" in line] == ["#1", "#2"] * 2
    result = cli("replay", trace, "--steps", "1..2", "--format", "jsonl")  # has the summary too
    assert (result.code, "line 5" in result.err) == (1, True)


def test_fewer_candidates_can_be_shown(cli, recorded):
    _, trace = recorded()
    result = cli("replay", trace, "--candidates", "2", "--format", "jsonl").succeeded()
    for step in result.steps:
        ids = [row["token_id"] for row in step["candidates"]]
        assert len(ids) == 2 + (step["token_id"] not in ids[:2])
        assert step["token_id"] in ids


def test_csv_has_a_row_a_step_that_a_reader_reads_back(cli, recorded, read_trace):
    _, trace = recorded()
    text = cli("replay", trace, "--format", "csv").succeeded().out
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    steps = [record for record in read_trace(trace) if record["type"] == "step"]
    assert [(row["run"], row["seed"]) for row in rows] == [("0", "5")] * 6 + [("1", "6")] * 6
    for row, step in zip(rows, steps, strict=True):
        assert float(row["logprob"]) == step["logprob"]
        assert int(row["index"]) == step["index"]
        assert row["text"].removeprefix("'") == step["text"]
        assert not row["token"].startswith(("=", "+", "-", "@"))


def test_a_trace_that_was_cut_off_is_shown_as_far_as_it_goes(cli, recorded):
    shown, trace = recorded()
    data = trace.read_bytes()
    lines = data.split(b"\n")
    trace.write_bytes(b"\n".join([*lines[:4], lines[4][:50]]))
    result = cli("replay", trace).succeeded()
    assert shown.out.startswith(result.out.removesuffix("\n"))
    assert "line 5" in result.err
    assert (
        cli("replay", trace, "--format", "jsonl").succeeded().raw == b"\n".join(lines[:4]) + b"\n"
    )
    assert "the record ends here" in cli("replay", trace, terminal=True).succeeded().out


def test_what_is_no_trace_is_refused(cli, tmp_path):
    (tmp_path / "x").write_text("hello\n")
    cli("replay", tmp_path / "x").refused(1, "not a trace", "line 1")
    cli("replay", tmp_path).refused(2, "folder")
    cli("replay", tmp_path / "none").refused(2, "no such file")
    cli("replay", "-", stdin=b"").refused(1, "standard input is empty")
    cli("replay", "x", "--format", "json").refused(2, "--format")


def test_a_damaged_line_ends_it_with_its_number(cli, recorded):
    _, trace = recorded()
    lines = trace.read_bytes().split(b"\n")
    trace.write_bytes(b"\n".join([*lines[:3], b"{", *lines[4:]]))
    result = cli("replay", trace)
    assert result.code == 1
    assert "line 4" in result.err
    assert result.raw.endswith(b"\n")


JSON_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON_VALUES |= st.sampled_from([[], {}, [[1]], {"a": 1}, 10**400, 1e300, "\x1b[2J", "\ud800"])


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    value=JSON_VALUES,
    line=st.integers(0, 8),
    data=st.data(),
    tables=st.sampled_from(["full", "line"]),
)
def test_no_value_in_any_field_ends_in_a_bug(cli, record_lines, value, line, data, tables):
    records = [json.loads(text) for text in record_lines]
    records[0]["params"] |= {"chat": True, "system": "x"}
    at = records[line % len(records)]
    while True:  # a field, or one inside it
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = value
    text = "".join(json.dumps(record) + "\n" for record in records)
    result = cli("replay", "-", "--tables", tables, stdin=text.encode(), terminal=True)
    assert result.code in (0, 1)
    assert "unexpected" not in result.err
    assert "\x1b[2J" not in result.raw.decode() + result.err


@pytest.fixture(scope="module")
def record_lines() -> list[str]:
    run = decodecli.generate("builtin", "Hi", temperature=0.7, top_p=0.9, seed=1, max_new_tokens=3)
    return [to_json_line(record) for record in run.as_dicts()]


def test_a_closed_pipe_ends_it_quietly(shell, recorded):
    _, trace = recorded()
    result = shell(f"decodecli replay {shlex.quote(str(trace))} --quiet --delay 0.01 | head -c 1")
    assert (result.code, result.err) == (0, "")


def test_greedy_samples_are_shown_once_and_written_each(cli, scripted, in_order, tmp_path):
    trace = tmp_path / "run.jsonl"
    words = (
        "generate",
        "Hi",
        "-m",
        scripted(),
        *in_order,
        "-n",
        "3",
        "--seed",
        "4",
        "--tables",
        "line",
    )
    samples = ("--num-samples", "3")
    alone = cli(*words, terminal=True).succeeded().out
    shown = cli(*words, *samples, terminal=True).succeeded()
    assert "seeds 4 to 6: the same" in shown.out.replace("\n  ", " ")
    assert "--seed" not in shown.out
    assert shown.out.count("least sure") == 1
    assert lasting(shown.out).count("│ H") == lasting(alone).count("│ H") == 3
    piped = cli(*words, *samples, "--trace", trace).succeeded()
    assert piped.out == " Tokyo and the\n" * 3
    assert piped.err.count("│ H") == 3
    again = cli("replay", trace, "--tables", "line").succeeded()
    assert (again.out, again.err) == (piped.out, piped.err)
    headers = [record["seed"] for record in cli("replay", trace, "--format", "jsonl").records
               if record["type"] == "run"]  # fmt: skip
    assert headers == [4, 5, 6]
