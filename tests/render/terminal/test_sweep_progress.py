"""The line that tells how far a sweep is: short, rare, true, and harmless."""

from __future__ import annotations

import io
import re

import pytest
from emulator import Terminal
from rich.cells import cell_len
from rich.console import Console
from sweep_inputs import HOSTILE, record

from decodecli.render.terminal.sweep_progress import EVERY, UPDATES, SweepProgress, clock_time


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(terminal, clock, cells=40, done=0):
    console = Console(file=terminal, width=terminal.width, _environ={"TERM": "xterm-256color"})
    return SweepProgress(console, cells, done, clock=clock)


def go_on(progress, clock, cells, tokens=10, seconds=1.0, words=(" a",) * 10):
    for _ in range(cells):
        clock.now += seconds
        progress.tokens(tokens)
        progress.cell(record(words=words))


def test_the_line_tells_cells_rate_time_left_and_the_last_text():
    terminal, clock = Terminal(width=100), Clock()
    progress = shown(terminal, clock, cells=40, done=20)
    go_on(progress, clock, 10, words=(" The", " end", ".") + (" x",) * 7)
    clock.now += 1
    progress.tokens(0)
    (line,) = [row for row in terminal.rows if row]
    assert "30/40 cells" in line
    assert re.search(r"\b9\.1 tokens/s", line)  # 100 tokens in 11 s
    assert "0:11 left" in line  # 10 cells of 10 tokens at 100/11 a second
    assert line.endswith("The end. x x x x x x x")


def test_half_done_cells_count_towards_the_time_left():
    terminal, clock = Terminal(width=100), Clock()
    progress = shown(terminal, clock, cells=3)
    go_on(progress, clock, 1)
    clock.now += 1
    progress.tokens(10)
    assert "0:01 left" in terminal.text


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 200])
def test_it_is_one_line_that_fits_and_leaves_nothing_behind(width):
    terminal, clock = Terminal(width=width), Clock()
    with shown(terminal, clock) as progress:
        for text in ("日本語のとても長いテキスト" * 9, *HOSTILE, "a" * 300, "two\nlines\t"):
            go_on(progress, clock, 1, words=(text,))
            assert len([row for row in terminal.rows if row]) == 1
            assert cell_len(terminal.text) < width
            assert not terminal.cursor_shown
    assert terminal.text == ""
    assert terminal.cursor_shown
    assert terminal.wraps
    assert terminal.grid == [[]]


def test_text_of_the_model_never_reaches_the_terminal_raw():
    terminal, clock = Terminal(width=200), Clock()  # it refuses sequences that it does not know
    progress = shown(terminal, clock)
    for text in HOSTILE:
        go_on(progress, clock, 1, words=(text,))
    assert "[bold]" in "".join(terminal.writes)
    assert "\x1b[2J" not in terminal.written
    assert "\u202e" not in terminal.written


def test_a_terminal_gets_at_most_ten_updates_a_second():
    terminal, clock = Terminal(), Clock()
    progress = shown(terminal, clock)
    for _ in range(5000):
        clock.now += 0.001
        progress.tokens(1)
    assert 5 * UPDATES - 1 <= len(terminal.writes) <= 5 * UPDATES + 1


def test_after_close_the_next_update_draws_the_line_again():
    terminal, clock = Terminal(), Clock()
    progress = shown(terminal, clock)
    go_on(progress, clock, 1)
    progress.close()
    terminal.write("something else\n")
    go_on(progress, clock, 1)
    clock.now += 1
    progress.tokens(0)
    assert terminal.rows[0] == "something else"
    assert "2/40 cells" in terminal.rows[1]


def test_off_a_terminal_there_is_a_plain_line_now_and_then():
    stream, clock = io.StringIO(), Clock()
    with SweepProgress(Console(file=stream), 200, clock=clock) as progress:
        go_on(progress, clock, int(EVERY) - 1)
        assert stream.getvalue() == ""
        go_on(progress, clock, 2 * int(EVERY))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0] == "29/200 cells · 10 tokens/s · 2:50 left"
    assert "\x1b" not in stream.getvalue()


def test_failed_cells_are_told():
    terminal, clock = Terminal(), Clock()
    progress = shown(terminal, clock)
    clock.now += 1
    progress.cell(record(words=(), error="out of memory", finish_reason="error"))
    clock.now += 1
    progress.tokens(0)
    assert "1/40 cells · 1 failed" in terminal.text


def test_a_stream_that_fails_does_not_end_the_sweep():
    class Broken(Terminal):
        def write(self, text):
            raise OSError("no space left")

    terminal, clock = Broken(), Clock()
    with shown(terminal, clock) as progress:
        go_on(progress, clock, 3)


def test_an_ascii_terminal_gets_ascii():
    terminal, clock = Terminal(width=120, encoding="ascii"), Clock()
    progress = shown(terminal, clock)
    go_on(progress, clock, 3, words=("日本",))
    assert "2/40 cells - 10 tokens/s" in terminal.text
    assert terminal.text.isascii()


def test_the_pace_is_told_in_words():
    clock = Clock()
    progress = shown(Terminal(), clock)
    go_on(progress, clock, 4)
    assert progress.pace() == "4 cells, 40 tokens in 4.0 s (10/s)"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0:00"), (42.4, "0:42"), (725, "12:05"), (11525, "3:12:05"), (200_000, "2 d 7 h")],
)
def test_time_is_spelt_as_a_clock_does(seconds, words):
    assert clock_time(seconds) == words


def test_time_before_the_model_is_loaded_is_not_counted():
    terminal, clock = Terminal(width=100), Clock()
    progress = shown(terminal, clock)
    clock.now += 15
    progress.begin()
    go_on(progress, clock, 4)
    assert progress.pace() == "4 cells, 40 tokens in 4.0 s (10/s)"
    assert "10 tokens/s" in terminal.text
