"""`--format jsonl` and `--trace`: schema 1, complete, strict, and consistent with itself."""

from __future__ import annotations

import math
import os
import signal

import pytest

HEADER = {
    "type": str, "schema": int, "decodecli": str, "versions": dict, "model": dict, "prompt": str,
    "prompt_ids": list, "params": dict, "sources": dict, "order": list, "seed": int,
}  # fmt: skip
MODEL = ("name", "revision", "parameters", "vocab_size", "dtype", "device", "quantize")
DECODING = (
    "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff",
    "eta_cutoff", "top_nsigma", "repetition_penalty", "no_repeat_ngram_size", "stop", "seed",
    "num_samples", "bos",
)  # fmt: skip
OTHERS = (
    "model", "revision", "device", "dtype", "quantize", "candidates", "format", "trace", "tables",
    "quiet",
)  # fmt: skip
STEP = (
    "type", "index", "position", "token_id", "token", "text", "rank", "logit", "logprob",
    "tempered_logprob", "final_logprob", "entropy", "final_entropy", "kept", "candidates",
)  # fmt: skip
CANDIDATE = (
    "rank", "token_id", "token", "logit", "logprob", "tempered_logprob", "cumulative",
    "final_logprob", "removed_by",
)  # fmt: skip
SUMMARY = (
    "type", "text", "token_ids", "finish_reason", "prompt_tokens", "new_tokens", "mean_logprob",
    "perplexity", "seconds", "tokens_per_second",
)  # fmt: skip
SETTINGS = [
    (),
    ("-t", "1.4", "--top-p", "0.9"),
    ("--greedy",),
    ("-t", "20", "--top-k", "50", "--min-p", "0.5"),
    ("-t", "0.001"),
    ("-t", "100", "--typical-p", "0.9", "--candidates", "3"),
    ("--repetition-penalty", "1.3", "--no-repeat-ngram-size", "2", "--epsilon-cutoff", "0.001"),
    ("--eta-cutoff", "0.01", "--top-p", "1e-6"),
    ("--top-nsigma", "1", "-t", "3", "--no-repeat-ngram-size", "1"),
]
TIMINGS = ("seconds", "tokens_per_second")


def untimed(records):
    return [{k: v for k, v in record.items() if k not in TIMINGS} for record in records]


