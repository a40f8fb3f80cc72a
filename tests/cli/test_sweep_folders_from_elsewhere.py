"""Folders and grids that travel: what they may not ask for, and values that no sweep has written."""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decodecli.sweeps.grid import to_toml


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def runs(cli, here):
    words = ("sweep", "Once", "Two", "-t", "0,1", "--seeds", "0,1", "-n", "3", "--no-plots")
    cli(*words, "--out", "runs", "--quiet").succeeded()
    return here / "runs"


@pytest.fixture
def runs_code(copied, edit_json):
    """A model folder whose Python code leaves a mark where it runs."""
    folder = copied("coded")
    mark = folder.parent / "the-code-ran"
    (folder / "code.py").write_text(f"open({str(mark)!r}, 'w')\nraise SystemExit('ran')\n")
    edit_json(
        folder / "config.json",
        model_type="own",
        auto_map={"AutoConfig": "code.Own", "AutoModelForCausalLM": "code.Own"},
    )
    return folder, mark


@pytest.mark.parametrize("name", ["trust_remote_code", "allow_pickle"])
def test_no_file_that_travels_with_data_has_the_models_code_run(cli, here, runs_code, runs, name):
    model, mark = runs_code
    grid = here / "grid.toml"
    grid.write_text(f'model = "{model}"\n{name} = true\nprompts = ["Once"]\nseeds = 0\n')
    asked = f'model = "{model}"\n{name} = true\n' + (runs / "sweep.toml").read_text()
    (runs / "sweep.toml").write_text(asked)
    (runs / "runs.jsonl").write_text("")
    for words in (
        ("sweep", "--grid", "grid.toml"),
        ("sweep", "--config", "grid.toml"),
        ("sweep", "--grid", "runs/sweep.toml"),
        ("sweep", "--out", "runs"),
        ("sweep", "Once", "Two", "-t", "0,1", "--seeds", "0,1", "-n", "3", "--out", "runs"),
        ("compare", "runs"),
        ("generate", "Once", "--config", "grid.toml"),
    ):
        before = sorted(here.iterdir())
        result = cli(*words)
        if words[-1] == "grid.toml" and "--config" in words:  # which knows no prompts
            grid.write_text(f'model = "{model}"\n{name} = true\n')
            result = cli(*words)
        result.refused(2, name)
        assert sorted(here.iterdir()) == before
    assert not mark.exists()


def test_no_file_that_travels_with_data_names_a_cluster(cli, here, runs):
    """A cluster that is somebody else's hands back pickled objects, which can be code."""
    other = 'engine = "ray"\naddress = "203.0.113.7:6379"\n'
    (here / "config.toml").write_text(other)
    (here / "grid.toml").write_text(other + 'prompts = ["Once"]\nseeds = 0\n')
    asked = (runs / "sweep.toml").read_text()
    (runs / "sweep.toml").write_text(other + asked)
    (runs / "runs.jsonl").write_text("")
    for words in (
        ("sweep", "--grid", "grid.toml"),
        ("sweep", "--config", "config.toml"),
        ("sweep", "--grid", "runs/sweep.toml"),
        ("sweep", "--out", "runs"),
        ("compare", "runs"),
    ):
        result = cli(*words)
        result.refused(2, "sets address, which only you can")
        assert "--address" in result.err


# ── Values that no sweep has written ───────────────────────────────────────────────────────────


def sane(result):
    assert result.code in (0, 1, 2), result.err
    assert "bug" not in result.err.replace("debug", ""), result.err
    assert "Traceback" not in result.err, result.err
    if result.code:
        assert result.err.startswith("Error: ") or "\nError: " in result.err, result.err
    return result


