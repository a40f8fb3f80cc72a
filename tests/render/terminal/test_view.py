"""A whole run on a terminal: what is on the screen in the end, and what is never sent to it."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import made_up
import pytest
from emulator import Terminal
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from decodecli.records.run import RunHeader, Step
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.summary import Facts, summary_lines
from decodecli.render.terminal.view import TerminalView

HOSTILE = ["[/INST]", "[bold]", "\x1b]0;x\x07", "\r", "\u202e", "\x9b31m", "\x1b[2J", "\x1b[10A"]
MODES = ["full", "line", "none"]


def console_on(terminal: Terminal, **environ: str) -> Console:
    """A console that believes in this terminal and in nothing around it."""
    return Console(
        file=terminal,
        width=terminal.width,
        height=terminal.height,
        _environ={"TERM": "xterm-256color", **environ},
    )


def some_steps(count: int = 5, **changes: Any) -> list[Step]:
    words = ["▁Tokyo", ".", "▁It", "▁is", "▁the", "▁largest", "▁city", "東京", "<0x0A>", "▁end"]
    made = []
    for index in range(count):
        word = words[index % len(words)]
        tokens = [(word, 12.0 - index % 5), ("▁a", 7.0), ("▁the", 6.5), ("▁one", 6.0)]
        text = "\n" if word == "<0x0A>" else None
        made.append(made_up.step(tokens, index=index, text=text, **changes))
    return made


def play(
    view: TerminalView, steps: list[Step], header: RunHeader | None = None, reason: str = "length"
) -> None:
    view.start(header or made_up.header())
    for step in steps:
        view.step(step)
    view.finish(made_up.summary(steps, reason))
    view.close()


def shown(
    steps: list[Step], *, width: int = 80, height: int = 24, tables: str = "full", **environ: str
) -> Terminal:
    terminal = Terminal(width, height)
    play(TerminalView(console_on(terminal, **environ), tables=tables), steps)
    return terminal


def rules(terminal: Terminal) -> int:
    return len(re.findall(r"(?m)^─{8}", terminal.text))


def test_a_run_reads_from_header_to_repeat() -> None:
    steps = [made_up.step([("▁Tokyo", 9.0), ("▁a", 5.0)], vocab_size=2)]
    terminal = Terminal(80, 24)
    header = made_up.header(vocab_size=2, params={"max_new_tokens": 1})
    play(TerminalView(console_on(terminal, TERM="dumb")), steps, header)
    assert terminal.text.split("\n") == [
        "builtin 8.4M · float32 · cpu · seed 42 · temperature 1.4 → top_p 0.9",
        "",
        "The capital of Japan is",
        "  #1  ␣Tokyo                  rank 1 · kept 1 of 2 · H 0.09 → 0.00",
        "    #  token             id   logit    T=1   T=1.4     cum   final",
        " ▸  1  ␣Tokyo           100    9.00  98.2%   94.6%   94.6%  100.0%  ████████████",
        "    2  ␣a               137    5.00   1.8%    5.4%  100.0%     ·    top_p",
        "─" * 80,
        "The capital of Japan is Tokyo",
        "",
        " 1 token in 0.11 s (9.1/s) · stopped at length · mean logprob −0.02",
        "   perplexity 1.0 · mean H 0.09 at T=1",
        " least sure (T=1) at #1 ␣Tokyo (H 0.09, p 98.2%)",
        ' repeat: decodecli generate "The capital of Japan is" -n 1 -t 1.4 --top-p 0.9 --',
        "seed 42",
    ]


@pytest.mark.parametrize("tables", ["full", "line"])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 10), (200, 60), (40, 6), (80, 3)])
def test_each_step_stands_once_and_the_text_once(tables: str, width: int, height: int) -> None:
    steps = some_steps(30)
    terminal = shown(steps, width=width, height=height, tables=tables)
    titles = re.findall(r"(?m)^ {1,2}#(\d+) {1,2}\S+ .*(?:H \d)", terminal.text)
    assert titles == [str(number) for number in range(1, 31)]
    assert " ".join(terminal.text.split()).count("Tokyo. It is the largest") == 3
    assert rules(terminal) == 1
    assert terminal.cursor_shown
    assert terminal.wraps
    assert terminal.row == len(terminal.grid) - 1


@pytest.mark.parametrize("tables", ["full", "line"])
def test_the_running_text_stays_in_sight_in_at_most_four_rows(tables: str) -> None:
    terminal = Terminal(40, 20)
    view = TerminalView(console_on(terminal), tables=tables)
    view.start(made_up.header())
    for step in some_steps(40):
        view.step(step)
        below = terminal.rows[terminal.row :]
        assert below[0] == "─" * 40 or "T=1 <1%" in below[0]
        assert 2 <= len(below) <= 4
        assert below[-1].endswith("▌")
        assert not terminal.cursor_shown
    view.close()
    assert terminal.row == len(terminal.grid) - 1
    assert terminal.rows[-1] == ""


SEGMENTS = st.text(st.sampled_from("ab  東京\n\t\x1b\re\u0301👩\u200d👧❤\ufe0f\u202e"), max_size=9)


@settings(deadline=None)
@given(
    st.lists(SEGMENTS, max_size=20),
    st.integers(20, 100),
    st.integers(2, 30),
    st.sampled_from(["full", "line"]),
)
def test_no_text_makes_the_screen_repeat_or_lose_a_line(
    segments: list[str], width: int, height: int, tables: str
) -> None:
    """The emulator draws joined emoji wider than the view counts, as some terminals do."""
    steps = [
        made_up.step([("x", 5.0), ("y", 4.0)], index=index, text=segment, vocab_size=2)
        for index, segment in enumerate(segments)
    ]
    terminal = shown(steps, width=width, height=height, tables=tables)
    titles = re.findall(r"(?m)^ +#(\d+) {1,2}x [^(\n]*H \d", terminal.text)
    if width >= 40:
        assert titles == [str(number) for number in range(1, len(steps) + 1)]
    assert rules(terminal) == 1
    assert terminal.row == len(terminal.grid) - 1


def test_each_step_is_one_write() -> None:
    terminal = Terminal()
    view = TerminalView(console_on(terminal))
    view.start(made_up.header())
    for number, step in enumerate(some_steps(5), 2):
        view.step(step)
        assert len(terminal.writes) == number


def test_resizing_in_the_middle_leaves_no_second_rule() -> None:
    terminal = Terminal(100, 30)
    console = console_on(terminal)
    view = TerminalView(console, tables="line")
    steps = some_steps(30)
    view.start(made_up.header())
    for step in steps:
        width = {10: 50, 20: 90}.get(step.index)
        if width:
            terminal.narrow(width)
            console.width = width
        view.step(step)
    view.finish(made_up.summary(steps))
    assert rules(terminal) == 1


def test_closing_erases_the_running_text_and_may_be_done_twice() -> None:
    terminal = Terminal()
    view = TerminalView(console_on(terminal))
    view.start(made_up.header())
    for step in some_steps(3):
        view.step(step)
    view.close()
    before = len(terminal.writes)
    view.close()
    assert len(terminal.writes) == before
    assert "▌" not in terminal.rows[-1]
    assert terminal.cursor_shown
    view.step(some_steps(4)[3])
    assert terminal.rows[-1].endswith("▌")


@pytest.mark.parametrize("tables", MODES)
@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": "xterm"}])
@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_reaches_no_terminal_raw(
    tables: str, environ: dict[str, str], piece: str
) -> None:
    """The emulator fails on any control or escape sequence that the view does not use itself."""
    terminal = Terminal()
    view = TerminalView(console_on(terminal, **environ), tables=tables)
    steps = [made_up.step([(piece, 3.0), ("a", 1.0)], index=index) for index in range(3)]
    play(view, steps, made_up.header(name=f"dir/{piece}", prompt=f"say {piece}", revision=piece))
    assert terminal.sequences <= {"?25l", "?25h", "?7l", "?7h", "J", *_ups(), *_colours(terminal)}
    assert not re.search("[\r\x00-\x08\x9b\u202e]", terminal.written.replace("\r\x1b[", ""))
    if piece.startswith("["):
        assert terminal.text.count(piece) >= 3


def _ups() -> list[str]:
    return [f"{rows}A" for rows in range(1, 4)]


def _colours(terminal: Terminal) -> list[str]:
    return [sequence for sequence in terminal.sequences if sequence.endswith("m")]


@pytest.mark.parametrize("tables", MODES)
def test_no_color_means_no_colour_but_unsure_tokens_are_underlined(tables: str) -> None:
    terminal = shown(some_steps(10), tables=tables, NO_COLOR="1")
    assert set(_colours(terminal)) <= {"0m", "1m", "2m", "4m", "7m"}
    assert "\x1b[4m" in terminal.written


@pytest.mark.parametrize("tables", MODES)
def test_a_dumb_terminal_gets_no_escapes(tables: str) -> None:
    terminal = shown(some_steps(10), tables=tables, TERM="dumb")
    assert terminal.sequences == set()
    assert "\r" not in terminal.written
    assert "Tokyo. It is" in terminal.text


@pytest.mark.parametrize("tables", MODES)
def test_a_pipe_gets_plain_text_even_when_told_to_have_colour(tables: str) -> None:
    for environ in ({}, {"FORCE_COLOR": "1"}):
        pipe = io.StringIO()
        play(
            TerminalView(Console(file=pipe, width=80, _environ=environ), tables=tables),
            some_steps(),
        )
        assert "\x1b[?" not in pipe.getvalue()
        assert "\r" not in pipe.getvalue()
        assert ("\x1b" in pipe.getvalue()) == bool(environ)


def test_sixteen_colours_are_enough() -> None:
    terminal = shown(some_steps(10), TERM="xterm")
    assert not any("38;5" in sequence for sequence in terminal.sequences)
    assert "1;35m" in terminal.sequences


def test_without_tables_only_the_text_streams() -> None:
    terminal = shown(some_steps(10), tables="none")
    text = terminal.text.split("\n")
    assert text[2:5] == ["The capital of Japan is Tokyo. It is the largest city東京", " end", ""]
    assert "token   " not in terminal.text
    assert "─" not in terminal.text


def test_tables_without_text_show_neither_prompt_nor_text() -> None:
    terminal = Terminal()
    steps = some_steps(4)
    play(TerminalView(console_on(terminal), show_text=False), steps)
    assert "Tokyo. It" not in terminal.text
    assert not re.search(r"(?m)^The capital", terminal.text)
    assert terminal.text.count("token   ") == 4


def test_samples_are_numbered_and_start_afresh() -> None:
    terminal = Terminal(100, 40)
    view = TerminalView(console_on(terminal), tables="line")
    for number in (1, 2):
        steps = some_steps(3)
        view.start(made_up.header(seed=41 + number), sample=(number, 2))
        for step in steps:
            view.step(step)
        view.finish(made_up.summary(steps))
    assert "seed 42 · sample 1 of 2" in terminal.text
    assert "seed 43 · sample 2 of 2" in terminal.text
    assert terminal.text.count("Japan is Tokyo. It\n") == 2


def test_the_header_wraps_between_its_parts() -> None:
    header = made_up.header(
        name="org/some-model",
        quantize="nf4",
        params={"top_k": 40},
        order=("temperature", "top_k", "top_p"),
    )
    terminal = Terminal(60, 24)
    TerminalView(console_on(terminal)).start(header)
    assert terminal.text.split("\n")[:2] == [
        "org/some-model 8.4M · float32 · cpu · nf4 · seed 42",
        "  temperature 1.4 → top_k 40 → top_p 0.9",
    ]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("stop", "stopped at an end token"),
        ("interrupted", "interrupted"),
        ("error", "ended by an error"),
    ],
)
def test_the_summary_says_in_words_why_it_ended(reason: str, words: str) -> None:
    terminal = Terminal(100, 24)
    play(TerminalView(console_on(terminal)), some_steps(3), reason=reason)
    assert f" · {words} · mean logprob" in terminal.text


def test_the_summary_names_where_the_model_was_least_sure() -> None:
    steps = some_steps(5)
    terminal = Terminal(120, 24)
    play(TerminalView(console_on(terminal)), steps)
    least = sorted(steps, key=lambda step: -step.entropy)[:3]
    line = next(line for line in terminal.text.split("\n") if "least sure" in line)
    assert re.findall(r"#(\d+) \S+ \(H", line) == [str(step.index + 1) for step in least]


def test_a_summary_at_40_columns_fits_but_for_the_command_that_is_copied() -> None:
    steps = some_steps(5)
    rows = summary_lines(made_up.header(), made_up.summary(steps), Facts(steps), Style(width=40))
    assert rows[-1].startswith("repeat: decodecli")
    assert all(cell_len(row) < 40 for row in rows[:-1])
    assert "least sure (T=1)" in rows


def test_a_run_without_tokens_still_ends_well() -> None:
    for tables in MODES:
        terminal = shown([], tables=tables)
        assert "0 tokens" in terminal.text
        assert "perplexity" not in terminal.text


def test_a_very_long_prompt_is_shown_by_its_end() -> None:
    terminal = Terminal()
    header = made_up.header(prompt="word " * 2000 + "END")
    play(TerminalView(console_on(terminal)), some_steps(2), header)
    assert "… (9,603 characters before)" in terminal.text
    assert len(terminal.text) < 4000
    assert "END Tokyo." in terminal.text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437"])
@pytest.mark.parametrize("tables", MODES)
def test_a_stream_that_is_not_utf8_gets_what_it_can_carry(tables: str, encoding: str) -> None:
    terminal = Terminal(encoding=encoding)
    play(TerminalView(console_on(terminal), tables=tables), some_steps(10))
    assert "temperature 1.4 > top_p 0.9" in terminal.text
    assert "<U+6771><U+4EAC>" in terminal.text


def test_byte_level_pieces_are_recognised_and_stay_so() -> None:
    terminal = Terminal()
    steps = [
        made_up.step([("ĠTokyo", 9.0), ("Ċ", 5.0)], index=0, text=" Tokyo"),
        made_up.step([("æĿ±", 9.0), ("a", 5.0)], index=1, text="東"),
    ]
    play(TerminalView(console_on(terminal)), steps)
    assert "Ġ" not in terminal.text
    assert "␣Tokyo" in terminal.text
    assert "1  東" in terminal.text


def test_streamed_words_go_whole_to_the_next_row() -> None:
    words = "several words that come in pieces and do not fit into one narrow row of the terminal"
    tokens = re.findall(r" ?\w{1,3}|\w{1,3}", words)
    terminal = Terminal(24, 30)
    view = TerminalView(console_on(terminal), tables="none")
    view.start(replace(made_up.header(), prompt="Here are"))
    for index, text in enumerate([" ", *tokens]):
        view.step(replace(made_up.step(made_up.TOKYO), index=index, text=text))
    view.close()
    rows = [row for row in terminal.text.split("\n") if row.strip()][-6:]
    assert " ".join(rows).split()[-len(words.split()) :] == words.split()
    assert all(len(row) < 24 for row in rows)