@pytest.fixture
def run(cli, tiny_folder):
    def run(*arguments, prompt="Hello", model=tiny_folder, **more):
        fixed = ("--format", "jsonl", "--seed", "3", "-n", "6", "-m", model)
        return cli("generate", prompt, *fixed, *arguments, **more).succeeded()

    return run


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_a_trace_is_one_header_its_steps_and_one_summary(run, settings):
    result = run(*settings)
    kinds = [record["type"] for record in result.records]
    assert kinds == ["run", *["step"] * (len(kinds) - 2), "summary"]
    assert len(result.steps) == 6
    header, summary = result.header, result.summary

    assert {key: type(header[key]) for key in HEADER} == HEADER
    assert header["schema"] == 1
    assert set(MODEL) <= set(header["model"])
    assert set(DECODING) <= set(header["params"])
    assert header["params"]["seed"] == header["seed"] == 3
    assert {*DECODING, *OTHERS} <= set(header["sources"])
    assert set(header["sources"].values()) <= {"flag", "env", "config", "preset", "user", "default"}
    assert all(type(token) is int for token in header["prompt_ids"])

    for index, step in enumerate(result.steps):
        assert set(STEP) <= set(step)
        assert step["index"] == index
        assert step["position"] == len(header["prompt_ids"]) + index
        assert type(step["token_id"]) is int
        assert type(step["kept"]) is int
        assert 1 <= step["kept"] <= header["model"]["vocab_size"]
        assert step["logprob"] <= 0
        assert step["final_logprob"] <= 0
        assert 0 <= step["entropy"] <= math.log(header["model"]["vocab_size"]) + 1e-9
        assert 0 <= step["final_entropy"] <= math.log(step["kept"]) + 1e-6

    assert set(SUMMARY) <= set(summary)
    assert summary["token_ids"] == [step["token_id"] for step in result.steps]
    assert summary["new_tokens"] == 6
    assert summary["prompt_tokens"] == len(header["prompt_ids"])
    assert summary["finish_reason"] == "length"
    assert summary["text"] == "".join(step["text"] for step in result.steps)
    mean = sum(step["logprob"] for step in result.steps) / 6
    assert summary["mean_logprob"] == pytest.approx(mean)
    assert summary["perplexity"] == pytest.approx(math.exp(-mean))
    assert set(summary["seconds"]) == {"load", "prefill", "decode"}
    assert all(value >= 0 for value in summary["seconds"].values())
    assert summary["tokens_per_second"] > 0


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_candidates_are_the_highest_logits_and_the_chosen_token(run, settings):
    result = run(*settings)
    wanted = 3 if "--candidates" in settings else 10
    for step in result.steps:
        rows = step["candidates"]
        assert all(set(CANDIDATE) <= set(row) for row in rows)
        chosen = [row for row in rows if row["token_id"] == step["token_id"]]
        assert len(chosen) == 1, "the chosen token is a row, once"
        for name in ("rank", "token", "logit", "logprob", "tempered_logprob", "final_logprob"):
            assert chosen[0][name] == step[name]
        assert chosen[0]["removed_by"] is None
        assert len(rows) == wanted + (step["rank"] > wanted)
        top = rows[:wanted]
        order = [(-row["logit"], row["token_id"]) for row in top]
        assert order == sorted(order)
        assert [row["rank"] for row in top] == list(range(1, wanted + 1))
        for row in rows:
            assert (row["final_logprob"] is None) == (row["removed_by"] is not None)
            assert row["removed_by"] in (None, *result.header["order"])
            assert 0 < row["cumulative"] <= 1 + 1e-6
        cumulative = [row["cumulative"] for row in rows]
        assert cumulative == sorted(cumulative)
        assert cumulative[0] == pytest.approx(math.exp(top[0]["tempered_logprob"]), rel=1e-4)


def test_the_order_names_the_active_stages_as_applied(run):
    every = (
        "--eta-cutoff", "0.01", "--epsilon-cutoff", "0.001", "--typical-p", "0.9", "--min-p", "0.01",
        "--top-p", "0.9", "--top-k", "40", "-t", "0.8", "--no-repeat-ngram-size", "3",
        "--repetition-penalty", "1.1", "--top-nsigma", "1",
    )  # fmt: skip
    assert run(*every).header["order"] == [
        "repetition_penalty", "no_repeat_ngram_size", "top_nsigma", "temperature", "top_k", "top_p",
        "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
    ]  # fmt: skip
    assert run("--top-p", "0.9").header["order"] == ["top_p"]
    assert run("--greedy", "--repetition-penalty", "1.1").header["order"][-1] == "greedy"


def test_every_stage_has_a_column_below_each_table(cli, tiny_folder):
    words = ("generate", "Hello", "-m", tiny_folder, "--seed", "3", "-n", "5", "--stages", "all")
    words = (*words, "-t", "0.5", "--top-k", "4", "--mirostat", "2", "--no-repeat-ngram-size", "2")
    shown = cli(*words).succeeded()
    heads = [line.split() for line in (shown.out + shown.err).splitlines() if "logits" in line]
    assert heads == [["token", "logits", "ngram", "temperature", "top_k", "mirostat"]] * 5
    alone = cli(*words[:-10], *words[-8:]).succeeded()
    assert alone.out in shown.out  # the same is drawn
    cli(*words, "--format", "jsonl").refused(2, "--stages all")
    cli(*words, "--tables", "line").refused(2, "--stages all")


def test_greedy_is_temperature_zero_and_its_final_distribution_is_one_hot(run):
    greedy, zero = run("--greedy"), run("-t", "0")
    assert untimed(greedy.steps) == untimed(zero.steps)
    assert greedy.header["params"]["temperature"] == 0
    for step in greedy.steps:
        assert step["rank"] == 1
        assert step["kept"] == 1
        assert step["final_logprob"] == 0
        assert step["final_entropy"] == 0
        assert step["tempered_logprob"] == pytest.approx(step["logprob"], abs=1e-5)
        assert {row["removed_by"] for row in step["candidates"][1:]} == {"greedy"}


