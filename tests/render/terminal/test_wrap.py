"""The running text, wrapped as it grows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from decodecli.render.terminal.wrap import RunningText


def rows(*pieces: str, width: int = 10, count: int = 3) -> list[str]:
    text = RunningText(count)
    for piece in pieces:
        text.add(piece)
    return text.rows(width, "")


def test_words_stay_whole_even_when_they_come_in_pieces() -> None:
    assert rows("The ", "capi", "tal ", "of ", "Ja", "pan") == ["The", "capital of", "Japan"]


def test_only_the_last_rows_are_kept() -> None:
    assert rows("one two three four five six", width=5, count=2) == ["five", "six"]


def test_a_word_longer_than_a_row_is_broken() -> None:
    assert rows("a abcdefghijklmno", width=6) == ["a", "abcdef", "ghijkl", "mno"][-3:]


def test_wide_characters_count_two_cells_and_may_break_anywhere() -> None:
    assert rows("東京は日本の", "首都です", width=9) == ["東京は日", "本の首都", "です"]


def test_newlines_end_rows_and_leave_none_empty() -> None:
    assert rows("a\n\n\nb", "\n", "c\n") == ["a", "b", "c"]


def test_the_whole_text_keeps_empty_rows_and_indents() -> None:
    text = RunningText()
    text.add("a\n\n  indented text\n")
    assert text.rows(10, "") == ["a", "", "  indented", "text"]


def test_marks_and_joined_emoji_stay_with_their_base() -> None:
    assert rows("e", "\u0301", "👩", "\u200d", "👧", "!", width=4) == ["e\u0301👩\u200d👧!"]


def test_a_character_that_a_selector_makes_wide_moves_on_when_it_no_longer_fits() -> None:
    assert rows("abc❤", "\ufe0f", width=4) == ["abc", "❤\ufe0f"]


def test_a_colour_is_written_where_it_changes() -> None:
    text = RunningText(3)
    for piece, code in (("ab", "<1>"), ("cd", "<1>"), ("ef", ""), ("gh", "<2>")):
        text.add(piece, code)
    assert text.rows(20, "<0>") == ["<1>abcd<0>ef<2>gh<0>"]


TEXTS = st.lists(
    st.text(st.sampled_from("ab  東京e\u0301\n\t👩\u200d❤\ufe0f"), max_size=12), max_size=8
)


@settings(deadline=None)
@given(TEXTS, st.integers(4, 30), st.integers(4, 30))
def test_growing_gives_the_same_rows_as_wrapping_at_once(
    pieces: list[str], width: int, before: int
) -> None:
    grown = RunningText(3)
    for piece in pieces:
        grown.rows(before, "")
        grown.add(piece)
    at_once = RunningText(3)
    at_once.add("".join(pieces))
    wanted = at_once.rows(width, "")
    assert grown.rows(width, "") == wanted
    assert len(wanted) <= 3
    assert all(cell_len(row) <= width for row in wanted)
