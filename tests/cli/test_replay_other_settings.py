"""`replay` with other settings, and `replay --verify`."""

from __future__ import annotations

import json

import numpy as np
import pytest

PROMPT = "The capital of Japan is"


@pytest.fixture
def trace(cli, tmp_path):
    path = tmp_path / "run.jsonl"
    files = ("--trace", str(path), "--save-logits", str(tmp_path / "run.npy"))
    cli("generate", PROMPT, "-t", "1.3", "-n", "8", "--seed", "5", *files).succeeded()
    return path


def steps_of(result):
    return [r for r in map(json.loads, result.succeeded().out.splitlines()) if r["type"] == "step"]


def test_with_its_logits_a_run_is_shown_under_other_settings(cli, trace):
    asked = ("-t", "0.5", "--top-k", "40", "--logits", str(trace.with_suffix(".npy")))
    replayed = steps_of(cli("replay", str(trace), *asked, "--format", "jsonl"))
    real = steps_of(
        cli("generate", PROMPT, *asked[:4], "-n", "8", "--seed", "5", "--format", "jsonl")
    )
    divergence = next(s["index"] for s in replayed if s["what_if"][0]["first_divergence"])
    for ours, theirs in zip(replayed[: divergence + 1], real, strict=False):
        assert ours["what_if"][0]["token_id"] == theirs["token_id"]
        assert ours["what_if"][0]["settings"] == "temperature=0.5,top_k=40"
        assert [c["removed_by"] for c in ours["candidates"][:10]] == [
            c["removed_by"] for c in theirs["candidates"][:10]
        ]
    shown = cli("replay", str(trace), *asked, "--tables", "full").succeeded().err
    assert "temperature 0.5 → top_k 40" in shown
    assert f"leaves at #{divergence + 1}" in shown


def test_without_logits_it_says_what_cannot_be_known(cli, trace):
    result = cli("replay", str(trace), "-t", "2", "--tables", "full").succeeded()
    assert "--save-logits" in result.err
    assert "cannot be known from 10 of 6,656 tokens" in result.err
    assert "cannot be known" in result.err.split("perplexity")[1]
    assert "cannot be known from" in cli(
        "replay", str(trace), "--preset", "chaotic", "--tables", "full"
    ).succeeded().err  # fmt: skip


def test_settings_from_elsewhere_leave_a_recorded_run_as_it_is(cli, trace, monkeypatch):
    monkeypatch.setenv("DECODECLI_TEMPERATURE", "0.1")
    assert cli("replay", str(trace), "--format", "jsonl").succeeded().out == trace.read_text()


def test_samples_have_their_logits_each(cli, tmp_path):
    path, logits = tmp_path / "runs.jsonl", tmp_path / "runs.npy"
    cli(
        "generate", PROMPT, "-n", "3", "--num-samples", "2", "--seed", "1",
        "--trace", str(path), "--save-logits", str(logits),
    ).succeeded()  # fmt: skip
    steps = steps_of(
        cli("replay", str(path), "--top-k", "1", "--logits", str(logits), "--format", "jsonl")
    )
    assert len(steps) == 6
    assert all(step["what_if"][0]["kept"] == 1 for step in steps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--logits", "x.npy"), "--logits is for other settings"),
        (("--verify", "-t", "1"), "--verify makes the run as it was recorded"),
        (("-t", "1", "--logits", "nowhere.npy"), "no such file"),
        (("-t", "1", "--logits", __file__), "no file of numpy"),
        (("--min-new-tokens", "3"), "--min-new-tokens"),
        (("-t", "-1"), "--temperature must be"),
    ],
)
def test_what_cannot_be_is_refused(cli, trace, options, words):
    cli("replay", str(trace), *options).refused(2, words)


def test_a_run_that_holds_is_verified(cli, trace):
    result = cli("replay", str(trace), "--verify").succeeded()
    assert (
        result.out == "run 1: builtin float32, seed 5, 8 steps: the same tokens; the same numbers\n"
    )


def test_runs_that_no_longer_hold_are_told_and_fail(cli, trace):
    header, *steps, summary = map(json.loads, trace.read_text().splitlines())
    steps[2]["logprob"] -= 0.01
    other = json.loads(json.dumps(steps))
    other[4]["token_id"] = other[4]["candidates"][3]["token_id"]
    records = [header, *steps, summary, header, *other, summary]
    trace.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    result = cli("replay", str(trace), "--verify")
    assert result.code == 1
    first, second = result.out.splitlines()
    assert "the same tokens; numbers differ by 1e-2 at most (logprob at #3), more than" in first
    assert "at #5 " in second
    assert "2 of 2 runs no longer hold" in result.err


def test_a_record_that_ends_early_is_verified_as_far_as_it_goes(cli, trace):
    trace.write_text("".join(trace.read_text().splitlines(keepends=True)[:4]))
    assert "3 steps: the same tokens" in cli("replay", str(trace), "--verify").succeeded().out


def test_a_model_that_is_gone_is_told(cli, trace):
    trace.write_text(trace.read_text().replace('"name":"builtin"', '"name":"/nowhere/model"'))
    cli("replay", str(trace), "--verify").refused(1, "/nowhere/model")
    again = cli("replay", str(trace), "--verify", "--model", "builtin").succeeded()
    assert "the same tokens" in again.out
    logits = np.load(trace.with_suffix(".npy"))
    assert len(logits) == 8
    unspelt = cli(
        "replay", str(trace), "-t", "3", "--logits", str(trace.with_suffix(".npy")),
        "--format", "jsonl",
    )  # fmt: skip
    assert any(step["what_if"][0]["token"].startswith("<") for step in steps_of(unspelt))


def data_of(page):
    return json.loads(page.read_text().split('id="decodecli-data">')[1].split("</script>")[0])


def test_the_page_of_a_recorded_run_is_that_of_the_run(cli, tmp_path):
    trace, logits, page, again = (
        tmp_path / name for name in ("run.jsonl", "run.npy", "run.html", "again.html")
    )
    cli(
        "generate", PROMPT, "-t", "1.4", "-n", "6", "--seed", "3", "--trace", str(trace),
        "--save-logits", str(logits), "--html", str(page), "--what-if", "temperature=0.2",
    ).succeeded()  # fmt: skip
    cli("replay", str(trace), "--logits", str(logits), "--html", str(again)).succeeded()
    assert data_of(again) == data_of(page)
    firsts = [other["first"] for step in data_of(page)["steps"] for other in step["whatIf"]]
    assert firsts.count(True) == 1
    others = ("-t", "0.5", "--top-k", "40", "--logits", str(logits), "--html", str(again))
    cli("replay", str(trace), *others).succeeded()
    assert (data_of(again)["temperature"], data_of(again)["top_k"]) == (0.5, 40)
    assert data_of(again)["steps"][0]["whatIf"][0]["settings"] == "temperature=0.5,top_k=40"


def test_a_page_needs_the_logits_and_the_whole_run(cli, trace, tmp_path):
    page = tmp_path / "run.html"
    cli("replay", str(trace), "--html", str(page)).refused(2, "--save-logits")
    assert not page.exists()
    cli("replay", str(trace), "--html", str(page), "--steps", "2").refused(2, "whole run")
    cli("replay", str(trace), "--html", str(page.with_suffix(".txt"))).refused(2, ".html")