CELL_KEYS = (
    *("index", "prompt_id", "task", "prompt", "params", "text", "token_ids", "finish_reason"),
    *("prompt_tokens", "new_tokens", "mean_logprob", "perplexity", "mean_entropy", "distinct_1"),
    *("distinct_2", "distinct_3", "repeats", "correct", "segments", "logprobs", "error", "type"),
    *(
        "params.temperature",
        "params.seed",
        "params.stop",
        "params.bos",
        "params.greedy",
        "params.x",
    ),
)
SWEEP_KEYS = (
    *("temperature", "top_k", "top_p", "stop", "seed", "bos", "max_new_tokens", "prompts", "zip"),
    *("model", "revision", "device", "description", "batch_size", "sweep", "sweep.exact"),
    *("sweep.fingerprint", "sweep.cells", "sweep.started", "sweep.traces", "sweep.model"),
    *("sweep.tokens_per_second", "sweep.model.name", "sweep.model.parameters", "sweep.model.dtype"),
    *("sweep.versions", "sweep.versions.torch", "sweep.model.weights", "sweep.model.device"),
)
NUMBERS = (0, -1, 1, 2**31, 2**63, 10**400, 1e308, -1e308, 5e-324, 0.5)
ANY = st.recursive(
    st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.integers() | st.text(max_size=5)
    | st.floats() | st.sampled_from(["\ud800", "\x1b[2J", "0..4", "log:1:2:3", "nan", "x" * 3000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)  # fmt: skip
MANY = settings(
    max_examples=40, deadline=20_000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def put(found: dict, key: str, value: object) -> None:
    *path, last = key.split(".")
    for name in path:
        found = found[name]
    found[last] = value


def as_toml(found: dict) -> str:
    """A table as TOML, whatever is in it that TOML can say."""
    plain = {k: v for k, v in found.items() if not isinstance(v, dict)}
    tables = {k: v for k, v in found.items() if isinstance(v, dict)}
    lines = [f"{json.dumps(k)} = {toml_value(v)}\n" for k, v in plain.items()]
    for name, table in tables.items():
        inner = re.sub(r"^\[", lambda _, k=name: f"[{json.dumps(k)}.", as_toml(table), flags=re.M)
        lines.append(f"[{json.dumps(name)}]\n{inner}")
    return "".join(lines)


def toml_value(value: object) -> str:
    if value is None:
        return '""'
    if (isinstance(value, float) and value != value) or value in (float("inf"), float("-inf")):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, dict):
        pairs = (f"{json.dumps(k)} = {toml_value(v)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    return to_toml(value)


@MANY
@given(st.sampled_from(CELL_KEYS), ANY, st.integers(0, 7))
def test_any_value_in_any_key_of_a_cell_ends_in_a_line(cli, runs, key, value, which):
    path = runs / "runs.jsonl"
    data = path.read_bytes()
    try:
        lines = data.splitlines()
        cell = json.loads(lines[which])
        put(cell, key, value)
        lines[which] = json.dumps(cell).encode()
        path.write_bytes(b"\n".join(lines) + b"\n")
        result = sane(cli("compare", "runs"))
        if result.code:
            assert result.code == 1, result.err
            assert f"line {which + 1}" in result.err
        (runs.parent / "cells.jsonl").write_bytes(path.read_bytes())
        sane(cli("compare", "cells.jsonl"))
        sane(cli("sweep", "--out", "runs", "--dry-run"))
        sane(cli("sweep", "--out", "runs", "--no-plots"))
    finally:
        path.write_bytes(data)


@MANY
@given(st.sampled_from(SWEEP_KEYS), ANY)
def test_any_value_in_any_key_of_what_was_asked_ends_in_a_line(cli, runs, key, value):
    path = runs / "sweep.toml"
    text = path.read_text()
    try:
        found = tomllib.loads(text)
        put(found, key, value)
        path.write_text(as_toml(found).encode("utf-8", "replace").decode())
        sane(cli("compare", "runs"))
        sane(cli("sweep", "--out", "runs", "--dry-run"))
        sane(cli("sweep", "--grid", "runs/sweep.toml", "--dry-run"))
        if key.startswith("sweep."):
            sane(cli("sweep", "--out", "runs", "--no-plots"))
    finally:
        path.write_text(text)


@pytest.mark.parametrize("name", ["runs.jsonl", "sweep.toml"])
@pytest.mark.parametrize("depth", [3_000, 100_000])
def test_deep_nesting_is_told(cli, runs, name, depth):
    nested = "[" * depth + "]" * depth
    line = f'{{"index": {nested}}}\n' if name == "runs.jsonl" else f"x = {nested}\n"
    (runs / name).write_text(line)
    assert sane(cli("compare", "runs")).code
    assert sane(cli("sweep", "--out", "runs")).code


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["runs.jsonl", "sweep.toml"])
def test_a_named_pipe_in_a_folder_is_not_waited_for(cli, runs, name):
    (runs / name).unlink()
    os.mkfifo(runs / name)
    cli("compare", "runs").refused(1, "not a file")
    cli("sweep", "--out", "runs").refused(1, "not a file")


@pytest.mark.parametrize("word", ["x" * 5000, "~nobody-of-this-name/x", "y" * 300])
def test_a_name_that_the_system_does_not_take_is_no_folder(cli, here, word):
    cli("compare", word).refused(2, "is not there")
    assert sane(cli("sweep", "Once", "-n", "1", "--out", word, "--dry-run")).code in (0, 1, 2)
    if len(word) > 100:
        cli("sweep", "Once", "-n", "1", "--out", word).refused(2, "--out")


def edited(folder, number: int, **changes: object) -> None:
    lines = (folder / "runs.jsonl").read_text().splitlines()
    lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | changes)
    (folder / "runs.jsonl").write_text("\n".join(lines) + "\n")


def test_a_cell_that_was_forged_is_named_with_its_line(cli, runs):
    kept = runs.with_name("kept")
    shutil.copytree(runs, kept)
    first = json.loads((runs / "runs.jsonl").read_text().splitlines()[0])

    def refused(*words: str) -> None:
        for command in (("compare", "runs"), ("sweep", "--out", "runs")):
            cli(*command).refused(1, "runs.jsonl", *words)
        shutil.rmtree(runs)
        shutil.copytree(kept, runs)

    with (runs / "runs.jsonl").open("a") as file:
        file.write(json.dumps(first | {"text": "forged"}) + "\n")
    refused("line 9", f"cell {first['index']} again", "line 1")
    for index in range(8):
        if index != first["index"]:
            edited(runs, 1, index=index)
            (runs / "runs.jsonl").write_text(
                (runs / "runs.jsonl").read_text().splitlines()[0] + "\n"
            )
            refused("line 1", f"cell {index}", "another")
    for key in ("mean_logprob", "mean_entropy", "perplexity"):
        edited(runs, 2, **{key: float("nan")})
        refused("line 2", "no cell")
    edited(runs, 3, token_ids=[1])
    refused("line 3", "disagree")


def test_a_line_that_stands_twice_as_it_is_counts_once(cli, runs):
    before = cli("compare", "runs").succeeded().out
    text = (runs / "runs.jsonl").read_text()
    (runs / "runs.jsonl").write_text(text + text.splitlines()[0] + "\n")
    assert cli("compare", "runs").succeeded().out == before
