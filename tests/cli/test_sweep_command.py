"""`decodecli sweep`: cells on standard output and in a folder, going on, and what is refused."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from decodecli.sweeps import store as store_module

TINY = ("-n", "4", "--no-plots")


def cells(folder: Path) -> list[dict]:
    data = (folder / "runs.jsonl").read_bytes()
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def of(records: list[dict]) -> list[tuple]:
    return [
        (r["index"], r["params"]["temperature"], r["params"]["seed"], tuple(r["token_ids"]))
        for r in sorted(records, key=lambda r: r["index"])
    ]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ── What comes out ─────────────────────────────────────────────────────────────────────────────


def test_lines_on_standard_output_are_the_cells_and_nothing_is_written(cli, here):
    result = cli(
        "sweep", "Once", "The cat", "-t", "0,1.0", "--seeds", "0..2", *TINY, "--format", "jsonl"
    )
    records = result.succeeded().records
    assert sorted(r["index"] for r in records) == list(range(12))
    assert {r["prompt"] for r in records} == {"Once", "The cat"}
    assert all(len(r["token_ids"]) == 4 and r["type"] == "cell" for r in records)
    assert "".join(records[0]["segments"]) == records[0]["text"]
    assert list(here.iterdir()) == []


def test_the_cells_are_those_of_generate(cli, here):
    swept = cli(
        "sweep",
        "Once",
        "-t",
        "0.5,1.4",
        "--top-p",
        "0.9",
        "--seeds",
        "3,4",
        *TINY,
        "--format",
        "jsonl",
    )
    for record in swept.succeeded().records:
        params = record["params"]
        alone = cli(
            "generate",
            "Once",
            "-n",
            4,
            "-t",
            params["temperature"],
            "--top-p",
            "0.9",
            "--seed",
            params["seed"],
            "--format",
            "jsonl",
        )
        assert alone.summary["token_ids"] == record["token_ids"]
        assert alone.summary["text"] == record["text"]


def test_off_a_terminal_the_table_is_plain_text_and_the_folder_is_named(cli, here):
    result = cli("sweep", "Once", "-t", "0.5,1.0", "--seeds", "0,1", *TINY).succeeded()
    (folder,) = (here / "decodecli-runs").iterdir()
    assert folder.name.startswith("sweep-2")
    said, named = result.err.splitlines(), folder.relative_to(here)
    assert said[0] == f"Note: results go to {named}", "before it starts"
    assert f"page: {named}/report.html" in result.err
    assert f"decodecli compare {named}\n" in result.err
    assert "\x1b" not in result.out
    assert "2 settings" in result.out
    assert len(cells(folder)) == 4
    assert {"runs.jsonl", "summary.csv", "summary.md", "sweep.toml"} <= {
        p.name for p in folder.iterdir()
    }
    assert "perplexity" in (folder / "summary.csv").read_text()


def test_lines_and_a_folder_go_together(cli, here):
    result = cli("sweep", "Once", "--seeds", "0,1", *TINY, "--format", "jsonl", "--out", "out")
    assert sorted(result.succeeded().out.splitlines()) == sorted(
        (here / "out" / "runs.jsonl").read_text().splitlines()
    )
    assert (here / "out" / "summary.md").exists()


def test_quiet_says_nothing_on_stderr(cli, here):
    result = cli("sweep", "Once", *TINY, "--quiet", "--out", "out").succeeded()
    assert result.err == ""
    assert "cell" in result.out


def test_traces_are_the_traces_of_generate(cli, here):
    cli(
        "sweep", "Once", "--seeds", "5,6", *TINY, "--traces", "--candidates", 3, "--out", "out"
    ).succeeded()
    kept = sorted((here / "out" / "traces").iterdir())
    assert [path.name for path in kept] == ["000000.jsonl", "000001.jsonl"]
    lines = [json.loads(line) for line in kept[1].read_text().splitlines()]
    alone = cli("generate", "Once", "-n", 4, "--seed", 6, "--candidates", 3, "--format", "jsonl")
    assert [line["type"] for line in lines] == ["run", *["step"] * 4, "summary"]
    assert [s["token_id"] for s in lines[1:-1]] == [s["token_id"] for s in alone.steps]
    assert [c["token_id"] for c in lines[1]["candidates"]] == [
        c["token_id"] for c in alone.steps[0]["candidates"]
    ]


def test_plots_are_drawn_unless_they_are_not_wanted(cli, here):
    pytest.importorskip("matplotlib")
    cli("sweep", "Once", "-t", "0.5,1,1.5", "-n", 4, "--seeds", "0,1", "--out", "out").succeeded()
    assert any((here / "out" / "plots").iterdir())
    assert "data:image/png" in (here / "out" / "report.html").read_text()
    cli("sweep", "Once", "-t", "0.5,1", *TINY, "--out", "bare").succeeded()
    assert not (here / "bare" / "plots").exists()
    assert "data:image" not in (here / "bare" / "report.html").read_text()


def test_show_puts_the_texts_side_by_side(cli, here):
    result = cli("sweep", "Once", "-t", "0,1.4", "--seed", "1", *TINY, "--show", "--out", "out")
    text = result.succeeded().out
    assert "T 0" in text
    assert "T 1.4" in text
    assert cells(here / "out")[0]["text"].split()[0] in text


def test_prompts_come_from_files_standard_input_or_the_default(cli, here):
    (here / "two.txt").write_text("Once\nThe cat\n")
    (here / "one.txt").write_text("Two lines\nof one\n")

    def prompts(*words, **more):
        result = cli("sweep", *words, "--seed", "0", *TINY, "--format", "jsonl", **more)
        return [r["prompt"] for r in sorted(result.succeeded().records, key=lambda r: r["index"])]

    assert prompts("--prompts", "two.txt") == ["Once", "The cat"]
    assert prompts("First", "--prompts", "two.txt") == ["First", "Once", "The cat"]
    assert prompts("--prompts", "-", stdin=b'{"prompt": "A"}\n{"prompt": "B"}\n') == ["A", "B"]
    assert prompts("--file", "one.txt") == ["Two lines\nof one"]
    assert prompts(stdin=b"From a pipe\n") == ["From a pipe"]
    assert prompts("First", "-", stdin=b"From a pipe\n") == ["First", "From a pipe"]
    assert prompts() == ["Once upon a time,"]


def test_a_grid_file_gives_axes_prompts_and_model(cli, here, tiny_folder):
    (here / "grid.toml").write_text(
        f'model = "{tiny_folder}"\nprompts = ["Once", "Two"]\ntemperature = "0.5:1.5:0.5"\n'
        "top_p = [0.2, 0.9, 1.0]\nzip = [['temperature', 'top_p']]\nseeds = '0..1'\nmax_new_tokens = 3\n"
    )
    result = cli("sweep", "--grid", "grid.toml", "--no-plots", "--format", "jsonl").succeeded()
    settings = {(r["params"]["temperature"], r["params"]["top_p"]) for r in result.records}
    assert settings == {(0.5, 0.2), (1.0, 0.9), (1.5, 1.0)}
    assert len(result.records) == 12
    over = cli("sweep", "--grid", "grid.toml", "--seed", "7", "Mine", "--format", "jsonl")
    assert {(r["prompt"], r["params"]["seed"]) for r in over.succeeded().records} == {("Mine", 7)}


def test_a_folder_that_was_not_typed_is_told(cli, here):
    (here / "grid.toml").write_text('prompts = ["Once"]\nseeds = 0\nout = "mine"\n')
    result = cli("sweep", "--grid", "grid.toml", *TINY).succeeded()
    assert "results go to mine (from the grid file)" in result.err
    assert len(cells(here / "mine")) == 1
    typed = cli("sweep", "--grid", "grid.toml", *TINY, "--out", "typed").succeeded()
    assert "results go to" not in typed.err


def test_bos_is_an_axis(cli, here):
    result = cli("sweep", "Once", "--bos", "on,off", "--seed", 0, *TINY, "--format", "jsonl")
    by_bos = {r["params"]["bos"]: r["prompt_tokens"] for r in result.succeeded().records}
    assert by_bos[True] == by_bos[False] + 1
    one = cli("sweep", "Once", "--no-bos", "--seed", 0, *TINY, "--format", "jsonl").succeeded()
    assert [r["params"]["bos"] for r in one.records] == [False]
    cli("sweep", "Once", "--no-bos", "--bos", "on").refused(2, "--no-bos")


def test_a_line_says_whether_bos_was_added(cli, here):
    result = cli("sweep", "Once", "--seed", 0, *TINY, "--format", "jsonl").succeeded()
    assert [r["params"]["bos"] for r in result.records] == [True]


def test_auto_beside_another_bos_is_a_setting_of_its_own(cli, here):
    words = ("sweep", "Once", "--bos", "auto,on,off", "--seed", 0, *TINY, "--out", "out")
    cli(*words).succeeded()
    assert sorted(r["params"]["bos"] for r in cells(here / "out")) == [False, True, True]
    rows = (here / "out" / "summary.csv").read_text().splitlines()
    assert len(rows) == 1 + 3
    found = json.loads(cli("compare", "out", "--format", "json").succeeded().out)["blocks"]
    assert len({cell["label"] for cell in found[0]["cells"]}) == 3


def test_an_option_given_twice_has_the_values_of_both(cli, here):
    words = (
        "Once",
        "-t",
        "0.7",
        "-t",
        "1.2",
        "--seeds",
        "0",
        "--seeds",
        "3..4",
        "-n",
        "4",
        "-n",
        "5",
    )
    bos = ("--bos", "on", "--bos", "off")
    lines = cli("sweep", *words, *bos, "--dry-run", "--format", "jsonl").succeeded().records
    found = [line["params"] for line in lines]
    assert len(found) == 2 * 3 * 2 * 2
    assert {params["temperature"] for params in found} == {0.7, 1.2}
    assert {params["seed"] for params in found} == {0, 3, 4}
    assert {params["max_new_tokens"] for params in found} == {4, 5}
    assert {params["bos"] for params in found} == {True, False}
    cli("sweep", "Once", "-t", "0.7", "-t", "0.7", "--seed", "0").refused(2, "0.7 twice")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("-t", "0.2", "0.7", "1.4"),
            "0.7, 1.4 are prompts here; values of an option are joined by",
        ),
        (("-t", "0.2", "0.7", "1.4"), "--temperature 0.2,0.7,1.4"),
        (("--top-p", "0.2", "0.9", "--seeds", "0,1"), "0.9 is a prompt here"),
        (("--top-p", "0.2", "0.9", "--seeds", "0,1"), "--top-p 0.2,0.9"),
        (("--seeds", "0", "1"), "--seeds 0,1"),
    ],
)
def test_prompts_that_look_like_values_are_told(cli, here, words, said):
    result = cli("sweep", "Once", *words, "--dry-run").succeeded()
    assert said in result.err
    assert "prompts" in result.out, "they are prompts all the same"


def test_a_prompt_with_numbers_in_it_is_no_note(cli, here):
    assert "joined" not in cli("sweep", "2, 4, 8,", "A4", "--dry-run").succeeded().err


# ── Going on ───────────────────────────────────────────────────────────────────────────────────


def test_the_same_command_goes_on_where_it_was(cli, here, monkeypatch):
    command = ("sweep", "Once", "-t", "0.5,1.0,1.5", "--seeds", "0..3", *TINY, "--out", "out")
    cli(*command).succeeded()
    whole = cells(here / "out")
    lines = (here / "out" / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (here / "out" / "runs.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:30])
    result = cli(*command).succeeded()
    assert "5 of 12 cells are done; going on" in result.err
    assert "torn" in result.err
    again = cells(here / "out")
    assert again[:5] == whole[:5]
    assert of(again) == of(whole)


def test_a_finished_sweep_loads_no_model_and_makes_its_summary_again(cli, here, monkeypatch):
    command = ("sweep", "Once", "--seeds", "0..3", *TINY, "--out", "out")
    first = cli(*command).succeeded()
    (here / "out" / "summary.md").unlink()
    before = (here / "out" / "runs.jsonl").read_bytes()
    monkeypatch.setattr("decodecli.cli.sweep.run._loaded", None)
    result = cli(*command).succeeded()
    assert "all 4 cells are done" in result.err
    assert result.out == first.out
    assert (here / "out" / "summary.md").exists()
    assert (here / "out" / "runs.jsonl").read_bytes() == before


def test_a_folder_alone_is_enough_to_go_on(cli, here):
    (here / "prompts.txt").write_text("Once\nTwo\n")
    cli("sweep", "--prompts", "prompts.txt", "-t", "0.5,1.0", *TINY, "--out", "out").succeeded()
    (here / "prompts.txt").unlink()
    whole = (here / "out" / "runs.jsonl").read_bytes()
    (here / "out" / "runs.jsonl").write_bytes(whole.splitlines(keepends=True)[0])
    cli("sweep", "--out", "out", "--no-plots").succeeded()
    assert len(cells(here / "out")) == 4
    assert len({r["params"]["seed"] for r in cells(here / "out")}) == 1


def test_a_seed_that_was_drawn_is_drawn_once(cli, here):
    command = ("sweep", "Once", "-t", "0.5,1.0", *TINY, "--out", "out")
    first = cli(*command).succeeded()
    assert "no seed was given" in first.err
    assert "all 2 cells are done" in cli(*command).succeeded().err


def test_a_sweep_is_extended_by_values_prompts_and_seeds(cli, here):
    small = ("sweep", "Once", "-t", "0.5,1.5", "--seeds", "0,1", *TINY, "--out", "out", "--traces")
    large = ("Once", "The cat", "-t", "0.5,1.0,1.5", "--seeds", "0..2", *TINY)
    cli(*small).succeeded()
    kept = [record["token_ids"] for record in cells(here / "out")]
    words = ("sweep", *large, "--out", "out", "--traces")
    cli(*words).refused(2, "another grid (prompts, temperature, seed)", "--extend keeps its cells")
    dry = cli(*words, "--extend", "--dry-run").succeeded().out
    assert "4 of 18 cells are done" in dry
    assert len(cells(here / "out")) == 4
    result = cli(*words, "--extend").succeeded()
    assert "the sweep of 4 cells has 18 from now on" in result.err
    assert "4 of 18 cells are done; going on" in result.err
    found = cells(here / "out")
    assert [record["token_ids"] for record in found[:4]] == kept, "nothing of it runs again"
    whole = cli("sweep", *large, "--format", "jsonl").succeeded().records
    assert of(found) == of(whole)
    assert len(list((here / "out" / "traces").iterdir())) == 18
    assert len((here / "out" / "summary.csv").read_text().splitlines()) == 1 + 3 * 2
    assert "all 18 cells are done" in cli(*words, "--extend").succeeded().err
    assert "all 18 cells are done" in cli("sweep", "--out", "out", "--no-plots").succeeded().err
    cli(*small).refused(2, "another grid")


def test_a_seed_that_was_drawn_stays_when_a_sweep_is_extended(cli, here):
    cli("sweep", "Once", "-t", "0.5", *TINY, "--out", "out").succeeded()
    cli("sweep", "Once", "-t", "0.5,1.5", *TINY, "--out", "out", "--extend").succeeded()
    assert len({record["params"]["seed"] for record in cells(here / "out")}) == 1
    assert len(cells(here / "out")) == 2


def test_to_extend_takes_a_folder_that_has_nothing_else(cli, here):
    words = ("sweep", "Once", "--seeds", "0,1", *TINY)
    cli(*words, "--extend").refused(2, "--extend needs the folder")
    cli(*words, "--extend", "--out", "new").succeeded()
    other = ("sweep", "Once", "--seeds", "1,2", *TINY, "--out", "new", "--extend")
    cli(*other).refused(2, "cells that are not in this grid (seed)", "--extend adds values")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("-t", "0.5"), "temperature"),
        (("--top-p", "0.9"), "top_p"),
        (("--seeds", "0..2"), "seed"),
        (("Another",), "prompts"),
    ],
)
def test_a_folder_of_another_grid_is_refused_with_what_differs(cli, here, changed, said):
    words = ("sweep", "Once", "--seeds", "0,1", *TINY, "--out", "out")
    cli(*words).succeeded()
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (here / "out").iterdir())
    replaced = (
        tuple(w for w in words if w not in ("--seeds", "0,1")) if "--seeds" in changed else words
    )
    hint = "--extend" if said in ("seed", "prompts") else "decodecli sweep --out out"
    cli(*replaced, *changed).refused(2, "another grid", said, hint)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in (here / "out").iterdir()) == before


def test_a_folder_of_another_model_is_refused_before_it_is_loaded(
    cli, here, tiny_folder, monkeypatch
):
    cli("sweep", "Once", "--seed", 0, *TINY, "--out", "out").succeeded()
    monkeypatch.setattr("decodecli.cli.sweep.run._loaded", None)
    words = ("sweep", "Once", "--seed", 0, *TINY, "--out", "out", "-m", tiny_folder)
    cli(*words).refused(2, "model builtin")


def test_another_number_type_is_another_sweep(cli, here):
    words = ("sweep", "Once", *TINY, "--seeds", "0..1", "--out", "out")
    cli(*words, "--dtype", "float32").succeeded()
    lines = (here / "out" / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (here / "out" / "runs.jsonl").write_bytes(lines[0])
    result = cli(*words, "--dtype", "bfloat16")
    assert result.code == 2
    assert "dtype float32" in result.err
    cli(*words).succeeded()  # auto becomes float32 here
    assert len(cells(here / "out")) == 2


# ── What goes wrong ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-t", "warm"), "temperature"),
        (("-t", "1..2:3"), "temperature"),
        (("-t", "0.2,-1"), "temperature"),
        (("--top-p", "0.5:1.5:0.5"), "top-p"),
        (("--seeds", "4..0"), "seed"),
        (("--seeds", "0..3", "--seed", "1"), "seed"),
        (("--zip", "temperature,warmth"), "warmth"),
        (("--zip", "temperature,top-p", "-t", "1,2", "--top-p", "0.1,0.2,0.3"), "zip"),
        (("--grid", "nothing-like-that"), "grid"),
        (("--prompts", "nowhere.txt"), "nowhere.txt"),
        (("--prompts", "bad.jsonl"), "line 2"),
        (("--batch-size", "0"), "batch-size"),
        (("--engine", "moon"), "engine"),
        (("--actors", "2"), "--engine ray"),
        (("--format", "csv"), "format"),
        (("--format", "jsonl", "--show"), "--show"),
        (("--format", "jsonl", "--traces"), "--traces"),
        (("--out", "full"), "thesis.tex"),
        (("--out", "bad.jsonl"), "no folder"),
        (("--out", "bad.jsonl/below"), "--out"),
        (("--out", ""), "--out"),
        (("--device", "tpu"), "device"),
        (("--preset", "warm"), "preset"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_wrong_usage_starts_nothing_and_makes_no_folder(cli, here, words, said, monkeypatch):
    (here / "bad.jsonl").write_text('{"prompt": "Once"}\n{"promt": "Once"}\n')
    (here / "full").mkdir()
    (here / "full" / "thesis.tex").touch()
    monkeypatch.setattr("decodecli.cli.sweep.run._loaded", None)
    given = words if "--prompts" in words else ("Once", *words)
    out = () if "--out" in words or "jsonl" in words else ("--out", "new")
    cli("sweep", *given, *out, "--quiet").refused(2, said)
    assert sorted(path.name for path in here.rglob("*")) == ["bad.jsonl", "full", "thesis.tex"]


def test_nothing_heavy_is_imported_for_wrong_usage_a_dry_run_or_a_finished_sweep(cli, here):
    cli("sweep", "Once", "--seed", 0, *TINY, "--out", "out").succeeded()
    for words, code in (
        (("Once", "-t", "warm"), 2),
        (("Once", "--out", "out"), 2),
        (("Once", "-t", "0:2:0.1", "--dry-run"), 0),
        (("--out", "out", "--no-plots"), 0),
    ):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "decodecli", "sweep", *words],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, done.stderr[-500:]
        heavy = [
            line
            for line in done.stderr.splitlines()
            if line.endswith(("| torch", "| transformers"))
        ]
        assert heavy == [], words


def test_a_model_that_is_not_there_leaves_no_folder(cli, here):
    cli("sweep", "Once", "--seed", 0, "-m", "./nowhere", "--out", "out").refused(1, "nowhere")
    assert list(here.iterdir()) == []


def test_a_cell_that_fails_leaves_the_others_and_ends_with_1(cli, here, tiny_folder):
    """A prompt longer than the context of 128."""
    words = (
        "sweep",
        "Once",
        "word " * 300,
        "-m",
        tiny_folder,
        "--seeds",
        "0,1",
        *TINY,
        "--out",
        "out",
    )
    result = cli(*words)
    assert result.code == 1
    assert "2 cells failed" in result.err
    assert "it would fail again" in result.err
    assert "to try again" not in result.err
    finished = [r for r in cells(here / "out") if r["error"] is None]
    assert len(finished) == 2
    assert len(cells(here / "out")) == 4
    again = cli(*words)
    assert again.code == 1
    assert "2 of 4 cells are done; going on" in again.err
    assert sorted(r["index"] for r in cells(here / "out")) == [0, 1, 2, 3]


def test_a_full_disk_keeps_finished_cells_and_says_how_to_go_on(cli, here, monkeypatch):
    write, left = os.write, [3]

    def full(file: int, data: bytes) -> int:
        if bytes(data).startswith(b'{"type":"cell"'):
            left[0] -= 1
            if left[0] < 0:
                write(file, bytes(data)[:100])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    words = ("sweep", "Once", "--seeds", "0..11", "-b", "1", *TINY, "--out", "out")
    monkeypatch.setattr(store_module, "_EVERY", 0.0)
    monkeypatch.setattr(store_module, "_SHARE", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        result = cli(*words)
    assert result.code == 1
    assert "No space left on device" in result.err
    assert "3 of 12 cells are kept; to go on: decodecli sweep --out out" in result.err
    assert "Traceback" not in result.err
    assert len(cells(here / "out")) == 3
    cli(*words).succeeded()
    assert sorted(r["index"] for r in cells(here / "out")) == list(range(12))


def test_a_full_disk_before_anything_began_leaves_nothing(cli, here, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        cli("sweep", "Once", "--seed", 0, *TINY, "--out", "out", "--quiet").refused(1, "No space")
    assert list(here.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="a superuser may write anywhere")
def test_a_folder_without_permission_is_refused(cli, here):
    (here / "locked").mkdir(mode=0o500)
    cli("sweep", "Once", "--out", "locked/out", "--quiet").refused(2, "Permission denied")


def test_the_first_ctrl_c_keeps_finished_cells_and_says_how_to_go_on(cli, here, monkeypatch):
    from decodecli.sweeps import run

    real = run.run_cells

    def interrupted(*args, **more):
        for number, outcome in enumerate(real(*args, **more)):
            yield outcome
            if number == 4:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(run, "run_cells", interrupted)
    passing = cli("sweep", "Once", "--seeds", "0..11", "-n", "4", "-b", "2", "--format", "jsonl")
    assert passing.code == 130
    assert "5 of 12 cells are on standard output and nowhere else" in passing.err
    assert "--out DIR" in passing.err
    words = ("sweep", "Once", "--seeds", "0..11", *TINY, "--out", "out", "-b", "2")
    result = cli(*words)
    assert result.code == 130
    assert (
        "5 of 12 cells are kept; to go on: decodecli sweep --out out --batch-size 2 --no-plots"
        in result.err
    )
    assert "Interrupted" in result.err
    assert len(cells(here / "out")) == 5
    assert (here / "out" / "summary.csv").exists()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert "5 of 12 cells are done" in cli(*words).succeeded().err


def test_what_a_terminal_shows_of_a_ctrl_c_is_taken_away(monkeypatch):
    from decodecli.cli.sweep.run import _clear_line

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for stream, written in ((Terminal(), "\r\x1b[J"), (io.StringIO(), "")):
        monkeypatch.setattr(sys, "stderr", stream)
        _clear_line()
        assert stream.getvalue() == written


def test_a_ctrl_c_in_the_middle_of_a_write_waits_for_its_end(cli, here, monkeypatch):
    sync, sent = os.fsync, []

    def interrupted(file: int) -> None:
        runs = Path("out/runs.jsonl")
        if not sent and runs.exists() and runs.stat().st_size:
            sent.append(file)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        sync(file)

    words = ("sweep", "Once", "--seeds", "0..11", *TINY, "--out", "out", "--format", "jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        result = cli(*words)
    assert result.code == 130
    assert result.out.splitlines() == (here / "out" / "runs.jsonl").read_text().splitlines()


def test_a_reader_that_has_gone_ends_the_run_quietly(cli, here, misbehaving):
    def gone() -> None:
        raise BrokenPipeError

    words = (
        "sweep",
        "Once",
        "--seeds",
        "0..11",
        "-b",
        "1",
        *TINY,
        "--out",
        "out",
        "--format",
        "jsonl",
    )
    result = cli(*words, stdout=misbehaving(gone, after=1))
    assert result.code == 0
    assert "Error" not in result.err
    assert 1 <= len(cells(here / "out")) < 12
    first = len(cells(here / "out"))
    assert len(cli(*words).succeeded().records) == 12 - first
    assert sorted(r["index"] for r in cells(here / "out")) == list(range(12))


def test_ray_that_is_not_installed_is_told(cli, here, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "ray" else real(n, *a)
    )
    result = cli("sweep", "Once", "--seed", 0, "--engine", "ray", "--out", "out", "--quiet")
    result.refused(1, "pip install 'decodecli[ray]'")
    assert list(here.iterdir()) == []


def test_the_ray_engine_is_told_the_same_and_its_cells_are_kept(cli, here, lm, monkeypatch):
    """A cluster is played by the engine of this machine."""
    import importlib.util

    from decodecli.sweeps import run
    from decodecli.sweeps.ray import engine as ray_engine

    told = {}

    def played(load, grid, todo, *, notice, on_model, address, actors, **more):
        told.update(load=load, address=address, actors=actors, todo=list(todo), **more)
        notice("a cluster of one")
        on_model(lm.info)
        return run.run_cells(lm, (grid[index] for index in todo), **more)

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: True if n == "ray" else real(n, *a)
    )
    monkeypatch.setattr(ray_engine, "run_on_ray", played)
    words = ("sweep", "Once", "--seeds", "0..3", *TINY, "--out", "out")
    ray = ("--engine", "ray", "--address", "auto", "--actors", "2")
    result = cli(*words, *ray).succeeded()
    assert "a cluster of one" in result.err
    assert (told["address"], told["actors"], told["todo"]) == ("auto", 2, [0, 1, 2, 3])
    assert told["load"].model == "builtin"
    assert 'dtype = "float32"' in (here / "out" / "sweep.toml").read_text()
    assert len(cells(here / "out")) == 4
    assert "all 4 cells are done" in cli(*words).succeeded().err, "the local engine goes on"


# ── A dry run ──────────────────────────────────────────────────────────────────────────────────


def test_a_dry_run_shows_cells_and_tokens_and_makes_nothing(cli, here):
    words = ("sweep", "Once", "Two", "-t", "0:1.4:0.2", "--top-p", "0.2,0.9", "--seeds", "0..9")
    result = cli(*words, "-n", "10", "--dry-run").succeeded()
    assert "2 prompts × 16 settings × 10 seeds = 320 cells" in result.out
    assert "at most 3,200 tokens" in result.out
    assert "p1 · T 1.4 · top_p 0.9 · seed 9" in result.out
    assert list(here.iterdir()) == []
    lines = cli(*words, "--dry-run", "--format", "jsonl").succeeded().records
    assert len(lines) == 320
    assert lines[-1]["params"]["temperature"] == 1.4


def test_a_dry_run_shows_prompts_and_what_is_the_same_in_all_cells(cli, here):
    words = (
        "sweep",
        "Once upon a time",
        "日本" * 100,
        "-t",
        "1e3",
        "--top-p",
        "0.9",
        "--seed",
        "3",
    )
    out = cli(*words, "-n", "10", "--dry-run").succeeded().out
    assert "p0  Once upon a time\n" in out
    assert "…" in next(line for line in out.splitlines() if "p1  日本" in line)
    assert "constant  T 1000 · top_p 0.9 · up to 10 tokens · BOS auto\n" in out
    out = cli("sweep", "--grid", "bos", "-n", "10,20", "--dry-run").succeeded().out
    assert "constant        T 0 (greedy)\n" in out
    out = cli("sweep", "Once", "-t", "log:0.1:10:9", "--seed", "0", "--dry-run").succeeded().out
    assert "0.1, 0.178, 0.316, 0.562, 1, 1.78, 3.16, 5.62, 10  (9)" in out
    assert "p0 · T 0.178 · seed 0" in out
    many = cli("sweep", *map(str, "abcdefgh"), "--seed", "0", "--dry-run").succeeded().out
    assert "… 3 more" in many


def test_the_estimate_counts_greedy_cells_once_and_takes_the_nearest_rate(cli, here, monkeypatch):
    from decodecli.sweeps import throughput as rates

    monkeypatch.setattr(rates, "cache_folder", lambda: here / "cache" / "quantized")
    words = ("sweep", "Once", "-t", "0,1", "--seeds", "0..99", "-n", "10", "--dry-run")
    assert "not known before a first run" in cli(*words).succeeded().out
    cli("sweep", "Once", "--seeds", "0..29", "-n", "60", "--format", "jsonl").succeeded()
    found = json.loads((here / "cache" / "rates.json").read_text())
    (key,) = found
    (here / "cache" / "rates.json").write_text(json.dumps({key: 10.0}))
    out = cli(*words).succeeded().out
    assert "99 cells are greedy and repeat that of another seed, decoded once" in out
    assert "at most 2 min at 10 tokens/s, as measured before" in out, "101 cells of 10 tokens"
    out = cli(*words, "-b", "3", "--traces").succeeded().out
    assert "99 cells are greedy and repeat that of another seed\n" in out
    assert "at most 3 min at 10 tokens/s, as measured with other options" in out


def test_a_dry_run_of_a_sweep_that_ran_says_how_long(cli, here):
    words = ("sweep", "Once", "--seeds", "0..2", *TINY, "--out", "out")
    cli(*words).succeeded()
    result = cli(*words, "--dry-run").succeeded()
    assert "3 of 3 cells are done" in result.out
    assert "tokens/s, as measured before" in result.out


def test_a_hundred_thousand_cells_are_planned_at_once(cli, here):
    start = time.process_time()
    words = ("Once", "Two", "-t", "0.01:5:0.01", "--seeds", "0..99", "--dry-run")
    assert "= 100,000 cells" in cli("sweep", *words).succeeded().out
    assert time.process_time() - start < 3


# ── The real program ───────────────────────────────────────────────────────────────────────────


def killed_and_resumed(
    folder: Path, count: int, kills: int, environment: dict, chance
) -> list[int]:
    """Run a sweep of `count` cells, killed `kills` times at any moment, to its end; the exit codes."""
    words = [
        "sweep",
        "Once upon a time",
        "-t",
        "0.2,0.7,1.0,1.4",
        "--seeds",
        f"0..{count // 4 - 1}",
    ]
    command = [
        sys.executable,
        "-m",
        "decodecli",
        *words,
        "-n",
        "24",
        "-b",
        "4",
        "--no-plots",
        "--quiet",
        "--out",
        str(folder),
    ]
    codes = []
    for _ in range(kills):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        runs, before = (
            folder / "runs.jsonl",
            folder.exists() and (folder / "runs.jsonl").stat().st_size,
        )
        deadline = time.monotonic() + 60
        if chance.random() < 0.8:  # most kills while cells are written, some before
            while process.poll() is None and time.monotonic() < deadline:
                if runs.exists() and runs.stat().st_size != before:
                    break
                time.sleep(0.002)
        time.sleep(chance.random() * 0.15)
        process.kill()
        codes.append(process.wait())
        if runs.exists():
            seen = [json.loads(line)["index"] for line in runs.read_bytes().split(b"\n")[:-1]]
            assert len(seen) == len(set(seen))
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return codes


@pytest.fixture
def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize(
    ("count", "kills"), [(40, 1), pytest.param(400, 20, marks=pytest.mark.slow)]
)
def test_killed_at_any_moment_it_goes_on_with_every_cell_exactly_once(
    cli, here, environment, count, kills
):
    import random

    codes = killed_and_resumed(here / "out", count, kills, environment, random.Random(count))
    assert -signal.SIGKILL in codes
    found = cells(here / "out")
    assert sorted(r["index"] for r in found) == list(range(count))
    whole = cli(
        "sweep",
        "Once upon a time",
        "-t",
        "0.2,0.7,1.0,1.4",
        "--seeds",
        f"0..{count // 4 - 1}",
        "-n",
        "24",
        "--format",
        "jsonl",
        "--quiet",
    )
    assert of(found) == of(whole.succeeded().records)


def test_ctrl_c_in_the_real_program_and_two_processes_in_one_folder(here, environment):
    command = [
        sys.executable,
        "-m",
        "decodecli",
        "sweep",
        "Once",
        "--seeds",
        "0..999",
        "--out",
        "out",
        "--no-plots",
    ]
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    runs = here / "out" / "runs.jsonl"
    deadline = time.monotonic() + 60
    while not (runs.exists() and runs.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    second = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert second.returncode == 2
    assert f"another sweep is writing into out (process {process.pid})" in second.stderr
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "cells are kept; to go on: decodecli sweep --out out --no-plots" in err
    assert out == ""
    done = len(cells(here / "out"))
    assert 0 < done < 1000
    assert f"{done} of 1,000 cells are kept" in err


def test_a_closed_pipe_ends_the_real_program_with_0(here, environment):
    command = f"{sys.executable} -m decodecli sweep Once --seeds 0..99 -n 2 --format jsonl"
    shell = f"{command} | head -2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], env=environment, capture_output=True, text=True)
    *lines, code = done.stdout.splitlines()
    assert code == "0", done.stderr
    assert [json.loads(line)["type"] for line in lines] == ["cell", "cell"]
    assert "Error" not in done.stderr


def test_going_on_without_another_word_keeps_traces_and_exactness(cli, here):
    out = here / "out"
    cli("sweep", "Once", "--seeds", "0..3", "-n", "3", "--traces", "--exact", "-o", out).succeeded()
    lines = (out / "runs.jsonl").read_text().splitlines(keepends=True)
    (out / "runs.jsonl").write_text("".join(lines[:2]))
    for trace in sorted((out / "traces").iterdir())[2:]:
        trace.unlink()
    cli("sweep", "-o", out).succeeded()
    assert len(list((out / "traces").iterdir())) == 4
    told = cli("sweep", "Once", "--seeds", "0..3", "-n", "3", "-o", out).succeeded().err
    assert "first cells have traces" in told
