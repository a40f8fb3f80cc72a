"""A step's table and its line, at several widths."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace

import made_up
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from decodecli.records.run import exp_or_zero
from decodecli.render.number_format import percent_cell
from decodecli.render.terminal.step_table import (
    Style,
    layout,
    line_layout,
    step_line,
    step_table,
)
from decodecli.render.theme import Theme, level

TOKENS = [
    ("▁Tokyo", 14.21),
    ("▁a", 9.8),
    ("東京", 7.5),
    ("<0x0A>", 7.31),
    ("[/INST]", 7.0),
    ("▁garden", 5.0),
]
HEADER = made_up.header(vocab_size=512)
SURE = made_up.step(TOKENS, show=4, top_p=0.93, vocab_size=512)
ASTRAY = made_up.step(TOKENS, show=3, chosen=5, index=16, top_p=0.97, vocab_size=512)


def at(width: int, **changes: object) -> Style:
    return replace(Style(width=width).of_run(HEADER), **changes)  # type: ignore[arg-type]


def first_cells(row: str, cells: int) -> str:
    """As much of `row` as fills `cells` cells."""
    end = len(row)
    while cell_len(row[:end]) > cells:
        end -= 1
    return row[:end]


def lines(text: str) -> list[str]:
    assert text.endswith("\n")
    return text[:-1].split("\n")


def test_a_table_at_80_columns() -> None:
    assert lines(step_table(SURE, at(80))) == [
        "  #1  ␣Tokyo                rank 1 · kept 2 of 512 · H 0.10 → 0.17",
        "    #  token             id   logit    T=1   T=1.4     cum   final",
        " ▸  1  ␣Tokyo           100   14.21  98.4%   90.4%   90.4%   95.9%  ███████████▌",
        "    2  ␣a               137    9.80   1.2%    3.9%   94.3%    4.1%  ▌",
        "    3  東京             174    7.50   0.12%   0.75%  95.0%     ·    top_p",
        "    4  ↵                211    7.31   0.10%   0.65%  95.7%     ·    top_p",
        "    +  508 more                       0.17%   4.3%             ·    508 cut",
    ]


def test_at_60_columns_id_and_logit_give_way() -> None:
    assert lines(step_table(SURE, at(60))) == [
        "  #1  ␣Tokyo  rank 1 · kept 2 of 512 · H 0.10 → 0.17",
        "    #  token         T=1   T=1.4     cum   final",
        " ▸  1  ␣Tokyo      98.4%   90.4%   90.4%   95.9%  █████████▋",
        "    2  ␣a           1.2%    3.9%   94.3%    4.1%  ▍",
        "    3  東京         0.12%   0.75%  95.0%     ·    top_p",
        "    4  ↵            0.10%   0.65%  95.7%     ·    top_p",
        "    +  508 more     0.17%   4.3%             ·    508 cut",
    ]


def test_at_200_columns_bars_grow() -> None:
    table = lines(step_table(SURE, at(200)))
    assert table[:2] == [
        "  #1  ␣Tokyo                          rank 1 · kept 2 of 512 · H 0.10 → 0.17",
        "    #  token                       id   logit    T=1   T=1.4     cum   final",
    ]
    row = " ▸  1  ␣Tokyo                     100   14.21  98.4%   90.4%   90.4%   95.9%  "
    assert table[2] == row + "█" * 76 + "▊"


def test_a_chosen_token_outside_the_top_rows_comes_last_with_its_rank() -> None:
    assert lines(step_table(ASTRAY, at(80)))[3:] == [
        "    2  ␣a               137    9.80   1.2%    3.9%   94.3%    4.0%  ▌",
        "    3  東京             174    7.50   0.12%   0.75%  95.0%    0.77% ▏",
        "    …",
        " ▸  6  ␣garden          285    5.00   0.01%   0.13%  96.3%    0.13% ▏",
        "    +  508 more                       0.26%   4.8%            1.9%  415 cut",
    ]


def test_a_chosen_token_right_below_the_top_rows_needs_no_gap() -> None:
    step = made_up.step(TOKENS, show=3, chosen=3, top_p=0.97, vocab_size=512)
    assert "…" not in step_table(step, at(80))


def test_greedy_says_what_took_the_others() -> None:
    step = made_up.step(TOKENS, show=3, greedy=True, vocab_size=512)
    header = made_up.header(params={"temperature": 0.0}, order=("greedy",), vocab_size=512)
    table = lines(step_table(step, Style(width=80).of_run(header)))
    assert "T=1.4" not in table[1]
    assert table[2].rstrip("█").endswith("100.0%  ")
    assert table[3].endswith("·    greedy")
    line = step_line(step, Style(width=80).of_run(header))
    assert "98.4%" in line
    assert "␣a 1.2" in line
    assert "H 0.10" in line


def test_the_tempered_column_is_there_only_when_it_says_something() -> None:
    def headings(**changes: object) -> str:
        return lines(step_table(SURE, Style(width=80).of_run(made_up.header(**changes))))[1]

    assert "T=1.4" in headings()
    assert headings(params={"temperature": 1.0}, order=("top_p",)).split()[-3:] == [
        *("T=1", "cum", "final")
    ]
    assert "penalty" in headings(params={"temperature": 1.0}, order=("repetition_penalty",))
    assert "T=0.333" in headings(params={"temperature": 1 / 3})
    assert "T" in headings(params={"temperature": 1e-5 / 3}).split()


def test_long_stage_names_are_shortened_where_they_must() -> None:
    rows = tuple(
        replace(row, removed_by="no_repeat_ngram_size") if row.removed_by else row
        for row in SURE.candidates
    )
    step = replace(SURE, candidates=rows)
    assert lines(step_table(step, at(60)))[4].endswith(" ngram")
    assert lines(step_table(step, at(200)))[4].endswith(" no_repeat_ngram_size")


def test_a_vocabulary_that_is_listed_whole_has_no_rest() -> None:
    step = made_up.step(TOKENS, vocab_size=6)
    assert " more" not in step_table(step, at(80, vocab_size=6))


def test_a_line_at_80_columns() -> None:
    step = made_up.step(made_up.TOKYO)
    style = Style(width=80).of_run(made_up.header())
    assert lines(line_layout(style).headings + step_line(step, style)) == [
        "step token        T=1   final  │ others, final %            │ final H, kept",
        "  #1 ␣Tokyo     95.7%   74.4%  │ ␣a 3.2  ␣the 2.8  ␣one 2.1 │ H 2.01  kept 2,226",
    ]


def test_a_line_at_60_columns_keeps_the_runners_up() -> None:
    step = made_up.step(made_up.TOKYO)
    style = Style(width=60).of_run(made_up.header())
    assert lines(line_layout(style).headings + step_line(step, style)) == [
        "step token       T=1   final  │ others, final %     │ final",
        "  #1 ␣Tokyo    95.7%   74.4%  │ ␣a 3.2  ␣the 2.8    │ H 2.01",
    ]


def test_a_line_has_one_probability_where_nothing_changes_it() -> None:
    step = made_up.step(made_up.TOKYO)
    header = made_up.header(params={"temperature": 1.0}, order=())
    drawn = lines(line_layout(Style(width=80).of_run(header)).headings)[0]
    assert "T=1" in drawn
    assert "others, T=1 %" in drawn
    assert "final" not in drawn
    assert step_line(step, Style(width=80).of_run(header)).count("95.7%") == 1


def test_a_line_colours_the_probability_that_the_running_text_does() -> None:
    step = made_up.step(made_up.TOKYO, chosen=2)
    theme = Theme.full()
    drawn = step_line(step, Style(width=80, theme=theme).of_run(made_up.header()))
    share = percent_cell(exp_or_zero(step.logprob))
    assert theme.paint(theme.text[level(exp_or_zero(step.logprob))], share) in drawn


def test_without_a_filter_no_line_says_how_many_were_kept() -> None:
    step = made_up.step(made_up.TOKYO)
    header = dataclasses.replace(made_up.header(), order=("temperature",))
    style = Style(width=80).of_run(header)
    assert "kept" not in line_layout(style).headings + step_line(step, style)


PIECES = st.text(
    st.one_of(st.characters(), st.sampled_from("東京\u0301\x1b\r\u202e👩\u200d▁[]/")), max_size=30
)


@settings(deadline=None)
@given(
    st.lists(PIECES, min_size=1, max_size=8),
    st.sampled_from([24, 40, 60, 61, 69, 70, 80, 100, 200]),
    st.booleans(),
    st.data(),
)
def test_every_row_fits_and_its_columns_line_up(
    pieces: list[str], width: int, byte_level: bool, data: st.DataObject
) -> None:
    tokens = [(piece, 10.0 - place) for place, piece in enumerate(pieces)]
    chosen = data.draw(st.integers(0, len(tokens) - 1))
    step = made_up.step(tokens, chosen=chosen, show=5, top_p=1.0, vocab_size=512)
    style = at(width, byte_level=byte_level)
    table = lines(step_table(step, style))
    assert all(row.isprintable() and cell_len(row) <= width for row in table)
    end = layout(style, 5).numbers_end
    for row in table[2:]:
        if row.strip() != "…":
            final = first_cells(row, end)[len(first_cells(row, end - 7)) :].ljust(7)
            assert re.fullmatch(r"[ \d]{3}[.]\d+% ?| +\de-\d+| +·   | +<1e-6", final)
    for row in lines(line_layout(style).headings + step_line(step, style)):
        assert row.isprintable()
        assert cell_len(row) <= width or width < 40


def test_wide_tokens_do_not_shift_the_numbers() -> None:
    rows = lines(step_table(made_up.step(made_up.TOKYO), Style(width=80).of_run(HEADER)))[2:12]
    ends = {cell_len(row[: re.search(r"\d\.\d\d ", row).end()]) for row in rows}  # type: ignore[union-attr]
    assert ends == {36}


@pytest.mark.parametrize(
    "piece", ["[/INST]", "[bold]", "[/bold]", "\x1b]0;x\x07", "\r", "\u202e", "\x9b31m", "[link=x]"]
)
def test_hostile_tokens_are_shown_and_do_nothing(piece: str) -> None:
    step = made_up.step([(piece, 3.0), ("a", 1.0)], vocab_size=2)
    style = at(80, vocab_size=2)
    for drawn in (step_table(step, style), step_line(step, style)):
        assert all(row.isprintable() for row in lines(drawn))
    if piece.startswith("["):
        assert step_table(step, style).count(piece) == 2
        assert step_line(step, style).count(piece) == 1


def test_colour_goes_around_the_same_text() -> None:
    plain = step_table(SURE, at(80))
    coloured = step_table(SURE, at(80, theme=Theme.full()))
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain
    chosen = next(row for row in lines(coloured) if "▸" in row)
    assert chosen.startswith(Theme.full().accent)
    removed = next(row for row in lines(coloured) if row.endswith("top_p\x1b[0m"))
    assert removed.startswith(Theme.full().dim)


def test_ascii_streams_get_ascii_bars_and_tokens() -> None:
    style = at(80, encoding="ascii")
    table = step_table(made_up.step(made_up.TOKYO), style)
    assert "_Tokyo" in table
    assert "<U+6771>" in table
    assert "####" in table
    assert "█" not in table
