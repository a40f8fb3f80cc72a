"""`generate --watch` and `--what-if`, in every form that a run takes."""

from __future__ import annotations

import json

import pytest

PROMPT = "The capital of Japan is"
ASKED = ("--watch", " Kyoto", "--watch", "42", "--what-if", "temperature=3", "--what-if", "top_k=1")


@pytest.mark.parametrize("tables", ["full", "line"])
def test_tables_show_watched_tokens_and_other_draws_and_replay_shows_the_same(
    cli, tmp_path, tables
):
    trace = tmp_path / "run.jsonl"
    asked = (PROMPT, *ASKED, "-n", "6", "--seed", "1", "--tables", tables)
    shown = cli("generate", *asked, "--trace", str(trace)).succeeded().err
    assert shown.count("○") >= 2 * 6
    assert "≠" in shown
    assert shown.count("the first divergence") == 1
    assert "what if top_k=1: the same tokens" in shown
    assert "what if temperature=3: leaves at #" in " ".join(shown.split())
    assert '--watch " Kyoto" --watch 42 --what-if temperature=3 --what-if top_k=1' in shown
    replayed = cli("replay", str(trace), "--tables", tables).succeeded().err
    assert (
        replayed.split("step" if tables == "line" else "#1")[1]
        == (shown.split("step" if tables == "line" else "#1")[1])
    )


def test_the_trace_has_them_and_csv_does_not_stumble(cli, tmp_path):
    trace = tmp_path / "run.jsonl"
    cli("generate", PROMPT, *ASKED, "-n", "3", "--trace", str(trace)).succeeded()
    header, *steps, _ = map(json.loads, trace.read_text().splitlines())
    assert header["params"]["watch"] == [" Kyoto", "42"]
    assert header["params"]["what_if"] == ["temperature=3", "top_k=1"]
    for step in steps:
        assert [row["watch"] for row in step["watch"]] == [" Kyoto", "42"]
        assert [row["settings"] for row in step["what_if"]] == ["temperature=3", "top_k=1"]
    again = cli("replay", str(trace), "--format", "jsonl").succeeded().out
    assert [json.loads(line) for line in again.splitlines()] == [
        json.loads(line) for line in trace.read_text().splitlines()
    ]
    assert cli("replay", str(trace), "--format", "csv").succeeded().out.count("\n") == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--watch", "123456789"), "--watch: '123456789' is not in the vocabulary"),
        (("--watch", ""), "is no token"),
        (("--what-if", "hot"), "is not NAME=VALUE"),
        (("--what-if", "top_q=1"), "did you mean top_"),
        (("--what-if", "stop=x"), "no setting"),
        (("--what-if", "seed=-3"), "--seed"),
    ],
)
def test_what_cannot_be_is_refused(cli, options, words):
    cli("generate", PROMPT, *options).refused(2, words)


@pytest.mark.parametrize("tables", ["full", "line"])
def test_why_a_token_was_taken_is_told_and_told_again_by_replay(cli, tmp_path, tables):
    trace = tmp_path / "run.jsonl"
    asked = (PROMPT, "-t", "1.4", "--top-p", "0.9", "-n", "5", "--seed", "2", "--explain")
    shown = cli("generate", *asked, "--trace", str(trace), "--tables", tables).succeeded().err
    words = " ".join(shown.split())
    assert words.count("; top-p removed ") == 5
    assert words.count("T=1.4 lowered it to") + words.count("T=1.4 lifted it to") == 5
    assert "explained: the model's first choice at" in words
    assert "--explain --seed 2" in words
    replayed = " ".join(cli("replay", str(trace), "--tables", tables).succeeded().err.split())
    assert replayed.partition("#1 ")[2] == words.partition("#1 ")[2]
    step = json.loads(trace.read_text().splitlines()[1])
    assert [cut["stage"] for cut in step["explain"]["cuts"]] == ["top_p"]


def test_what_no_table_or_trace_would_show_is_noticed(cli):
    assert "--tables line" in cli("generate", PROMPT, "-n", "1", "--explain").succeeded().err
    quiet = cli("generate", PROMPT, "-n", "1", "--explain", "--tables", "line").succeeded()
    assert "is shown in tables" not in quiet.err


def test_a_word_without_its_space_is_noticed(cli):
    result = cli("generate", PROMPT, "-n", "1", "--watch", "Kyoto").succeeded()
    assert '--watch " Kyoto"' in result.err


def test_a_trace_whose_header_says_nonsense_is_refused(cli, tmp_path):
    trace = tmp_path / "run.jsonl"
    cli("generate", PROMPT, "-n", "1", "--watch", "42", "--trace", str(trace)).succeeded()
    trace.write_text(trace.read_text().replace('"watch":["42"]', '"watch":42'))
    cli("replay", str(trace)).refused(1, "watch is out of range")
