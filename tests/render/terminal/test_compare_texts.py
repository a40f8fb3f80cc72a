"""Texts side by side: every token there in its colour, the place marked where they part."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from sweep_inputs import HOSTILE, WORDS, record, records

from decodecli.render.terminal.compare_texts import compare_lines
from decodecli.render.terminal.step_table import Style
from decodecli.render.text_comparison import MARK, blocks, common, parting
from decodecli.render.theme import UNDERLINE, Theme

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
TOKEN = st.one_of(
    st.sampled_from([*WORDS, *HOSTILE, "日本", "👍🏽", "\u0301", "\t", "", "\u200d", "ก็"]),
    st.text(max_size=6),
)


def whole(cells, width=80, columns="", varying=(), model=None, **more):
    lines = compare_lines(cells, Style(width=width, **more), columns, varying=varying, model=model)
    return [ESCAPE.sub("", line) for line in lines]


def shown(cells, width=80, columns="", **more):
    """The lines below what is constant."""
    lines = whole(cells, width, columns, **more)
    return lines[lines.index("") + 1 :]


def columns_of(lines, heading):
    """The text in each column of the first block, rows joined."""
    start = next(k for k, line in enumerate(lines) if line.startswith(heading))
    rows = [line.split("│") for line in lines[start : lines.index("", start)]]
    wide = max(map(len, rows))
    return ["".join(row[k].strip() for row in rows if k < len(row)) for k in range(wide)]


@given(
    tokens=st.lists(st.lists(TOKEN, max_size=30), min_size=1, max_size=5),
    width=st.sampled_from([20, 40, 60, 80, 200]),
    colour=st.booleans(),
    encoding=st.sampled_from(["utf-8", "ascii"]),
    prompt=TOKEN,
)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_line_fits_and_none_steers_the_terminal(tokens, width, colour, encoding, prompt):
    cells = [
        record(k, words=tuple(words), temperature=float(k), prompt=prompt, prompt_id=prompt)
        for k, words in enumerate(tokens)
    ]
    style = Style(width=width, theme=Theme.full() if colour else Theme(), encoding=encoding)
    for line in compare_lines(cells, style):
        plain = ESCAPE.sub("", line)
        assert cell_len(plain) <= width
        assert not STEERING.search(plain)
        plain.encode(encoding)


def test_settings_stand_in_columns_and_seeds_below_one_another():
    lines = shown(records((0.2, 1.0, 1.8), seeds=2))
    assert lines[0] == "japan · seed 0"
    assert lines[1] == "The capital of Japan is"
    assert [cell.strip() for cell in lines[2].split("│")] == ["T 0.2", "T 1", "T 1.8"]
    assert "japan · seed 1" in lines
    assert lines.count("The capital of Japan is") == 1


def test_one_setting_has_its_seeds_in_columns():
    lines = shown(records((0.2,), seeds=3))
    assert lines[0] == "japan"
    assert [cell.strip() for cell in lines[2].split("│")] == ["seed 0", "seed 1", "seed 2"]
    lines = shown(records((0.2, 1.4), seeds=3), columns="seeds")
    assert lines[0] == "japan · T 0.2"
    assert "japan · T 1.4" in lines


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_every_text_is_there_in_full(width):
    cells = records((0.2, 1.8), seeds=1)
    beside = len("logprob −0.36") + 3  # a single text stands beside its label
    text = re.sub(r"\s", "", "".join(line[beside:] for line in shown(cells[:1], width)))
    assert re.sub(r"\s", "", cells[0].text) in text
    found = columns_of(shown(cells, width), "T 0.2")
    for cell, column in zip(cells, found, strict=True):
        assert re.sub(r"\s", "", cell.text) in re.sub(rf"[\s{MARK}]", "", column)


def test_the_mark_stands_before_the_first_token_unlike_the_first_texts():
    one = record(0, words=(" a", " b", " c"), temperature=0.2)
    two = record(1, words=(" a", " x", " c"), temperature=1.0)
    same = record(2, words=(" a", " b", " c"), temperature=1.4)
    lines = shown([one, two, same])
    facts = [cell.strip().split(" · ")[0] for cell in lines[3].split("│")]
    assert facts == ["logprob −0.50", "first 1 alike", "the same"]
    assert lines[-3].split("│")[0].strip() == "a b c"
    assert lines[-3].split("│")[1].strip() == f"a{MARK} x c"
    assert lines[-3].split("│")[2].strip() == "a b c"


def test_ids_and_not_letters_decide_where_texts_part():
    one = record(0, words=("ab", "c"), token_ids=(1, 2), temperature=0.2)
    two = record(1, words=("a", "bc"), token_ids=(3, 4), temperature=1.0)
    assert parting(one, two) == 0
    assert parting(one, record(2, words=("ab", "c"), token_ids=(1, 2))) is None


def test_a_text_that_ends_earlier_parts_there():
    one = record(0, words=(" a", " b", " c"), temperature=0.2)
    short = record(1, words=(" a", " b"), temperature=1.0)
    assert parting(one, short) == 2
    assert shown([one, short])[-3].split("│")[1].strip() == f"a b{MARK}"


def test_narrow_terminals_get_texts_below_one_another():
    cells = records((0.2, 0.7, 1.0, 1.4), seeds=1)
    lines = shown(cells, 60)
    assert not any("│" in line for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("T ")] == [
        "0.2",
        "0.7",
        "1",
        "1.4",
    ]
    long = records((0.2, 1.4), (0.123456789, 0.2, 0.9), seeds=1)
    assert any(line.startswith("T 0.2 · top_p 0.123") for line in shown(long, 40))


def test_colours_are_those_of_probability():
    theme = Theme.full()
    cell = record(words=(" sure", " unsure"), logprobs=(-0.01, -7.0))
    lines = compare_lines([cell], Style(theme=theme))
    text = next(line for line in lines if "unsure" in line and "probability" not in line)
    assert " sure" in text
    assert f"{theme.text[0]} unsure" in text
    assert any("probability at T=1" in line for line in lines)


def test_without_colour_improbable_tokens_are_underlined_and_off_a_terminal_all_is_plain():
    theme = Theme(accent="", bold="", dim="", reset="\x1b[0m", text=(UNDERLINE,) * 3 + ("",))
    cell = record(words=(" sure", " unsure"), logprobs=(-0.01, -7.0))
    lines = compare_lines([cell], Style(theme=theme))
    assert any(f"{UNDERLINE} unsure" in line for line in lines)
    assert any("probability at T=1" in ESCAPE.sub("", line) for line in lines)
    assert not any("\x1b" in line for line in compare_lines([cell], Style()))


def test_what_a_cell_was_judged_and_what_it_failed_of_is_told():
    right = record(0, correct=True, temperature=0.2)
    failed = record(
        1, words=(), error="out of\x1b memory", finish_reason="error", correct=None, temperature=1.0
    )
    text = "\n".join(shown([right, failed]))
    assert "right" in text
    assert "failed" in text
    assert "out of␛ memory" in text


def test_only_options_that_differ_name_a_column():
    cells = [
        record(k, temperature=t, params={"greedy": t == 0, "top_k": 40, "bos": None})
        for k, t in enumerate((0.0, 1.0))
    ]
    (block,) = blocks(cells)
    assert block.labels == ("T 0", "T 1")


def test_what_all_texts_have_in_common_is_told():
    cells = records((0.2, 1.0), (0.5, 1.0), seeds=2)
    at_one = [cell for cell in cells if cell.params["temperature"] == 1.0]
    assert whole(cells)[0] == "constant: BOS auto"
    assert whole(at_one)[0] == "constant: T 1 · BOS auto"
    last = [cell for cell in at_one if cell.params["top_p"] == 1.0]
    assert whole(last)[0] == "constant: T 1 · BOS auto"
    assert whole(last, varying=("top_p",))[0] == "constant: T 1 · top_p 1 · BOS auto"
    assert common(last) == {"temperature": 1.0, "top_p": 1.0, "bos": None}


def test_numbers_of_many_digits_are_shown_in_few_yet_told_apart():
    lines = shown(records((0.17782794100389, 0.31622776601684), seeds=1))
    assert [cell.strip() for cell in lines[2].split("│")] == ["T 0.178", "T 0.316"]
    lines = shown(records((0.17782794100389, 0.178), seeds=1))
    assert [cell.strip() for cell in lines[2].split("│")] == ["T 0.1778", "T 0.178"]


def test_each_group_ends_in_the_command_for_its_first_text():
    cells = records((0.2, 1.0), seeds=2)
    lines = [line for line in whole(cells, 40, model={}) if line.startswith("repeat")]
    prompt = '"The capital of Japan is"'
    assert lines == [
        f"repeat T 0.2: decodecli generate {prompt} -t 0.2 --seed {seed}" for seed in (0, 1)
    ]
    lines = whole(cells[:1], model={"model": "org/model", "dtype": "bfloat16"})
    (line,) = (line for line in lines if line.startswith("repeat"))
    assert line == (
        f"repeat: decodecli generate {prompt} --model org/model --dtype bfloat16 -t 0.2 --seed 0"
    )
    assert not any(line.startswith("repeat") for line in whole(cells))


def test_the_legend_is_ascii_where_the_terminal_is():
    lines = whole([record()], encoding="ascii", theme=Theme.full())
    assert lines[-1] == "probability at T=1 <1% <5% <20% >=20%"


def test_nothing_to_compare_is_said():
    assert compare_lines([], Style()) == ["no cell is finished"]
