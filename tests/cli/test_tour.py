"""docs/TOUR.md: its commands run as written, its cheap outputs are what the program prints now, and the
generator notices what is not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
QUICK = ("tokenize", "softmax", "embed")  # without the model's forward pass: the same anywhere


@pytest.fixture
def tour(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import tour

    return tour


@pytest.fixture
def page(tour) -> str:
    return (DOCS / tour.PAGE).read_text(encoding="utf-8")


def test_every_command_has_options_that_there_are(tour, page):
    from typer.main import get_command

    from decodecli.cli.app import app

    commands = get_command(app).commands
    lines = tour.commands(page)
    assert len(lines) > 20
    for line in lines:
        name, *rest = tour.words(line)
        commands[name].make_context(name, rest)  # exits at an unknown option


def test_every_subject_has_its_command(tour, page):
    asked = "\n".join(tour.commands(page))
    for part in (
        'tokenize "The capital of Japan is"', "tokenize \"日本の首都は\"", "embed ",
        "inspect-logits \"The capital of Japan is\" -t 0.4,1.0,1.6", "--greedy --quiet",
        "--greedy --no-bos", "--top-p 0.9", "sweep --grid notebook",
        "sweep --grid knowledge-and-stories", "sweep --grid extremes", "softmax ",
        "-m mistralai/Mistral-7B-v0.1",
    ):  # fmt: skip
        assert part in asked, part
    assert "export DECODECLI_MODEL=mistralai/Mistral-7B-v0.1 DECODECLI_QUANTIZE=nf4" in page


def test_what_the_quick_commands_print_is_what_the_page_shows(tour, page, cli):
    checked = 0
    for line, output in tour.shown(page).items():
        words = tour.words(line)
        if words[0] not in QUICK:
            continue
        printed = cli(*words, env={"COLUMNS": "80"}).succeeded().out
        lines = [text.rstrip() for text in printed.strip("\n").splitlines()]
        assert "\n".join(lines) == output, line
        checked += 1
    assert checked >= 5


def test_the_commands_that_ask_the_model_once_run_as_written(tour, page, cli):
    checked = 0
    for line, output in tour.shown(page).items():
        words = tour.words(line)
        if words[0] not in ("inspect-logits", "generate"):
            continue
        printed = cli(*words, env={"COLUMNS": "80", "DECODECLI_DEVICE": "cpu"}).succeeded().out
        # Numbers may differ in the last place from machine to machine; the first token does not.
        first = re.search(r"(?m)^ +(?:1 +)?␣\S+", output)
        assert first is None or first[0].split()[-1] in printed
        checked += 1
    assert checked >= 6


def test_nothing_is_wider_than_a_terminal(tour, page):
    from rich.cells import cell_len

    for line, output in tour.shown(page).items():
        for shown in output.splitlines():
            assert cell_len(shown) <= tour.WIDTH or shown.startswith("$ "), (line, shown)
            assert not re.search(r"\d tokens in |/s\)|\x1b", shown), "a time, or a colour"


def test_every_picture_and_page_that_is_named_is_there(page):
    targets = re.findall(r"\]\(([^)#:]+)\)", page)
    assert len(targets) > 6
    for target in targets:
        assert (DOCS / target).is_file(), target


def test_the_page_is_in_step_with_its_source(tour):
    assert tour.in_step()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# A tour of decoding", "# A walk"),
        ("--grid notebook", "--grid bos"),
        ("Countries and colours", "Colours"),
        ("$ decodecli compare bos", "$ decodecli compare gone"),
    ],
)
def test_another_word_or_command_is_noticed(tour, page, tmp_path, before, after):
    assert before in page
    (tmp_path / tour.PAGE).write_text(page.replace(before, after), encoding="utf-8")
    assert not tour.in_step(tmp_path)


def test_other_numbers_in_a_page_are_another_machine(tour, page, tmp_path):
    (tmp_path / tour.PAGE).write_text(page.replace("0.60", "0.61"), encoding="utf-8")
    assert tour.in_step(tmp_path)


def test_a_sentence_that_no_longer_holds_stops_the_tour(tour):
    from tour_claims import claim

    claim(True, "accuracy falls with T")
    with pytest.raises(SystemExit, match="no longer true: accuracy falls"):
        claim(False, "accuracy falls with T")


def test_a_number_without_a_place_or_a_value_is_noticed(tour):
    assert tour._fill("7 {a} {b}", "{a}", {"a": "1"}) == "7 1 {b}"  # {b} is a command's output
    with pytest.raises(SystemExit, match="b"):
        tour._fill("{a}", "{a}", {"a": "1", "b": "2"})
    with pytest.raises(SystemExit, match="a"):
        tour._fill("{a}", "{a}", {})


@pytest.mark.slow
def test_the_tour_made_anew_has_the_same_words_commands_and_pictures(tour, page, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("pty")
    tour.write(tmp_path)
    assert tour.in_step(tmp_path)
    made = (tmp_path / tour.PAGE).read_text(encoding="utf-8")
    assert tour.commands(made) == tour.commands(page)
    assert re.findall(r"(?m)^#+ .*$", made) == re.findall(r"(?m)^#+ .*$", page)
    names = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.svg")}
    assert names == {
        *(path.relative_to(DOCS) for path in (DOCS / tour.PICTURES).iterdir()),
        Path(tour.README_PICTURE),
    }
    shutil.rmtree(tmp_path)
