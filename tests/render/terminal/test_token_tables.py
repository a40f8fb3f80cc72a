"""Tokens on the screen: at every width, in colour and without, whatever the text is."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from tokenizer_families import TEXTS, make

from decodecli.analysis.tokenization import decode_ids, tokenize
from decodecli.analysis.vocabulary import vocabulary
from decodecli.models.tokenizer import find_tokenizer, wrap
from decodecli.records.tokens import TokenReports
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.token_tables import (
    piece_text,
    several_lines,
    text_lines,
    token_lines,
    vocabulary_lines,
)
from decodecli.render.theme import BOLD, DIM, RESET, UNDERLINE, Theme

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
HOSTILE = ("\x1b[2J", "\r", "\u202e", "\x9b", "\n", "\t", "\x00")
TEXT = st.one_of(
    st.sampled_from(TEXTS),
    st.text(max_size=30),
    st.lists(st.sampled_from(["👍🏽", "🏽", "日", "<s>", *HOSTILE, " ", "a"])).map("".join),
).filter(bool)


@pytest.fixture(scope="module")
def builtin():
    return find_tokenizer("builtin")


@pytest.fixture(scope="module")
def others():
    return [wrap(make(kind), kind) for kind in ("byte_level_added", "metaspace_unigram")]


def plain(lines):
    return [ESCAPE.sub("", line) for line in lines]


def together(text, tokenizers):
    names = tuple(tokenizer.name for tokenizer in tokenizers)
    return TokenReports("model", names, tuple(tokenize(text, each) for each in tokenizers))


@given(text=TEXT, width=st.integers(50, 200), colour=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_line_fits_and_none_steers_the_terminal(builtin, others, text, width, colour):
    style = Style(width=width, theme=Theme.full() if colour else Theme())
    several = together(text, [builtin, *others])
    for lines in (token_lines(several.reports[0], style), several_lines(several, style)):
        for line in plain(lines):
            assert cell_len(line) <= width, line
            assert not STEERING.search(line), line


def test_off_a_terminal_bars_stand_between_tokens(builtin):
    lines = text_lines(tokenize("Hello 日本", builtin), Style(width=80))
    assert "".join(lines).replace("│", "") == "<s> Hello 日本"
    assert "│日│本" in lines[0]


def test_on_a_terminal_neighbours_differ_in_their_background(builtin):
    report = tokenize("Hello 日本 you", builtin)
    (line,) = text_lines(report, Style(width=80, theme=Theme.full()))
    codes = re.findall(r"48;5;(\d+)m", line)
    assert len(set(codes)) == 3
    assert all(one != other for one, other in pairwise(codes))
    assert ESCAPE.sub("", line) == "<s> Hello 日本 you"


def test_without_colour_every_second_token_is_underlined(builtin):
    style = Style(width=80, theme=Theme(accent=BOLD, bold=BOLD, dim=DIM, reset=RESET))
    (line,) = text_lines(tokenize("Hello you", builtin), style)
    assert UNDERLINE in line
    assert "38;5" not in line


def test_a_newline_is_seen_and_breaks_the_line(builtin):
    lines = text_lines(tokenize("a\nb", builtin), Style(width=80))
    assert [line.endswith("↵") for line in lines] == [True, False]


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        ("▁the", "▁the"), ("Ġthe", "Ġthe"), ("▁", "▁"), ("<0x0A>", "<0x0A>"), ("<0x20>", "<0x20>"),
        ("<tool call>", "<tool␣call>"), ("\n", "↵"), ("\x1b[2J", "␛[2J"), ("\u202e", "<U+202E>"),
        ("\u0301", "◌\u0301"), ("▁\u0301", "▁◌\u0301"), ("🏽", "<U+1F3FD>"), ("👍🏽", "👍🏽"),
    ],
)  # fmt: skip
def test_a_piece_is_shown_as_it_is_spelt(piece, shown):
    assert piece_text(piece, Style()) == shown


def test_narrow_tables_keep_what_tells_tokens_apart(builtin):
    report = tokenize("Hello 日本", builtin)
    wide = plain(token_lines(report, Style(width=80)))
    narrow = plain(token_lines(report, Style(width=40)))
    assert any("characters" in line for line in wide)
    assert not any("characters  " in line or line.endswith("  characters") for line in narrow)
    assert any(line.split()[:3] == ["#", "token", "id"] for line in narrow)
    assert any(line.split()[:3] == ["2", "llo", "2945"] or "<0xE6>" in line for line in narrow)


def test_numbers_are_never_cut(builtin):
    report = tokenize("x" * 3000, builtin)
    for width in (44, 60, 80):
        for row in plain(token_lines(report, Style(width=width))):
            if match := re.match(r" *(\d+)  \S+ +(\S+)  ", row):
                assert match[2].isdigit(), row


def test_tokenizers_side_by_side_begin_anew_where_all_end_a_token(builtin, others):
    lines = plain(several_lines(together("Hello 日本", [builtin, others[0]]), Style(width=80)))
    start = next(n for n, line in enumerate(lines) if re.search(r"<s> +1", line))
    assert not lines[start][30:].strip()  # the other one has no BOS
    row = next(line for line in lines if line.startswith("<0xE6>"))
    assert "日本" in row
    assert any("byte_level_added" in line for line in lines)


def test_the_round_trip_is_said_either_way(builtin, others):
    same = token_lines(tokenize("Hello", builtin), Style())
    assert any(line.startswith("round trip:") and "same" in line for line in same)
    lines = plain(token_lines(tokenize("ééλ", others[1]), Style()))
    assert any("another text from character" in line for line in lines)
    assert any(line.startswith("  returned") and "<unk>" in line for line in lines)
    ids = plain(token_lines(decode_ids([379, 233], builtin), Style()))
    assert any("other ids from position" in line for line in ids)


def test_a_vocabulary_ends_with_its_counts(builtin):
    lines = vocabulary_lines(vocabulary(builtin, longest=2), Style(width=60))
    assert len(lines) >= 5
    assert any("2 of 6,656 tokens" in line for line in lines)
    assert all(cell_len(line) <= 60 for line in lines)


def test_another_encoding_gets_ascii(builtin):
    style = Style(width=80, encoding="ascii")
    several = together("日本\né 👍🏽", [builtin])
    for line in [*token_lines(several.reports[0], style), *several_lines(several, style)]:
        line.replace("·", ".").encode("ascii")
