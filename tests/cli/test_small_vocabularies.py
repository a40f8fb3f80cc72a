"""Every command in its main formats, with models of 32 to 4,096 tokens and every kind of tokenizer."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

PROMPT = "once upon a time"


def parsed(result, format: str, strict):
    """What a command wrote, read back by a reader of that format."""
    out = result.succeeded().out
    assert "bug" not in result.err
    if format == "json":
        return strict(out)
    if format == "jsonl":
        return [strict(line) for line in out.splitlines()]
    if format == "csv":
        return list(csv.DictReader(io.StringIO(out)))
    assert out.strip()
    return out


def size_of(folder) -> int:
    return json.loads((folder / "config.json").read_text())["vocab_size"]


FORMATS = pytest.mark.parametrize("format", ["table", "json", "jsonl", "csv"])


@FORMATS
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--target", "a", "-t", "0,0.5,1"),
        ("--token", "a", "--token", "3"),
        ("--top-p", "0.9", "--top-k", "5", "--typical-p", "0.9"),
        ("--compare-bos",),
        ("--compare-bos", "--repetition-penalty", "1.3", "--target", "a", "--min-p", "0.01"),
        ("--compare-dtype", "float32,bfloat16", "--epsilon-cutoff", "0.01"),
        ("--all-positions",),
    ],
    ids=" ".join,
)
def test_inspect_logits(cli, tiny_model, options, format, strict):
    result = cli("inspect-logits", PROMPT, "-m", tiny_model, *options, "--format", format)
    found = parsed(result, format, strict)
    if format == "json" and not {"--all-positions", "--compare-bos", "--compare-dtype"} & {
        *options
    }:
        assert found["size"] == size_of(tiny_model)
        column = found["temperatures"][-1]
        assert column["entropy"] <= math.log(found["size"]) + 1e-9
        assert sum(row["probability"] for row in column["tokens"]) <= 1 + 1e-9


def test_filters_keep_what_generate_keeps(cli, tiny_model):
    options = ("-m", tiny_model, "-t", "1.3", "--top-p", "0.9", "--repetition-penalty", "1.2")
    step = cli("generate", PROMPT, *options, "-n", "1", "--format", "jsonl").succeeded().steps[0]
    found = json.loads(cli("inspect-logits", PROMPT, *options, "--format", "json").succeeded().out)
    column = found["temperatures"][0]
    assert column["kept"] == step["kept"]
    for row, expected in zip(column["tokens"], step["candidates"], strict=False):
        assert (row["token_id"], row["removed_by"]) == (
            expected["token_id"],
            expected["removed_by"],
        )


@pytest.mark.parametrize("options", [(), ("--top-p", "0.9", "--greedy")], ids=" ".join)
def test_generate(cli, tiny_model, options):
    options = ("-m", tiny_model, "-n", "5", "--seed", "1", *options)
    run = cli("generate", PROMPT, *options, "--format", "jsonl").succeeded()
    assert run.header["model"]["vocab_size"] == size_of(tiny_model)
    assert len(run.steps) == run.summary["new_tokens"]
    text = cli("generate", PROMPT, *options, "--tables", "full").succeeded()
    assert text.out == run.summary["text"] + "\n"
    assert "#" in text.err


@FORMATS
@pytest.mark.parametrize(
    "words", [(PROMPT,), (PROMPT, "--compare-bos"), ("--vocab", "--longest", "3")], ids=" ".join
)
def test_tokenize(cli, tiny_model, words, format, strict):
    found = parsed(cli("tokenize", *words, "-m", tiny_model, "--format", format), format, strict)
    if format == "json" and words == (PROMPT,):
        assert all(row["token_id"] < size_of(tiny_model) for row in found["tokens"])


@FORMATS
@pytest.mark.parametrize("options", [(), ("--nearest", "3")], ids=" ".join)
def test_embed(cli, tiny_model, options, format, strict):
    words = ("the", "cat", "cat - the")
    found = parsed(
        cli("embed", *words, "-m", tiny_model, *options, "--format", format), format, strict
    )
    if format == "json":
        assert found["matrix"]["rows"] == size_of(tiny_model)


def test_sweep(cli, tiny_model, tmp_path):
    options = ("-m", tiny_model, "-t", "0,1", "--top-p", "0.9", "--seeds", "0..1", "-n", "4")
    cli("sweep", PROMPT, *options, "--out", tmp_path / "sweep").succeeded()
    lines = (tmp_path / "sweep" / "runs.jsonl").read_text().splitlines()
    cells = [json.loads(line) for line in lines]
    assert len(cells) == 4
    assert all(0 <= token < size_of(tiny_model) for cell in cells for token in cell["token_ids"])
    cli("compare", tmp_path / "sweep").succeeded()
