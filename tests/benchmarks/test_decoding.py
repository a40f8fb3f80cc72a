"""Decoding against its peers on a tiny model: the rows come out, their sizes do not matter."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks import decoding, sampler
from benchmarks.__main__ import drawn
from benchmarks.bandwidth import bandwidth_rows, bytes_per_token
from benchmarks.subjects import FILTERS, PLAIN
from decodecli.analysis.speed import run_lengths
from decodecli.errors import DecodeError


def about(name: str, parameters: int = 10**9, precision: str = "float32", gpu: bool = False):
    info = SimpleNamespace(parameters=parameters)
    return SimpleNamespace(
        name=name, precision=precision, on_gpu=gpu, lm=SimpleNamespace(info=info)
    )


def test_ours_is_measured_against_three_ways_of_generate_and_without_filters(subject):
    rows = list(decoding.decode_rows(subject, 2))
    peers = [row.peer for row in rows]
    assert peers == [decoding.GENERATE, decoding.SCORES, decoding.STATIC, decoding.GENERATE]
    assert all(row.ratio and len(row.ratio.values) == 2 for row in rows)
    assert [str(row.target) for row in rows] == ["≥ 1.1", "None", "None", "≥ 1"]
    assert all("8 tokens less 2" in row.note for row in rows)


def test_a_peer_that_fails_becomes_a_row_that_says_so(subject):
    def broken(count: int) -> None:
        raise RuntimeError("no such cache\nand more")

    [row] = decoding._against(subject, FILTERS, {"static": broken}, "ours", 1)
    assert row.skipped == "it fails: RuntimeError: no such cache"
    assert row.holds is None


def test_a_failure_of_ours_is_not_swallowed(subject, monkeypatch):
    def broken(count: int) -> None:
        raise DecodeError("broken")

    monkeypatch.setattr(decoding, "traced", lambda subject, params: broken)
    with pytest.raises(DecodeError):
        list(decoding.decode_rows(subject, 1))


def test_the_targets_are_those_of_the_model_and_the_device():
    def decode(params, *args, **kwargs):
        return str(decoding.decode_target(about(*args, **kwargs), params))

    assert decode(FILTERS, "gpt2") == "≥ 1.1"
    assert decode(PLAIN, "gpt2") == "≥ 1"
    assert decode(PLAIN, "builtin") == "≥ 1.2"
    assert decode(FILTERS, "llama-8b", precision="nf4", gpu=True) == "≥ 5"
    assert str(decoding.trace_target(about("builtin", 6_000_000))) == "≥ 0.85"
    assert str(decoding.trace_target(about("gpt2", 124_000_000))) == "≥ 0.95"
    assert str(decoding.trace_target(about("gpt2", gpu=True))) == "≥ 0.98"


def test_the_drawn_side_draws_a_table_a_step_on_its_terminal(subject, tmp_path):
    import pty
    import tty

    master, slave = pty.openpty()
    tty.setraw(slave)
    script = "import os, sys\nwhile data := os.read(0, 65536): sys.stdout.buffer.write(data)"
    output = tmp_path / "screen"
    with output.open("wb") as file:
        reader = subprocess.Popen([sys.executable, "-c", script], stdin=master, stdout=file,
                                  stderr=subprocess.DEVNULL)  # fmt: skip
        os.close(master)
        with open(slave, "w", encoding="utf-8") as stream:
            drawn(subject.lm, subject.prompt, replace(FILTERS, max_new_tokens=3), stream)
        reader.wait(timeout=30)
    # Reading a terminal whose other end is closed is an error, after everything was read.
    text = output.read_bytes().decode("utf-8")
    assert text.count("logit") >= 3
    assert "tokens" in text


def test_the_pseudo_terminal_is_one_and_leaves_the_environment_alone():
    before = dict(os.environ)
    with decoding.pseudo_terminal() as stream:
        assert stream.isatty()
        assert os.get_terminal_size(stream.fileno()) == (100, 40)
        stream.write("much\n" * 50_000)  # nobody blocks: it is read away
        assert os.environ["TERM"] == "xterm-256color"
    assert dict(os.environ) == before


def test_drawn_is_measured_against_untraced(subject):
    [row] = decoding.trace_rows(subject, 1, drawn)
    assert row.ratio is not None
    assert str(row.target) == "≥ 0.85"


def test_the_sampler_is_measured_against_the_processors_of_transformers():
    [row] = sampler.sampler_rows("cpu", 1, quick=True, vocabulary=2000)
    assert row.unit == "ms"
    assert str(row.target) == "≤ 0.15"
    assert row.ratio is not None


def test_both_samplers_draw_from_the_same_tokens():
    import torch

    logits = torch.full((1, 300), -20.0)
    logits[0, [3, 7]] = 5.0
    theirs = sampler.theirs([logits])
    assert set(sampler.ours([logits], 40)()) == {3, 7}
    assert {theirs() for _ in range(40)} == {3, 7}


def test_bytes_of_a_token_are_all_weights_once_and_the_cache(subject, tiny_config):
    model = subject.lm.model
    weights = 4 * model.num_parameters()  # tied: the embeddings are read as the output matrix
    a_position = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, size, float32
    assert bytes_per_token(model, 10) == weights + 10 * a_position


def test_of_embeddings_that_are_not_tied_one_row_is_read(tiny_config):
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = {**tiny_config, "tie_word_embeddings": False}
    network = AutoModelForCausalLM.from_config(LlamaConfig(**config))
    table = tiny_config["vocab_size"] * tiny_config["hidden_size"]
    all_weights = network.num_parameters()
    assert bytes_per_token(network, 0) == 4 * (all_weights - table + tiny_config["hidden_size"])


def test_the_share_of_the_bandwidth_comes_with_what_was_counted(subject):
    [row] = bandwidth_rows(subject, 1, quick=True)
    assert row.unit == "GB/s"
    assert "a token reads" in row.note
    assert row.target is None  # it counts on a GPU, on the large shape


def test_runs_keep_within_the_context_and_the_short_one_is_an_eighth(subject):
    def runs(tokens, parameters=10**9, device="cpu", context=64):
        lm = SimpleNamespace(
            info=SimpleNamespace(parameters=parameters, device=device), context=context
        )
        speed = run_lengths(lm, tokens, 16)
        return speed.short, speed.long

    assert runs(40) == (5, 40)
    assert runs(4000) == (6, 48)
    assert runs(None, context=None) == (2, 16)
    assert runs(None, parameters=10**7, context=None) == (20, 160)
