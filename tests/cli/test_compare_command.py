"""`decodecli compare`: which cells of a folder are shown, and how the command behaves."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def runs(cli, here):
    """A sweep of two prompts, three temperatures, two nuclei and two seeds in the folder `runs`."""
    words = ("sweep", "Once", "The cat", "-t", "0,0.7,1.4", "--top-p", "0.5,1", "--seeds", "0,1")
    cli(*words, "-n", "4", "--no-plots", "--out", "runs", "--quiet").succeeded()
    return here / "runs"


def shown(result) -> list[dict]:
    blocks = json.loads(result.succeeded().out)["blocks"]
    return [cell for block in blocks for cell in block["cells"]]


def test_all_cells_are_compared_by_prompt_and_seed(cli, runs):
    found = json.loads(cli("compare", "runs", "--format", "json").succeeded().out)["blocks"]
    assert len(found) == 4
    assert [block["prompt"] for block in found] == ["Once", "Once", "The cat", "The cat"]
    assert all(len(block["cells"]) == 6 for block in found)
    assert found[0]["cells"][0]["label"] == "T 0 · top_p 0.5"
    assert found[0]["cells"][1]["parts_at"] is None, "greedy at either top-p"


def test_conditions_choose_cells(cli, runs):
    chosen = shown(
        cli(
            *("compare", "runs", "--prompt", "p1", "--at", "temperature=0.7,1.4"),
            *("--at", "top-p=1.0", "--seed", "1", "--format", "json"),
        )
    )
    assert [(c["prompt_id"], c["params"]["temperature"], c["params"]["top_p"]) for c in chosen] == [
        ("p1", 0.7, 1.0),
        ("p1", 1.4, 1.0),
    ]
    assert {c["params"]["seed"] for c in chosen} == {1}


def test_columns_may_be_seeds(cli, runs):
    words = ("compare", "runs", "--at", "temperature=1.4", "--columns", "seeds")
    found = json.loads(cli(*words, "--format", "json").succeeded().out)["blocks"]
    assert [cell["label"] for cell in found[0]["cells"]] == ["seed 0", "seed 1"]


def test_columns_may_be_prompts_each_in_front_of_its_text(cli, runs):
    words = ("compare", "runs", "--columns", "prompts", "--at", "temperature=0")
    words += ("--at", "top_p=1", "--seed", "0")
    out = cli(*words, env={"COLUMNS": "80"}).succeeded().out
    first = next(line for line in out.splitlines() if "│" in line)
    assert [part.strip() for part in first.split("│")] == ["p0", "p1"]
    assert "alike" not in out, "nothing is held against another prompt's text"
    texts = [line.split("│") for line in out.splitlines() if "│" in line]
    assert any(
        left.startswith("Once") and right.strip().startswith("The cat") for left, right in texts
    )
    found = json.loads(cli(*words, "--format", "json").succeeded().out)
    (block,) = found["blocks"]
    assert [cell["label"] for cell in block["cells"]] == ["p0", "p1"]


def test_one_number_of_the_chosen_cells_is_drawn(cli, runs, here):
    words = ("compare", "runs", "--plot", "bleu.svg", "--metric", "self-bleu", "--prompt", "p1")
    result = cli(*words).succeeded()
    assert result.out == ""
    assert "self-bleu of 12 cells drawn to bleu.svg" in result.err
    assert "Self-BLEU-4 over temperature" in (here / "bleu.svg").read_text()
    (here / "cells.jsonl").write_bytes((runs / "runs.jsonl").read_bytes())
    cli("compare", "cells.jsonl", "--plot", "one.png").succeeded()
    assert (here / "one.png").stat().st_size > 5000
    cli(*words[:4], "--metric", "bleu").refused(2, "--metric", "self-bleu")
    cli("compare", "runs", "--plot", "x.gif").refused(2, ".png")
    cli("compare", "runs", "--metric", "zipf").refused(2, "--plot")
    cli("compare", "runs", "--plot", "x.png", "--seed", "0", "--metric", "self-bleu").refused(
        2, "no self"
    )


def test_greedy_over_several_seeds_is_shown_once(cli, runs):
    for columns in ("auto", "seeds", "settings"):
        words = (
            "compare",
            "runs",
            "--at",
            "temperature=0",
            "--at",
            "top_p=1",
            "--columns",
            columns,
        )
        out = cli(*words).succeeded().out
        assert out.count("seeds 0 to 1: the same") == 2, "once a prompt"
        assert "seed 1" not in out
    found = json.loads(cli("compare", "runs", "--at", "temperature=0", "--format", "json").out)
    assert sum(len(block["cells"]) for block in found["blocks"]) == 8, "for programs, all are there"


def test_the_text_is_plain_off_a_terminal(cli, runs):
    result = cli("compare", "runs", "--prompt", "p0", "--seed", "0").succeeded()
    assert "\x1b" not in result.out
    assert "p0 · seed 0" in result.out
    assert "T 1.4" in result.out
    assert result.err == ""


def test_a_large_sweep_is_shown_in_part(cli, runs):
    result = cli("compare", "runs", "--limit", "3", "--format", "json")
    assert {cell["index"] for cell in shown(result)} == {0, 1, 2}
    assert "3 of 24 cells are shown" in result.err
    assert len(shown(cli("compare", "runs", "--limit", "0", "--format", "json"))) == 24


def test_a_sweep_that_still_runs_can_be_looked_at(cli, runs):
    with (runs / "runs.jsonl").open("ab") as file:
        file.write(b'{"type":"cell","ind')
    assert len(shown(cli("compare", "runs", "--format", "json"))) == 24


def test_what_is_the_same_in_the_shown_cells_is_told_where_the_sweep_has_more(cli, runs):
    words = ("compare", "runs", "--at", "temperature=1.4", "--at", "top_p=0.5", "--seed", "1")
    out = cli(*words).succeeded().out
    assert "constant: T 1.4 · top_p 0.5 · up to 4 tokens · BOS on\n" in out
    assert "decodecli generate Once --bos -n 4 -t 1.4 --top-p 0.5 --seed 1\n" in out
    few = cli("compare", "runs", "--limit", "2").succeeded().out
    assert "constant: T 0 (greedy) · top_p 0.5" in few
    (runs.parent / "saved.jsonl").write_bytes((runs / "runs.jsonl").read_bytes())
    out = cli("compare", "saved.jsonl", *words[2:]).succeeded().out
    assert "constant: T 1.4 · top_p 0.5" in out
    assert "decodecli generate" not in out, "of which model is not known"


def test_a_file_of_cells_will_do(cli, runs):
    whole = cli("compare", "runs", "--format", "json").succeeded().out
    assert cli("compare", "runs/runs.jsonl", "--format", "json").succeeded().out == whole
    (runs.parent / "saved.jsonl").write_bytes((runs / "runs.jsonl").read_bytes())
    assert cli("compare", "saved.jsonl", "--format", "json").succeeded().out == whole
    chosen = shown(cli("compare", "saved.jsonl", "--at", "temperature=0.7", "--format", "json"))
    assert {cell["params"]["temperature"] for cell in chosen} == {0.7}
    hint = "temperature is 0.0, 0.7, 1.4"
    cli("compare", "saved.jsonl", "--at", "temperature=3").refused(2, "no finished cell fits", hint)


def test_a_file_that_has_no_cells_is_told(cli, runs):
    (runs.parent / "other.jsonl").write_text('{"type": "run"}\n')
    cli("compare", "other.jsonl").refused(2, "line 1 is no cell", "--format jsonl")
    (runs.parent / "empty.jsonl").write_text("")
    cli("compare", "empty.jsonl").refused(1, "no finished cell")


@pytest.fixture
def failing(cli, here, tiny_folder):
    """A sweep of three prompts, the second of them longer than the context."""
    words = ("sweep", "Once", "word " * 300, "The cat", "-m", tiny_folder, "--seeds", "0,1")
    assert cli(*words, "-n", "4", "--no-plots", "--out", "failing", "--quiet").code == 1


def test_a_cell_that_failed_is_told(cli, failing):
    result = cli("compare", "failing").succeeded()
    assert "Note: cell 2 of p1 failed and is not shown, nor 1 more: the prompt has" in result.err
    assert "failed" not in cli("compare", "failing", "--prompt", "p2").succeeded().err
    cli("compare", "failing", "--prompt", "p1").refused(1, "2 cells that fits failed", "room for")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "is not there"),
        (("empty",), "not the folder of a sweep"),
        (("runs", "--at", "warmth=1"), "warmth"),
        (("runs", "--at", "temperature"), "no value"),
        (("runs", "--at", "temperature=hot"), "hot"),
        (("runs", "--at", "temperature=0.3"), "temperature is 0.0, 0.7, 1.4"),
        (("runs", "--prompt", "p9"), "prompts are p0, p1"),
        (("runs", "--seed", "9"), "seed is 0, 1"),
        (("runs", "--limit", "-1"), "limit"),
        (("runs", "--columns", "rows"), "columns"),
        (("runs", "--format", "csv"), "format"),
    ],
)
def test_wrong_usage_is_told(cli, runs, words, said):
    (runs.parent / "empty").mkdir()
    cli("compare", *words).refused(2, said)


def test_a_sweep_without_finished_cells_is_told(cli, runs):
    (runs / "runs.jsonl").write_bytes(b"")
    cli("compare", "runs").refused(1, "no finished cell")


def test_a_damaged_manifest_is_told(cli, runs):
    (runs / "sweep.toml").write_text("broken =")
    result = cli("compare", runs).refused(2, "sweep.toml", "put back")
    assert "--out" not in result.err


def test_a_damaged_file_is_told_with_its_line(cli, runs):
    (runs / "runs.jsonl").write_bytes(b"nonsense\n")
    cli("compare", "runs").refused(1, "line 1")


def test_nothing_heavy_is_imported(runs):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "decodecli", "compare", "runs"],
        capture_output=True, text=True, timeout=60, cwd=runs.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "transformers", "numpy"} & names
