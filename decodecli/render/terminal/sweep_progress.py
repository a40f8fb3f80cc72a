"""A sweep's progress: one live line on a terminal, now and then a plain one in a log."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from rich.cells import cell_len
from rich.console import Console

from decodecli.records.sweep import CellRecord
from decodecli.render.escaping import clip, one_line
from decodecli.render.number_format import bar, count
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.view import (
    ERASE,
    HIDE_CURSOR,
    NO_WRAP,
    SHOW_CURSOR,
    WRAP,
    can_move_cursor,
)
from decodecli.render.theme import Theme

UPDATES = 10  # a second, at most, on a terminal
EVERY = 30.0  # seconds from line to line where there is no terminal
WINDOW = 20.0  # seconds that the rate looks back, so that it follows a cluster that grows

_BAR, _LEAST_TEXT = 10, 12  # cells
_SAMPLED = 0.5  # seconds from one remembered count of tokens to the next


class SweepProgress:
    """Counts what a sweep has done and shows it on `console`, the one of stderr.

    Args:
        console: on a terminal one line is drawn again and again; elsewhere a line is written every
            `EVERY` seconds, none for a sweep that is done before.
        cells: how many the sweep has.
        done: how many of them an earlier run finished.
        clock: seconds, for tests.

    A line that cannot be written is left out: a sweep does not end because nobody can watch it.
    """

    def __init__(
        self,
        console: Console,
        cells: int,
        done: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._clock = console, clock
        self._live = can_move_cursor(console)
        theme = Theme.of(console) if self._live else Theme()
        self._style = Style(theme=theme, encoding=console.encoding)
        self._separator = " - " if self._style.ascii_only else " · "
        self._cells, self._before = cells, done
        self._finished = self._failed = 0
        self._tokens = self._in_cells = 0  # decoded; of them in finished cells
        self._last = ""
        self._due = clock() + (0.0 if self._live else EVERY)
        self._drawn = False
        self.begin()

    def __enter__(self) -> SweepProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def begin(self) -> None:
        """Count the time from now on: what came before was no decoding."""
        self._start = self._clock()
        self._counts: deque[tuple[float, int]] = deque([(self._start, self._tokens)])

    def tokens(self, more: int) -> None:
        """`more` tokens were decoded."""
        self._tokens += more
        self._update()

    def cell(self, record: CellRecord) -> None:
        """A cell is finished."""
        self._finished += 1
        self._failed += record.error is not None
        self._in_cells += record.new_tokens
        self._tokens = max(self._tokens, self._in_cells)  # an engine may tell of whole cells only
        self._last = record.text or self._last
        self._update()

    def close(self) -> None:
        """Take the live line away, also before something else is printed: the next update draws it
        again."""
        if self._drawn:
            self._drawn = False
            self._write(ERASE + WRAP + SHOW_CURSOR)

    def pace(self) -> str:
        """What was done since the start, in words: `16 cells, 1,024 tokens in 1.9 s (539/s)`."""
        took = max(self._clock() - self._start, 1e-9)
        seconds = f"{took:.1f} s" if took < 100 else clock_time(took)
        tokens = f"{count(self._tokens)} tokens in {seconds} ({_rate(self._tokens / took)}/s)"
        return f"{count(self._finished, 'cell')}, {tokens}"

    def _update(self) -> None:
        now = self._clock()
        if now - self._counts[-1][0] >= _SAMPLED:
            self._counts.append((now, self._tokens))
            while now - self._counts[0][0] > WINDOW and len(self._counts) > 2:
                self._counts.popleft()
        if now < self._due:
            return
        facts, style = self._facts(now), self._style
        if not self._live:
            self._due = now + EVERY
            self._write(style.encodable(self._separator.join(facts)) + "\n")
            return
        self._due, self._drawn = now + 1 / UPDATES, True
        width = max(self._console.width - 1, 1)
        while len(facts) > 1 and cell_len(self._separator.join(facts)) > width:
            facts.pop()
        text = clip(self._separator.join(facts), width)
        line, room = style.encodable(text), width - cell_len(text)
        if room >= _BAR + 2:
            share = (self._before + self._finished) / max(self._cells, 1)
            drawn = bar(share, _BAR, style.ascii_only)
            painted = style.theme.paint(style.theme.heat[-1], drawn)
            line = painted + " " * (_BAR + 1 - len(drawn)) + line
            room -= _BAR + 1
        last = style.encodable(one_line(self._last.strip()))
        if last and room - 2 >= _LEAST_TEXT:
            line += "  " + style.dim(style.encodable(clip(last, room - 2)))
        # The cursor rests in front, so that erasing is right after a resize too.
        self._write(f"{HIDE_CURSOR}{NO_WRAP}{ERASE}{line}\r{WRAP}")

    def _facts(self, now: float) -> list[str]:
        """Cells, failures, tokens a second, time left: the most important first."""
        facts = [f"{count(self._before + self._finished)}/{count(self._cells)} cells"]
        if self._failed:
            facts.append(f"{count(self._failed)} failed")
        since, tokens = self._counts[0]
        rate = (self._tokens - tokens) / (now - since) if now > since else 0.0
        if rate > 0:
            facts.append(f"{_rate(rate)} tokens/s")
            if self._in_cells:  # cells to come are taken to be as long as those that are done
                to_come = self._cells - self._before - self._finished
                left = to_come * self._in_cells / self._finished - (self._tokens - self._in_cells)
                facts.append(f"{clock_time(max(left, 0.0) / rate)} left")
        return facts

    def _write(self, text: str) -> None:
        try:
            self._console.file.write(text)
            self._console.file.flush()
        except (OSError, ValueError):
            self._live = self._drawn = False
            self._due = float("inf")


def clock_time(seconds: float) -> str:
    """`0:42`, `12:05`, `3:12:05`, and from two days on `2 d 7 h`."""
    total = round(seconds)
    hours, minutes = divmod(total // 60, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{total % 60:02}" if hours else f"{minutes}:{total % 60:02}"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 9.95 else f"{rate:.1f}"
