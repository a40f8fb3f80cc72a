"""`decodecli inspect-logits` as typed, piped and misused."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex

import pytest

PROMPT = "The capital of Japan is"


def read(result) -> dict:
    return json.loads(result.succeeded().out)


def test_a_row_follows_a_token_across_temperatures(cli):
    found = read(cli("inspect-logits", PROMPT, "-t", "0.4,1.0,1.6", "--format", "json"))
    assert [column["temperature"] for column in found["temperatures"]] == [0.4, 1.0, 1.6]
    first = [column["tokens"][0] for column in found["temperatures"]]
    assert len({row["token_id"] for row in first}) == 1
    assert first[0]["probability"] > first[1]["probability"] > first[2]["probability"]
    entropies = [column["entropy"] for column in found["temperatures"]]
    assert entropies == sorted(entropies)
    assert found["limits"]["infinity"]["entropy"] == pytest.approx(math.log(found["size"]))


def test_what_looks_like_a_decimal_comma_is_noticed(cli):
    for typed, meant in (("0,7", "0.7"), ("1,25", "1.25")):
        err = cli("inspect-logits", PROMPT, "-t", typed).succeeded().err
        assert f"-t {typed} is two temperatures" in err
        assert meant in err
    for typed in ("0,1", "0.4,1", "1,2", "0,7,9"):
        assert "two temperatures" not in cli("softmax", "a=1", "b=2", "-t", typed).succeeded().err


def test_it_equals_the_first_step_of_generate(cli):
    options = ("--temperature", "1.4", "--top-p", "0.9")
    found = read(cli("inspect-logits", PROMPT, *options, "--format", "json"))
    step = cli("generate", PROMPT, *options, "-n", "1", "--format", "jsonl").steps[0]
    column = found["temperatures"][0]
    assert column["kept"] == step["kept"]
    for row, expected in zip(column["tokens"], step["candidates"], strict=False):
        assert row["token_id"] == expected["token_id"]
        assert row["logit"] == expected["logit"]
        assert row["removed_by"] == expected["removed_by"]
        assert row["probability"] == pytest.approx(math.exp(expected["tempered_logprob"]), rel=1e-4)


def test_a_continuation_is_found_by_text_and_by_id(cli):
    found = read(
        cli("inspect-logits", PROMPT, "--token", " Tokyo!", "--token", "300", "--format", "json")
    )
    whole, one = found["continuations"]
    assert whole["text"] == " Tokyo!"
    assert whole["probability"] == pytest.approx(math.exp(sum(whole["logprobs"])))
    assert one["token_ids"] == [300]
    shown = cli("inspect-logits", PROMPT, "--token", " Tokyo!").succeeded().out
    assert "as what comes next" in shown


def test_tokens_are_listed_in_the_order_given(cli):
    words = [" night", "300", " the", " Tokyo"]
    tokens = [part for word in words for part in ("--token", word)]
    options = (*tokens, "--sort", "given", "--target", " rain")
    found = read(cli("inspect-logits", PROMPT, *options, "--format", "json"))
    rows = found["temperatures"][0]["tokens"]
    first = [chain["token_ids"][0] for chain in found["continuations"]]
    assert [row["token_id"] for row in rows[:4]] == first
    assert rows[4]["token"] == found["target"]
    assert len(rows) == 5
    by_rank = read(cli("inspect-logits", PROMPT, *tokens, "--format", "json"))
    same = {row["token_id"]: row for row in by_rank["temperatures"][0]["tokens"]}
    assert all(same[row["token_id"]] == row for row in rows[:4])


def test_a_text_is_read_token_by_token(cli, tmp_path):
    path = tmp_path / "essay.txt"
    path.write_text("Once upon a time there was a dog. " * 60)
    found = read(cli("inspect-logits", "--file", path, "--all-positions", "--format", "json"))
    assert found["windows"] > 1
    assert found["positions"][0]["logprob"] is None
    scored = [p["logprob"] for p in found["positions"][1:]]
    assert found["perplexity"] == pytest.approx(math.exp(-sum(scored) / len(scored)))
    by_itself = cli("inspect-logits", "--file", path, "--format", "json")
    assert read(by_itself) == found
    assert "--all-positions" in by_itself.err
    out = cli("inspect-logits", "Once upon a time", "--all-positions").succeeded().out
    assert "perplexity" in out
    rows = list(
        csv.DictReader(
            io.StringIO(
                cli("inspect-logits", "Hi", "--all-positions", "--format", "csv").succeeded().out
            )
        )
    )
    assert rows[0]["position"] == "0"


@pytest.mark.parametrize(
    ("option", "variants"),
    [
        (("--compare-dtype", "float32,bfloat16"), ["float32", "bfloat16"]),
        (("--compare-bos",), ["bos", "no-bos"]),
        (("--compare-quantize", "none,nf4"), ["none", "nf4"]),
        (("--compare-model", "builtin,{folder}"), ["builtin", "{folder}"]),
    ],
)
def test_distributions_stand_side_by_side(cli, option, variants, tiny_folder):
    option = [word.format(folder=tiny_folder) for word in option]
    found = read(cli("inspect-logits", PROMPT, *option, "--format", "json"))
    assert [v["variant"] for v in found["variants"]] == [
        v.format(folder=tiny_folder) for v in variants
    ]
    first, second = found["variants"]
    assert (first["kl"], first["total_variation"]) == (0, 0)
    assert second["kl"] > 0
    assert 0 < second["total_variation"] <= 1
    ids = [[row["token_id"] for row in v["temperatures"][0]["tokens"]] for v in (first, second)]
    assert sorted(ids[0]) == sorted(ids[1])
    shown = cli("inspect-logits", PROMPT, *option).succeeded().out
    assert "KL, nats" in shown


ITALY = "The capital of Italy is"


@pytest.mark.parametrize("format", ["json", "jsonl", "csv"])
def test_prompts_stand_side_by_side(cli, format):
    out = cli("inspect-logits", PROMPT, ITALY, "-t", "0.5,1", "--format", format).succeeded().out
    alone = read(cli("inspect-logits", ITALY, "-t", "0.5,1", "--format", "json"))
    best = alone["temperatures"][1]["tokens"][0]
    if format == "json":
        first, second = json.loads(out)["variants"]
        assert [first["prompt"], second["prompt"]] == [PROMPT, ITALY]
        assert (first["kl"], first["ranks_changed"]) == (0, 0)
        assert second["kl"] > 1
        assert second["ranks_changed"] > 0
        rows = second["temperatures"][1]["tokens"]
    else:
        rows = [json.loads(line) for line in out.splitlines()] if format == "jsonl" else None
        rows = rows or list(csv.DictReader(io.StringIO(out)))
        rows = [r for r in rows if r["prompt"] == ITALY and float(r["temperature"]) == 1]
    (same,) = (row for row in rows if int(row["token_id"]) == best["token_id"])
    assert float(same["probability"]) == best["probability"]
    assert int(same["rank"]) == 1


def test_prompts_are_told_apart_by_letters_and_wrapped_to_the_width(cli):
    many = [f"{PROMPT} {k}" for k in range(6)]
    out = cli("inspect-logits", *many, "-c", "3", env={"COLUMNS": "80"}).succeeded().out
    assert max(map(len, out.splitlines())) <= 80
    assert f"F  {many[5]}" in out
    heads = [line.split() for line in out.splitlines() if line.lstrip().startswith("token ")]
    assert [head[1:] for head in heads] == [["A", "B", "C"], ["D", "E", "F"]]
    assert out.count("KL, nats") == 2


def test_one_of_several_prompts_may_be_piped(cli):
    found = read(cli("inspect-logits", PROMPT, "-", "--format", "json", stdin=ITALY.encode()))
    assert [v["prompt"] for v in found["variants"]] == [PROMPT, ITALY]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([PROMPT], "twice"),
        ([ITALY, "--compare-bos"], "one thing"),
        ([ITALY, "--all-positions"], "--all-positions"),
        ([ITALY, "--plot", "x.png"], "--plot"),
        ([ITALY, "--file", "x.txt"], "--file"),
    ],
)
def test_what_several_prompts_do_not_go_with(cli, words, said):
    cli("inspect-logits", PROMPT, *words).refused(2, said)


def test_a_target_of_several_tokens_is_noticed(cli):
    err = cli("inspect-logits", PROMPT, "--target", " Tokyo, said the cat").succeeded().err
    assert "the cross-entropy is of the first" in err


def test_all_logits_are_saved(cli, tmp_path):
    path = tmp_path / "logits.json"
    cli("inspect-logits", PROMPT, "--save", path).succeeded()
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert len(saved["tokens"]) == 6656
    assert saved["prompt"] == PROMPT


def test_a_word_without_its_space_is_noticed(cli):
    err = cli("inspect-logits", "Once upon a", "--token", "time").succeeded().err
    assert "' time'" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-t", "x"], "--temperature"),
        (["-t", "-1"], "--temperature"),
        (["--token", "99999"], "99999"),
        (["--format", "yaml"], "--format"),
        (["--save", "x.txt"], "--save"),
        (["--plot", "x.gif"], ".png"),
        (["--compare-dtype", "float32"], "two or more"),
        (["--compare-dtype", "float32,float8"], "--dtype"),
        (["--compare-dtype", "float32,float32"], "twice"),
        (["--compare-bos", "--compare-dtype", "float32,bfloat16"], "one thing"),
        (["--all-positions", "--compare-bos"], "--all-positions"),
        (["--all-positions", "--window", "100000"], "--window"),
        (["--all-positions", "--stride", "0"], "--stride"),
        (["--all-positions", "-t", "0.5,1"], "--temperature"),
        (["--plot", "-", "--format", "json"], "--plot -"),
        (["--top-p", "1.5"], "--top-p"),
        (["--sort", "given"], "--token"),
        (["--compare-order", "vllm"], "two or more"),
        (["--compare-order", "vllm,ollama"], "no engine 'ollama'"),
        (["--compare-order", "vllm,mlx", "-t", "0.5,1"], "one temperature"),
        (["--compare-order", "vllm,mlx", "--save", "x.npz"], "--save"),
        (["--compare-order", "vllm,mlx", "--stages", "all"], "leave one out"),
        (["--stages", "first"], "last, all"),
        (["--order", "top_p", "--top-k", "3"], "leaves out top_k"),
        (["--sort", "down"], "--sort"),
        (["--candidates", "0"], "--candidates"),
    ],
)
def test_what_makes_no_sense_is_refused(cli, words, said):
    cli("inspect-logits", PROMPT, *words).refused(2, said)


def test_orders_stand_side_by_side_with_what_each_keeps(cli, strict):
    words = ("inspect-logits", PROMPT, "-t", "1.4", "--top-p", "0.9", "-c", "5")
    names = "transformers,llama.cpp,vllm,mlx"
    report = strict(cli(*words, "--compare-order", names, "--format", "json").succeeded().out)
    kept = {column["name"]: column["kept"] for column in report["columns"]}
    assert kept["transformers"] == kept["vllm"] > 3 * kept["llama.cpp"] == 3 * kept["mlx"]
    distances = report["total_variation"]
    assert distances[0][0] == distances[0][2] == distances[1][3] == 0
    assert 0.05 < distances[0][1] < 1
    assert distances[0][1] == distances[1][0]
    for name in names.split(","):
        alone = cli(*words, "--order", name, "--format", "json").succeeded()
        tokens = strict(alone.out)["temperatures"][0]["tokens"]
        rows = {row["token_id"]: row["final"] for row in tokens}
        number = names.split(",").index(name)
        for row in report["rows"]:
            assert row["after"][number] == pytest.approx(rows[row["token_id"]] or 0, abs=1e-6)
    table = cli(*words, "--compare-order", names).succeeded().out
    assert "llama.cpp: top_p → temperature" in table


def test_every_stage_has_a_column_of_what_it_leaves(cli, strict):
    words = ("inspect-logits", PROMPT, "-t", "0.5", "--top-k", "3", "--stages", "all", "-c", "5")
    report = strict(cli(*words, "--format", "json").succeeded().out)
    assert [column["name"] for column in report["columns"]] == ["logits", "temperature", "top_k"]
    before, tempered, final = zip(*(row["after"] for row in report["rows"]), strict=True)
    assert before == tuple(row["probability"] for row in report["rows"])
    assert tempered[0] > before[0]
    assert final[3:] == (0, 0)
    assert sum(final) == pytest.approx(1)
    assert [row["removed_by"][2] for row in report["rows"]] == [None] * 3 + ["top_k"] * 2
    for width in ("40", "100"):
        out = cli(*words, env={"COLUMNS": width}).succeeded().out
        assert max(map(len, out.splitlines())) <= int(width)
        assert "top_k" in out


def test_models_of_other_vocabularies_are_not_compared(cli, tmp_path):
    from conftest import tiny_network
    from tokenizer_families import make

    tiny_network("llama").save_pretrained(tmp_path)
    make("byte_level").save_pretrained(tmp_path)
    result = cli("inspect-logits", PROMPT, "--compare-model", f"builtin,{tmp_path}")
    result.refused(2, "vocabular")


def test_a_comparison_shows_the_target_and_says_what_its_distances_leave_out(cli):
    words = ["The capital", "--compare-bos", "--target", " city"]
    report = json.loads(cli("inspect-logits", *words, "--format", "json").succeeded().out)
    losses = [v["temperatures"][0]["cross_entropy"] for v in report["variants"]]
    table = cli("inspect-logits", *words).succeeded().out
    (line,) = [line for line in table.split("\n") if "cross-entropy" in line]
    assert line.split()[1:] == [f"{loss:.2f}" for loss in losses]
    assert "▸ ␣city" in table
    assert "before repetition_penalty" not in table
    penalised = cli("inspect-logits", *words, "--repetition-penalty", "1.3").succeeded().out
    assert "before repetition_penalty" in " ".join(penalised.split())


@pytest.mark.parametrize(
    "words",
    [["The", "capital", "of"], ["Hello", "there!"], ["It's", "a", "well-known", "2nd"]],
)
def test_words_without_their_quotes_are_noticed(cli, words):
    result = cli("inspect-logits", *words, "-c", "1").succeeded()
    assert f"{len(words)} prompts: {', '.join(words)}" in result.err
    (command,) = re.findall("decodecli inspect-logits .*", result.err)
    assert shlex.split(command)[2:] == [" ".join(words)]
    assert cli("inspect-logits", *words, "-c", "1", "--quiet").succeeded().err == ""


def test_prompts_of_several_words_are_no_mistake(cli):
    assert "prompts:" not in cli("inspect-logits", "The cat", "A dog", "-c", "1").succeeded().err


def test_limits_that_have_no_room_are_told_below(cli):
    narrow = cli("inspect-logits", "Hi", "-t", "0.5,1", env={"COLUMNS": "40"}).succeeded().out
    assert "T→0: entropy 0.00" in narrow
    assert max(map(len, narrow.split("\n"))) <= 40
    assert "their columns need" not in cli("inspect-logits", "Hi").succeeded().out


def test_a_picture_is_told_of(cli, tmp_path):
    path = tmp_path / "picture.svg"
    assert f"drawn in {path}" in cli("inspect-logits", "Hi", "--plot", str(path)).succeeded().err
    quiet = cli("inspect-logits", "Hi", "--plot", str(path), "--quiet").succeeded()
    assert quiet.err == ""


def test_by_word_prints_a_table_and_rows_that_pandas_reads(cli):
    asked = ("inspect-logits", "The hedgehog was happy.", "--all-positions", "--by-word")
    table = cli(*asked).succeeded().out
    assert "corrected" in table
    assert "hedgehog" in table
    rows = list(csv.DictReader(io.StringIO(cli(*asked, "--format", "csv").succeeded().out)))
    assert [row["word"] for row in rows] == ["The", "hedgehog", "was", "happy."]
    assert float(rows[1]["corrected_surprisal"]) > 0
    report = json.loads(cli(*asked, "--format", "json").succeeded().out)
    assert report["words"][1]["tokens"]
    lines = cli(*asked, "--format", "jsonl").succeeded().out.splitlines()
    assert len(lines) == 4
    cli("inspect-logits", "Hi", "--by-word").refused(2, "--by-word goes with --all-positions")
    cli(*asked, "--plot", "x.png").refused(2, "--by-word is a table")