def test_every_effective_value_is_recorded_with_its_source(run):
    result = run("-t", "1.4", "--top-p", "0.9", "--stop", "zebra", "--stop", "q")
    params, sources = result.header["params"], result.header["sources"]
    assert params["temperature"] == 1.4
    assert params["top_p"] == 0.9
    assert params["top_k"] == 0
    assert params["stop"] == ["zebra", "q"]
    assert params["max_new_tokens"] == 6
    assert sources["temperature"] == sources["top_p"] == sources["stop"] == "flag"
    assert sources["top_k"] == sources["min_p"] == "default"


def test_what_each_auto_became_is_recorded(run, tiny_folder):
    model = run("--device", "cpu").header["model"]
    assert model["name"] == str(tiny_folder)
    assert (model["dtype"], model["device"], model["quantize"]) == ("float32", "cpu", "none")
    assert model["parameters"] > 0
    assert model["vocab_size"] > 0


def test_text_segments_are_what_decoding_adds(run, tiny_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    result = run("-t", "20", "-n", "40", prompt="日本 é")
    prompt, new = result.header["prompt_ids"], result.summary["token_ids"]

    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    assert decode(prompt + new) == decode(prompt) + result.summary["text"]


def test_a_character_of_several_tokens_appears_once_it_is_whole(run, scripted, in_order):
    folder = scripted("京".encode()[:1], "京".encode()[1:2], "京".encode()[2:], "!")
    result = run(*in_order, "-n", "4", model=folder)
    assert [step["text"] for step in result.steps] == ["", "", "京", "!"]


def test_a_character_cut_off_by_the_end_is_flushed_as_a_replacement(run, scripted, in_order):
    folder = scripted("!", "京".encode()[:1], "京".encode()[1:2])
    result = run(*in_order, "-n", "3", model=folder)
    assert result.summary["text"] == "!\ufffd"
    assert [step["text"] for step in result.steps] == ["!", "", "\ufffd"]


def test_an_eos_ends_the_text_and_is_among_the_ids(run, scripted, in_order):
    folder = scripted(" Tokyo", " and", "<|end|>", " never")
    result = run(*in_order, model=folder)
    assert result.summary["finish_reason"] == "stop"
    assert result.summary["text"] == " Tokyo and"
    assert result.summary["token_ids"][-1] == 0
    assert result.summary["new_tokens"] == len(result.steps) == 3
    assert result.steps[-1]["text"] == ""


@pytest.mark.parametrize("eos", ["<|end|>", "<|turn|>", " and"])
def test_every_eos_of_the_generation_config_is_honoured(run, scripted, in_order, eos):
    ends = ["<|end|>", "<|turn|>", " and"]
    others = [end for end in ends if end != eos]
    folder = scripted(" Tokyo", eos, " never", *others, generation={"eos_token_id": ends})
    result = run(*in_order, model=folder)
    assert result.summary["finish_reason"] == "stop"
    assert result.summary["new_tokens"] == 2
    assert "never" not in result.summary["text"]


def test_a_stop_string_over_two_tokens_is_not_shown_nor_what_follows(run, scripted, in_order):
    folder = scripted(" rain", " EN", "D of", " never")
    result = run(*in_order, "--stop", "nothing", "--stop", "END", model=folder)
    assert result.summary["finish_reason"] == "stop"
    assert result.summary["text"] == " rain "
    assert "".join(step["text"] for step in result.steps) == " rain "
    assert result.summary["new_tokens"] == 3


def test_text_held_back_for_a_stop_string_that_never_comes_is_given_back(run, scripted, in_order):
    folder = scripted(" rain", " EN", "E")
    result = run(*in_order, "-n", "3", "--stop", "END", model=folder)
    assert result.summary["finish_reason"] == "length"
    assert result.summary["text"] == " rain ENE"
    half = run(*in_order, "-n", "2", "--stop", "END", model=folder)
    assert half.summary["text"] == " rain EN"
    assert half.steps[-1]["text"].endswith("EN")


def test_samples_have_the_seeds_that_follow_and_equal_single_runs(run):
    together = run("--num-samples", "3", "--seed", "40").records
    starts = [i for i, record in enumerate(together) if record["type"] == "run"]
    runs = [together[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    assert [records[0]["seed"] for records in runs] == [40, 41, 42]
    for records, seed in zip(runs, (40, 41, 42), strict=True):
        single = run("--seed", str(seed)).records
        assert untimed(records)[1:] == untimed(single)[1:]
        assert records[0]["params"]["num_samples"] == 3


def test_without_a_seed_one_is_drawn_and_recorded_so_that_the_run_can_be_repeated(cli, tiny_folder):
    arguments = ("generate", "Hello", "-m", tiny_folder, "-n", "8", "--format", "jsonl")
    first, second = cli(*arguments).succeeded(), cli(*arguments).succeeded()
    seeds = [first.header["seed"], second.header["seed"]]
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    assert seeds[0] != seeds[1]
    assert first.header["sources"]["seed"] == "default"
    again = cli(*arguments, "--seed", str(seeds[0]))
    assert again.summary["token_ids"] == first.summary["token_ids"]


@pytest.mark.parametrize("seed", ["0", "4294967295"])
def test_the_ends_of_the_range_of_seeds_work(cli, tiny_folder, seed):
    result = cli(
        "generate", "Hi", "-m", tiny_folder, "-n", "2", "--format", "jsonl", "--seed", seed
    )
    assert result.succeeded().header["seed"] == int(seed)


def test_the_trace_file_holds_what_jsonl_prints(run, tmp_path, read_trace):
    result = run("--trace", tmp_path / "t.jsonl", "--num-samples", "2")
    assert (tmp_path / "t.jsonl").read_bytes() == result.raw


@pytest.mark.parametrize("terminal", [True, False])
def test_the_trace_of_a_text_run_holds_the_same_numbers(
    cli, run, tiny_folder, tmp_path, read_trace, terminal
):
    path = tmp_path / "t.jsonl"
    arguments = ("generate", "Hello", "--seed", "3", "-n", "6", "-m", tiny_folder)
    text = cli(*arguments, "--trace", path, terminal=terminal).succeeded()
    records = read_trace(path)
    assert untimed(records)[1:] == untimed(run().records)[1:]
    if not terminal:
        assert records[-1]["text"] + "\n" == text.out


def test_a_trace_file_is_replaced_not_appended_to(run, tmp_path, read_trace):
    for _ in range(2):
        run("--trace", tmp_path / "t.jsonl")
    assert [r["type"] for r in read_trace(tmp_path / "t.jsonl")].count("run") == 1


def test_awkward_text_stays_one_object_a_line(run, scripted, in_order):
    folder = scripted("\n", "\u2028", "\x00", '"', "\\", "\x1b", "\x7f")
    result = run(*in_order, "-n", "7", model=folder, prompt="a b")
    assert result.summary["text"] == '\n\u2028\x00"\\\x1b\x7f'
    assert len(result.raw.split(b"\n")) == 1 + 7 + 1 + 1


def test_the_token_is_the_vocabularys_piece_exactly(run, tiny_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    for step in run().steps:
        assert step["token"] == tokenizer.convert_ids_to_tokens(step["token_id"])
        for row in step["candidates"]:
            assert row["token"] == tokenizer.convert_ids_to_tokens(row["token_id"])


def test_a_missing_folder_for_the_trace_is_told_before_anything_runs(cli, tmp_path):
    result = cli("generate", "Hi", "--trace", tmp_path / "nowhere" / "t.jsonl")
    assert result.code in (1, 2)
    result.refused(result.code, "--trace", "nowhere")


def test_a_folder_is_no_trace_file(cli, tmp_path):
    result = cli("generate", "Hi", "--trace", tmp_path)
    assert result.code in (1, 2)
    result.refused(result.code, "--trace", "folder")


# Runs that do not reach their end


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_an_error_that_names_the_step(
    cli, scripted, in_order, tmp_path, read_trace, value
):
    folder = scripted(" Tokyo", " and", " rain", poison=(" and", value))
    path = tmp_path / "t.jsonl"
    result = cli("generate", "Hi", "-m", folder, *in_order, "--quiet", "--trace", path)
    assert result.code == 1
    assert result.raw == b" Tokyo and\n"
    assert result.err.startswith("Error: ")
    assert len(result.err.splitlines()) <= 2
    assert "step 2" in result.err
    assert "finite" in result.err
    records = read_trace(path)
    assert records[-1]["type"] == "summary"
    assert records[-1]["finish_reason"] == "error"
    assert records[-1]["text"] == " Tokyo and"
    assert records[-1]["new_tokens"] == len(records) - 2 == 2


def test_logits_that_are_never_finite_leave_a_closed_trace_without_steps(
    cli, scripted, tmp_path, read_trace
):
    folder = scripted(" Tokyo", "x", poison=("x", math.nan))
    path = tmp_path / "t.jsonl"
    result = cli("generate", "axb", "-m", folder, "--format", "jsonl", "--quiet", "--trace", path)
    assert result.code == 1
    assert "step 0" in result.err
    for records in (result.records, read_trace(path)):
        assert [record["type"] for record in records] == ["run", "summary"]
        assert records[-1]["finish_reason"] == "error"
        assert records[-1]["mean_logprob"] is None
        assert records[-1]["token_ids"] == []


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_an_interrupt_closes_the_trace_as_interrupted(
    cli, scripted, in_order, misbehaving, tmp_path, read_trace, form
):
    class Once:
        done = False

        def __call__(self):
            if not self.done:
                self.done = True
                _interrupt()

    path = tmp_path / "t.jsonl"
    arguments = ("generate", "Hi", "-m", scripted(), *in_order, "-n", "9", "--quiet")
    stdout = misbehaving(Once(), after=3)
    result = cli(*arguments, "--format", form, "--trace", path, stdout=stdout)
    assert result.code == 130
    assert "Traceback" not in result.err
    records = read_trace(path)
    assert records[-1]["finish_reason"] == "interrupted"
    assert 3 <= records[-1]["new_tokens"] == len(records) - 2 < 9
    assert records[-1]["text"] == "".join(r["text"] for r in records[1:-1])
    if form == "jsonl":
        assert result.records == records
    else:
        assert result.out == records[-1]["text"] + "\n"


def test_an_interrupted_run_starts_no_further_sample(
    cli, scripted, in_order, misbehaving, tmp_path, read_trace
):
    path = tmp_path / "t.jsonl"
    arguments = ("generate", "Hi", "-m", scripted(), *in_order, "-n", "4", "--num-samples", "5")
    stdout = misbehaving(_interrupt, after=2)
    result = cli(*arguments, "--trace", path, stdout=stdout)
    assert result.code == 130
    assert [r["type"] for r in read_trace(path)].count("run") == 1


# What the user is told about the model


def test_a_chat_model_given_a_plain_prompt_brings_a_notice(cli, scripted):
    result = cli("generate", "Hi", "-m", scripted(template="{{ messages }}"), "-n", "2").succeeded()
    assert "template" in result.err
    plain = cli("generate", "Hi", "-m", scripted(name="plain"), "-n", "2").succeeded()
    assert "template" not in plain.err


def test_sampling_values_of_a_generation_config_are_named_and_not_applied(cli, scripted):
    suggested = {"temperature": 0.6, "top_k": 20, "top_p": 0.85, "do_sample": True}
    folder = scripted(generation=suggested)
    result = cli("generate", "Hi", "-m", folder, "-n", "2", "--format", "jsonl").succeeded()
    for words in ("temperature", "0.6", "top_k", "20", "0.85"):
        assert words in result.err
    assert "not applied" in result.err
    params = result.header["params"]
    assert (params["temperature"], params["top_k"], params["top_p"]) == (1.0, 0, 1.0)
    assert result.header["order"] == []


def test_a_hidden_top_k_of_transformers_is_not_applied(run):
    assert run().header["params"]["top_k"] == 0
    assert all(step["kept"] == run().header["model"]["vocab_size"] for step in run().steps[:1])


def test_a_filter_under_greedy_brings_a_notice(cli, scripted):
    result = cli("generate", "Hi", "-m", scripted(), "-n", "2", "--greedy", "--top-p", "0.9")
    assert "top_p" in result.succeeded().err


def test_one_candidate_or_more_than_there_are_tokens_is_no_trouble(run):
    vocab = run("--candidates", "1").header["model"]["vocab_size"]
    one, all_ = run("--candidates", "1"), run("--candidates", "1000000", "-n", "1", "--top-k", "5")
    assert {len(step["candidates"]) for step in one.steps} <= {1, 2}
    rows = all_.steps[0]["candidates"]
    assert len(rows) == vocab
    assert sum(math.exp(row["logprob"]) for row in rows) == pytest.approx(1, abs=1e-4)
    assert sum(math.exp(row["tempered_logprob"]) for row in rows) == pytest.approx(1, abs=1e-4)
    kept = [row for row in rows if row["removed_by"] is None]
    assert len(kept) == all_.steps[0]["kept"] == 5
    assert sum(math.exp(row["final_logprob"]) for row in kept) == pytest.approx(1, abs=1e-4)
    assert {row["removed_by"] for row in rows} == {None, "top_k"}
    assert rows[-1]["cumulative"] == pytest.approx(1, abs=1e-4)


def test_every_line_of_the_trace_is_on_disk_before_the_next_token(
    cli, scripted, in_order, misbehaving, tmp_path
):
    path, seen = tmp_path / "t.jsonl", []
    stdout = misbehaving(lambda: seen.append(path.read_bytes().count(b"\n")))
    arguments = ("generate", "Hi", "-m", scripted(), *in_order, "-n", "4", "--trace", path)
    cli(*arguments, stdout=stdout).succeeded()
    # Header, and a line for every token that is on stdout already.
    assert all(lines >= text for lines, text in zip(seen, (1, 2, 3, 4), strict=False))
    assert len(seen) >= 4


@pytest.mark.parametrize("at", [3, 4], ids=["last but one", "last"])
def test_an_interrupt_near_the_end_of_a_sample_is_not_lost(
    cli, scripted, in_order, misbehaving, tmp_path, read_trace, at
):
    writes = []

    def once() -> None:
        writes.append(1)
        if len(writes) == at:
            _interrupt()

    path = tmp_path / "t.jsonl"
    arguments = ("generate", "Hi", "-m", scripted(), *in_order, "-n", "4", "--num-samples", "3")
    result = cli(*arguments, "--trace", path, stdout=misbehaving(once))
    assert result.code == 130
    assert [r["type"] for r in read_trace(path)].count("run") == 1


def test_an_id_that_the_tokenizer_does_not_know_is_named_and_adds_no_text(run, scripted, in_order):
    import json

    from safetensors.torch import load_file, save_file

    folder = scripted(" Tokyo", " and")
    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    for name in ("transformer.wte.weight", "lm_head.weight"):
        rows = weights[name]
        weights[name] = rows.new_zeros(config["vocab_size"] + 7, rows.shape[1])
        weights[name][: len(rows)] = rows
    weights["lm_head.weight"][-1, 0] = 3.7  # between the two words
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config["vocab_size"] += 7
    (folder / "config.json").write_text(json.dumps(config))
    result = run(*in_order, "-n", "3", model=folder)
    assert result.summary["text"] == " Tokyo and"
    assert result.steps[1]["token_id"] == config["vocab_size"] - 1
    assert str(config["vocab_size"] - 1) in result.steps[1]["token"]
    assert result.steps[1]["text"] == ""


def test_a_dash_is_no_trace_file(cli):
    cli("generate", "hi", "--trace", "-").refused(2, "--format jsonl")


def test_the_loader_that_was_asked_for_is_recorded_and_repeated(cli):
    header = cli(
        "generate", "Hi", "-n", "1", "--loader", "transformers", "--format", "jsonl"
    ).header
    assert header["params"]["loader"] == "transformers"
    shown = cli("generate", "Hi", "-n", "1", "--loader", "transformers", terminal=True).succeeded()
    assert "--loader transformers" in shown.out.split("repeat:")[1]
    assert "loader" not in cli("generate", "Hi", "-n", "1", "--format", "jsonl").header["params"]
