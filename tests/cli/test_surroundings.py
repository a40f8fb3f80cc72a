"""Surroundings that are out of order: told in a line, or of no consequence."""

from __future__ import annotations

import pytest

FOREVER = '{"prompt": "a", "expect": {"regex": "(.|.)+\\\\d$"}}\n'


@pytest.mark.parametrize(
    "line",
    [
        "softmax a=1 b=2 --plot x.png",
        "sweep Hi -n 1 --seeds 0,1 --out s",
        "embed king queen man --plot x.svg",
    ],
)
def test_an_unknown_backend_of_matplotlib_draws_all_the_same(shell, line):
    result = shell(f"MPLBACKEND=nope decodecli {line}").succeeded()
    assert "nope" not in result.err


def test_matplotlib_without_a_folder_for_its_cache_says_nothing(shell):
    result = shell("MPLCONFIGDIR=/proc/none decodecli softmax a=1 b=2 --plot x.png")
    assert "atplotlib" not in result.succeeded().err


@pytest.mark.parametrize("line", ["generate Hi -n 1", "tokenize Hi", "sweep Hi -n 1", "models"])
def test_a_working_folder_that_is_gone_is_told(shell, line):
    result = shell(f"mkdir gone && cd gone && rmdir ../gone && decodecli {line}")
    result.refused(1, "the working folder is no longer there", "cd")


@pytest.mark.parametrize("threads", ["100000", "99999999999", "9" * 30])
def test_more_threads_than_there_are_cpus_are_refused(cli, threads):
    cli("generate", "Hi", "-n", "1", "--threads", threads).refused(2, "--threads", "at most")


@pytest.mark.parametrize(
    "line", ["sweep Hi -n 1 --seeds 0,1 --out s", "generate -n 1", "compare nowhere"]
)
def test_a_terminal_of_no_width_is_no_bug(cli, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    assert "bug" not in cli(*line.split(), stdin=b"", env={"COLUMNS": "0"}).err


def test_an_expected_expression_without_end_fails_its_cells_in_time(cli, tmp_path, monkeypatch):
    from decodecli import regex_limit

    monkeypatch.setattr(regex_limit, "SECONDS", 0.2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text(FOREVER)
    words = ("sweep", "--prompts", "p.jsonl", "-n", "40", "--seeds", "0..4", "--format", "jsonl")
    result = cli(*words, "-t", "0.5")
    assert result.code == 1
    assert "5 cells failed" in result.err
    assert "the regular expression (.|.)+\\d$ takes longer" in result.err
    assert all(record["text"] for record in result.records), "the texts are kept"


def test_a_search_of_the_vocabulary_without_end_is_told(cli, monkeypatch):
    from decodecli import regex_limit

    monkeypatch.setattr(regex_limit, "SECONDS", 0.01)
    result = cli("tokenize", "--vocab", "--grep", "(.|.|.|.|.|.)+\\d\\D$")
    result.refused(1, "takes longer")
