"""`generate --num-beams` as typed, piped, traced, drawn and misused."""

from __future__ import annotations

import json

import pytest

import decodecli
from decodecli.records.beams import beam_tree

PROMPT = "The capital of Japan is"
ASKED = (PROMPT, "--num-beams", "3", "-n", "8")


def test_off_a_terminal_the_best_text_alone_goes_to_stdout(cli):
    result = cli("generate", *ASKED).succeeded()
    assert result.out == decodecli.beam_search("builtin", PROMPT, 3, max_new_tokens=8).text + "\n"
    several = cli("generate", *ASKED, "--num-return-sequences", "3").succeeded()
    assert len(several.out.splitlines()) >= 3
    assert several.out.startswith(result.out)


def test_what_the_search_was_is_said_beside_the_text(cli):
    result = cli("generate", *ASKED, "--seed", "4")
    assert "seed 4" in result.err
    assert "3 beams" in result.err
    assert cli("generate", *ASKED, "--quiet").err == ""


def test_the_trace_records_every_step_and_the_hypotheses(cli, tmp_path):
    trace = tmp_path / "beams.jsonl"
    asked = (*ASKED, "--num-return-sequences", "2", "--trace", str(trace))
    out = cli("generate", *asked, "--format", "jsonl").succeeded().out
    assert out == trace.read_text()
    header, *steps, summary = map(json.loads, out.splitlines())
    assert header["params"]["num_beams"] == 3
    assert [step["type"] for step in steps] == ["beam_step"] * len(steps)
    assert [step["index"] for step in steps] == list(range(len(steps)))
    for step in steps:
        fates = {row["fate"] for row in step["continuations"]}
        assert fates <= {"live", "finished", "pruned"}
        assert len(step["continuations"]) == 6
    assert len(summary["hypotheses"]) == 2
    assert summary["text"] == summary["hypotheses"][0]["text"]
    cli("replay", str(trace)).refused(1, "a beam search, of which only generate shows the steps")


def test_tables_show_parents_scores_what_was_pruned_and_the_tree(cli):
    shown = cli("generate", *ASKED, "--tables", "full").succeeded().err
    for words in (
        "beam  from  token",
        "pruned",
        "ended, the best",
        "all that was carried on:",
        "├── ",
    ):
        assert words in shown
    assert "--num-beams 3" in shown
    line = cli("generate", *ASKED, "--tables", "line").succeeded().err
    assert "1←1 ␣Tokyo −0.01" in line
    narrow = cli("generate", *ASKED, "--tables", "full", env={"COLUMNS": "40"}).succeeded().err
    assert max(map(len, narrow.split("repeat:")[0].splitlines())) <= 40


@pytest.mark.parametrize("tables", ["full", "line"])
def test_in_ascii_every_sign_has_a_plain_one(cli, tables):
    shown = cli("generate", *ASKED, "--tables", tables, encoding="ascii").succeeded().err
    assert "#" in shown
    assert "\\u" not in shown
    assert "<U+" not in shown


def test_the_repeated_command_searches_the_same(cli):
    asked = (
        *ASKED,
        "--beam-sample",
        "-t",
        "1.5",
        "--length-penalty",
        "0.5",
        "--early-stopping",
        "true",
    )
    first = cli("generate", *asked, "--seed", "4", "--tables", "line").succeeded()
    for words in ("--length-penalty 0.5", "--early-stopping true", "--beam-sample", "--seed 4"):
        assert words in first.err
    assert cli("generate", *asked, "--seed", "4").succeeded().out == first.out
    others = {cli("generate", *asked, "--seed", str(seed)).out for seed in range(6)}
    assert len(others) > 1


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf", "dot"])
def test_the_tree_is_drawn(cli, tmp_path, suffix):
    path = tmp_path / f"beams.{suffix}"
    result = cli("generate", *ASKED, "--plot", str(path)).succeeded()
    assert f"drawn in {path}" in " ".join(result.err.split())
    data = path.read_bytes()
    if suffix == "dot":
        assert b"digraph beams" in data
        assert "␣Tokyo" in data.decode()
        assert data.count(b"->") == data.count(b"label=") - 1
    else:
        assert len(data) > 3000


def test_settings_that_do_nothing_are_noticed(cli):
    err = cli("generate", *ASKED, "-t", "0.7", "--top-p", "0.9").succeeded().err
    assert "--temperature, --top-p has no effect; --beam-sample draws them" in err
    assert "no effect" not in cli("generate", *ASKED, "--greedy").succeeded().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--length-penalty", "2"), "--length-penalty goes with --num-beams"),
        (("--num-beams", "0"), "--num-beams must be at least 1"),
        (("--num-beams", "2", "--num-return-sequences", "3"), "are more than 2 beams"),
        (("--num-beams", "2", "--early-stopping", "soon"), "--early-stopping must be one of"),
        (("--num-beams", "2", "--mirostat", "2"), "--mirostat does not go with beams"),
        (("--num-beams", "2", "--stop", "x"), "--stop does not go with beams"),
        (("--num-beams", "2", "--beam-sample", "--greedy"), "--beam-sample draws"),
        (("--num-beams", "2", "--watch", "a"), "--watch shows one text"),
        (("--num-beams", "2", "--what-if", "top_k=1"), "--what-if shows one text"),
        (("--num-beams", "2", "--explain"), "--explain shows one text"),
        (("--num-beams", "2", "--num-samples", "2"), "--num-return-sequences gives several"),
        (("--num-beams", "2", "--plot", "x.txt"), "must end in .svg, .png, .pdf or .dot"),
        (("--num-beams", "2", "--save-logits", "x.npy"), "--save-logits shows one text"),
    ],
)
def test_what_does_not_go_with_beams_is_refused(cli, options, words):
    cli("generate", PROMPT, *options).refused(2, words)


def test_in_python_a_search_is_printed_short_and_has_everything():
    run = decodecli.beam_search("builtin", PROMPT, 4, num_return_sequences=3, max_new_tokens=6)
    assert "4 beams" in str(run)
    assert str(run).count("mean logprob") == 3
    assert len(run) == len(run.steps)
    assert run[0].live[0].token == "▁Tokyo"
    assert "<pre>" in run._repr_html_()
    assert [row["score"] for row in run.flat()] == [h.score for h in run.hypotheses]
    assert run.as_dicts()[-1]["hypotheses"]
    texts = set()

    def walk(node, tokens):
        tokens = [*tokens, *node.tokens]
        if node.fate == "finished":
            texts.add(tuple(tokens))
        for child in node.children:
            walk(child, tokens)

    walk(beam_tree(run.steps), [])
    assert {hypothesis.tokens for hypothesis in run.hypotheses} <= texts
    drawn = decodecli.beam_search(
        "builtin", PROMPT, 2, beam_sample=True, temperature=2.0, seed=3, early_stopping="never"
    )
    assert drawn.header.params["early_stopping"] == "never"
