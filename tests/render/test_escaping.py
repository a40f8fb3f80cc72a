"""Tokens and text made visible, and harmless."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from decodecli.render.escaping import (
    clip,
    encodable,
    guess_byte_level,
    one_line,
    pad,
    safe_text,
    visible,
)

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
NASTY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "\x00\x07\x08\n\r\t\x1b\x7f\x85\x9b ▁<>[]0xE6ĠĊ\u0301\u200d\ufe0f\ud83d" + BIDI
        ),
    )
)


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        ("▁Tokyo", "␣Tokyo"),
        (" a  b", "␣a␣␣b"),
        ("\n", "↵"),
        ("\t", "⇥"),
        ("\r", "␍"),
        ("<0xE6>", "<0xE6>"),
        ("<0x0A>", "↵"),
        ("<0x09>", "⇥"),
        ("<0x0D>", "␍"),
        ("<0x20>", "␣"),
        ("<0x1B>", "<0x1B>"),
        ("\x1b]0;x\x07", "␛]0;x␇"),
        ("\x9b31m", "<U+009B>31m"),
        ("\x7f", "␡"),
        ("\u202eabc", "<U+202E>abc"),
        ("\u200b", "<U+200B>"),
        ("\u2028", "<U+2028>"),
        ("\ud800", "<U+D800>"),
        ("\u3000", "<U+3000>"),
        ("\u0301", "◌\u0301"),
        ("▁\u0301", "␣◌\u0301"),
        ("e\u0301", "e\u0301"),
        ("❤\ufe0f", "❤<U+FE0F>"),
        ("東京", "東京"),
        ("[/INST]", "[/INST]"),
        ("[bold]", "[bold]"),
        ("", ""),
    ],
)
def test_a_piece_shows_every_character_of_it(piece: str, shown: str) -> None:
    assert visible(piece) == shown


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        ("ĠTokyo", "␣Tokyo"),
        ("Ċ", "↵"),
        ("ĊĊ", "↵↵"),
        ("ĉ", "⇥"),
        ("æĿ±", "東"),
        ("æĿ", "<0xE6><0x9D>"),
        ("Ġæ", "␣<0xE6>"),
        ("Ã©", "é"),
        ("Â", "<0xC2>"),
        ("Äł", "Ġ"),
        ("ĽĠ", "<0x9B>␣"),
        ("ÂĽ31m", "<U+009B>31m"),
        ("<|endoftext|>", "<|endoftext|>"),
        ("<tool call>", "<tool␣call>"),
        ("<0x0A>", "↵"),
    ],
)
def test_a_byte_level_piece_shows_its_characters_and_stray_bytes(piece: str, shown: str) -> None:
    assert visible(piece, byte_level=True) == shown


def test_every_byte_of_the_byte_level_alphabet_can_be_shown() -> None:
    alphabet = [chr(c) for c in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x144))]
    assert len(alphabet) == 256
    assert len({visible(letter, byte_level=True) for letter in alphabet}) == 256


@settings(deadline=None)
@given(NASTY, st.booleans())
def test_no_piece_brings_a_control_or_a_bidi_character_to_the_screen(
    piece: str, byte_level: bool
) -> None:
    shown = visible(piece, byte_level)
    assert shown.isprintable()
    assert not set(shown) & set(BIDI)
    assert cell_len(shown) >= (1 if piece else 0)
    assert cell_len(pad(shown, 9)) == 9
    assert visible(shown) == shown or re.search("<0x(0A|09|0D|20)>", shown, re.I)


@settings(deadline=None)
@given(NASTY)
def test_running_text_keeps_newlines_and_tabs_and_nothing_else_that_steers(text: str) -> None:
    safe = safe_text(text)
    assert all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") for c in safe)
    assert not set(safe) & set(BIDI)
    assert safe.count("\n") == text.count("\n")
    assert safe_text(safe) == safe
    safe.encode("utf-8")
    assert "\n" not in one_line(text)


@settings(deadline=None)
@given(NASTY, NASTY)
def test_text_made_safe_in_segments_is_the_text_made_safe(one: str, other: str) -> None:
    assert safe_text(one) + safe_text(other) == safe_text(one + other)


@pytest.mark.parametrize(
    "text", ["👩‍👧‍👦 ❤️ 👍🏽 🏴󠁧󠁢󠁳󠁣󠁴󠁿", "e\u0301 n\u0303", "สวัสดี", "می‌خواهم", "line\n\ttab", "\ufffd"]
)
def test_ordinary_writing_passes_through_unchanged(text: str) -> None:
    assert safe_text(text) == text


def test_escapes_in_running_text_become_pictures() -> None:
    assert safe_text("a\x1b[31mb\rc\x9b\u202e") == "a␛[31mb␍c<U+009B><U+202E>"


def test_byte_level_vocabularies_are_told_by_their_space() -> None:
    assert guess_byte_level(["the", "Ġthe"])
    assert guess_byte_level(["Ċ"])
    assert not guess_byte_level(["▁the", "Ġ"])
    assert not guess_byte_level(["the", "a"])
    assert not guess_byte_level([])


def test_clipping_counts_cells_and_splits_no_wide_character() -> None:
    assert clip("東京都庁", 5) == "東京…"
    assert clip("東京都庁", 4) == "東…"
    assert clip("abc", 3) == "abc"
    assert clip("abc", 1) == "…"
    assert clip("abc", 0) == ""
    assert pad("東…", 6) == "東…   "


def test_a_stream_that_is_not_unicode_gets_ascii() -> None:
    assert encodable("␣a↵東", "ascii") == "_a\\n<U+6771>"
    assert encodable("␛]0", "ascii") == "<U+001B>]0"
    assert encodable("␣é", "latin-1") == "_é"
