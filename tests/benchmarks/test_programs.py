"""Whole processes: what is run, and what is made of what they leave."""

from __future__ import annotations

import json
import os
import sys

import pytest

from benchmarks import loads, programs
from benchmarks.llama import why_not
from decodecli.errors import DecodeError

WRITES_A_TRACE = """
import json, sys
with open(sys.argv[1], "w") as file:
    for tokens in (10, 30):
        file.write('{"type":"step","index":0}\\n')
        summary = {"type": "summary", "new_tokens": tokens, "seconds": {"decode": tokens / 20}}
        file.write(json.dumps(summary, separators=(",", ":")) + "\\n")
"""


def test_children_get_no_settings_of_the_user_and_caches_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DECODECLI_TOP_K", "3")
    found = programs.environment(tmp_path, EXTRA="1")
    assert "DECODECLI_TOP_K" not in found
    assert found["DECODECLI_CACHE"].startswith(str(tmp_path))
    assert found["XDG_CONFIG_HOME"].startswith(str(tmp_path))
    assert found["EXTRA"] == "1"


def test_a_program_that_fails_is_told_with_its_last_line(tmp_path):
    words = (sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)")
    with pytest.raises(DecodeError, match="ended with 3: why"):
        programs.run_quietly(words, os.environ)


def test_tokens_and_seconds_are_added_over_the_runs_of_a_trace(tmp_path):
    words = (sys.executable, "-c", WRITES_A_TRACE)
    programs.run_quietly((*words, str(tmp_path / "t")), os.environ)
    assert programs.decoded(tmp_path / "t") == (40, 2.0)


def test_processes_at_once_are_counted_together(tmp_path):
    rate, wall = programs.together((sys.executable, "-c", WRITES_A_TRACE), 2, tmp_path)
    assert rate == 40  # two at 20 tokens/s each
    assert 0 < wall < 80_000
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_process_that_fails_beside_others_is_told(tmp_path):
    with pytest.raises(DecodeError, match="ended with 1"):
        programs.together((sys.executable, "-c", "raise SystemExit('no')"), 1, tmp_path)


def test_neighbours_are_measured_while_decoding_and_whole(tmp_path, monkeypatch):
    asked = []

    def together(words, count, folder):
        asked.append(count)
        return (30.0, 3.0) if count == 2 else (20.0, 2.0)

    monkeypatch.setattr(programs, "together", together)
    rows = list(programs.neighbour_rows(tmp_path, "cpu", 2, quick=True))
    assert asked == [1, 2, 1, 1, 2, 1]
    assert [row.ratio.median for row in rows] == [1.5, 1, 1.5, 1]
    assert [str(row.target) for row in rows] == ["≥ 1.5", "≥ 0.7"] * 2
    assert all(row.holds for row in rows)


def test_the_busy_loop_ends_with_its_block():
    import psutil

    with programs.busy_loop():
        children = psutil.Process().children()
    assert not any(child.is_running() and "while True" in child.cmdline() for child in children)


def test_growth_is_the_slope_of_memory_over_steps():
    points = [(100, 5_000_000), (200, 5_100_000), (300, 5_200_000)]
    assert programs.slope(points) == pytest.approx(1000)
    with pytest.raises(DecodeError, match="more steps"):
        programs.slope(points[:1])


def test_growth_of_the_cache_is_not_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "growth", lambda *_: 1000.0)
    [row] = programs.memory_rows(tmp_path, "cpu", quick=True, vocabularies=(400,))
    assert row.ours.median == 1000 - 2 * 8 * 4  # keys and values of one head of 8 in float32
    assert row.holds


@pytest.mark.slow
def test_the_growth_of_a_real_process_is_measured(tmp_path):
    [row] = programs.memory_rows(tmp_path, "cpu", quick=True, vocabularies=(400,), steps=400)
    assert 0 <= row.ours.median < 1_000_000


def test_a_missing_transformers_program_is_a_row_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "run_quietly", lambda *_: "")
    monkeypatch.setattr(programs.shutil, "which", lambda _: None)
    monkeypatch.setattr(programs.sys, "executable", str(tmp_path / "python"))
    rows = list(programs.start_rows(tmp_path / "start", "cpu", 1))
    skipped = [row for row in rows if row.skipped]
    assert [row.peer for row in skipped] == ["transformers --help"]
    assert [str(row.target) for row in rows if not row.skipped] == [
        "≤ 1.5", "None", "≤ 1.15", "None",
    ]  # fmt: skip


def test_each_repetition_loads_first_without_and_then_with_a_cache(tmp_path, monkeypatch):
    caches = []

    def child(words, env):
        cache = env["DECODECLI_CACHE"]
        caches.append(os.path.isdir(cache))
        os.makedirs(cache, exist_ok=True)
        load = 2.0 if caches[-1] else 40.0
        found = {"parameters": 2 * 10**9, "load": load, "forwards": [0.3, 0.1, 0.2, 0.2]}
        return "noise\n" + json.dumps(found) + "\n"

    monkeypatch.setattr(loads, "run_quietly", child)
    load, forward = loads.load_rows("m", "m · nf4", "nf4", tmp_path / "l", "cpu", 2)
    assert caches == [False, True, False, True]
    assert (load.ratio.median, load.holds) == (0.05, True)
    assert forward.ratio.median == pytest.approx(1.5)
    assert str(forward.target) == "≤ 2"


def test_llama_cpp_is_measured_only_where_the_sides_are_equal(monkeypatch):
    assert "CPU" in why_not("nf4", True, "llama")
    assert "--quantize nf4" in why_not("float32", False, "llama")
    assert "gpt2" in why_not("nf4", False, "gpt2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install llama-cpp-python gguf" in why_not("nf4", False, "llama")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert why_not("nf4", False, "llama") == ""
